"""Answers: rows that are graded as wanted, completions that are divided and graded, questions that are refused."""

# ruff: noqa: E501  (rows of data stay on one line)

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenskip import plugins
from tokenskip.answers.compare import compare
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.generation.grade import grade_trajectory
from tokenskip.generation.split import split_completion
from tokenskip.types import Trajectory

from .common import Case, copy, not_one_line, read_rows, tokenskip


def graded_rows(folder: Path, work: Path) -> list[str]:
    """`tokenskip grade input.jsonl --task TASK`, compared with want.json."""
    task = re.search(r"--task (\w+)", (folder / "README").read_text(encoding="utf-8"))
    assert task
    done = tokenskip(work, "grade", folder / "input.jsonl", "--task", task[1], "-o", work / "out.jsonl")
    if done.returncode:
        return [f"exit {done.returncode}: {done.stderr.strip()[-300:]}"]
    wanted = json.loads((folder / "want.json").read_text(encoding="utf-8"))
    rows = read_rows(work / "out.jsonl")
    return [
        f"row {row['id']}: wanted {want}, got {row['correct']} ({row['reason']}, {row['extracted']!r})"
        for row, want in zip(rows, wanted, strict=True)
        if row["correct"] is not want
    ]


def trajectory_grade(output: str, gold: str, prompt: PromptConfig, task: str) -> tuple[bool | None, str]:
    """The grade of a completion as a run gives it: divided first, then graded by its tail."""
    split = split_completion(output, "stop", prompt)
    whole = Trajectory(id="a", question="?", gold=gold, output=output, head=split.head, cot=split.cot, tail=split.tail)
    graded = grade_trajectory(whole, plugins.make_task(TaskConfig(name=task), prompt))
    assert graded.grade
    return graded.grade.correct, f"tail {split.tail[:60]!r}, {graded.grade.reason}, {graded.grade.extracted!r}"


def not_right(rows: list[tuple[str, str, PromptConfig, str]]) -> list[str]:
    """The completions (output, gold, prompt, task) that a run does not grade as right."""
    graded = [(output, *trajectory_grade(output, gold, prompt, task)) for output, gold, prompt, task in rows]
    return [f"{output[:60]!r}: {detail}" for output, correct, detail in graded if correct is not True]


def own_trigger(folder: Path, work: Path) -> list[str]:
    """A German recipe: three of three completions are right; and its siblings in other languages and formats."""
    copy(folder, work)
    faults = []
    for command in (["generate", "run", "--recipe", "de.yaml"], ["grade", "run"]):
        done = tokenskip(work, *command)
        if done.returncode:
            faults.append(f"{command[0]}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    grades = [row["correct"] for row in read_rows(work / "run" / "trajectories.jsonl")]
    if grades != [True] * 3:
        faults.append(f"German recipe: grades {grades}")
    triggers = [
        ("9 + 3 = 12. Die Antwort lautet 12. Das sind 3 mehr als 9.", "12", "Die Antwort lautet", "gsm8k"),
        ("9 + 3 = 12. La réponse finale est 12. Soit 3 de plus que 9.", "12", "La réponse finale est", "gsm8k"),
        ("9 + 3 = 12。最终答案是12个苹果。比9多3个。", "12", "最终答案是", "gsm8k"),
        ("9 + 3 = 12。最终答案是12。", "12", "最终答案是", "gsm8k"),
        ("Она купила 3. Ответ: 12 яблок (это на 3 больше).", "12", "Ответ:", "gsm8k"),
        ("Tom is taller. Die Antwort lautet: Tom. Er ist größer als Anna.", "Tom", "Die Antwort lautet:", "jsonl"),
        ("Tom is taller. 最终答案是汤姆。他比安娜高。", "汤姆", "最终答案是", "jsonl"),
        ("9+3=12. Therefore the result is 12. This is 3 more than 9.", "12", "the result is", "gsm8k"),
        ("9+3=12. The final answer is 12. It is 3 more than 9.", "12", "The final answer is", "gsm8k"),
        ("9+3=12. The final answer is 12. I double-checked that my answer is correct.", "12", "The final answer is", "gsm8k"),
    ]  # fmt: skip
    rows = [(output, gold, PromptConfig(trigger=trigger), task) for output, gold, trigger, task in triggers]
    boxed, think = PromptConfig(answer="boxed"), PromptConfig(answer="think")
    rows += [
        ("so \\boxed{12} apples. The answer is correct.", "12", boxed, "gsm8k"),
        ("<think>hm</think>\n\nShe has 12 apples. That is 3 more.", "12", think, "gsm8k"),
        ("<think>hm</think>\n\nThe answer is 12. I hope the answer is clear.", "12", think, "gsm8k"),
    ]
    return faults + not_right(rows)


def choice_text(folder: Path, work: Path) -> list[str]:
    """A gold answer given as text is a choice's text before it is an index."""
    task = plugins.make_task(TaskConfig(name="choice", test=str(folder / "in.jsonl")), PromptConfig())
    golds = [problem.gold for problem in task.problems("test")]
    return [] if golds == ["D", "D", "B"] else [f"golds {golds}, wanted D, D, B"]


def nan_question(folder: Path, work: Path) -> list[str]:
    """NaN and infinity are refused in one line, for each of the three rows."""
    copy(folder, work)
    faults = []
    rows = (work / "nan.jsonl").read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(rows, start=1):
        (work / "nan.jsonl").write_text(row + "\n", encoding="utf-8")
        done = tokenskip(work, "run", "nan.yaml", "--dry-run")
        faults += [f"row {number}: {fault}" for fault in not_one_line(done, "nan.jsonl line 1")]
    return faults


def gold_with_unit(folder: Path, work: Path) -> list[str]:
    """A unit in brackets after the gold number, and the siblings whose grade the policy settles."""
    faults = []
    for options in ({}, {"numeric": True}):
        task = plugins.make_task(TaskConfig(name="jsonl", options=options), PromptConfig())
        for output, gold, want in (
            ("The final answer is 9.", "9 (apples)", True),
            ("The final answer is 9 apples.", "9 (apples)", True),
            ("The final answer is 8 apples.", "9 (apples)", False),
        ):
            grade = task.grade(task.extract(output) or "", gold)
            if grade.correct is not want:
                faults.append(f"{options} {output!r}: {grade}")
    wanted = {
        True: [("Yes", "yes"), ("12 hours", "12 hours"), ("A", "a"), ("500 cents", "$5"), ("50 percent", "50%"), ("2, 1", "1, 2"),
               ("0.03", "3%"), ("3", "3%"), ("3%", "0.03")],
        False: [("on", "No"), ("god", "dog"), ("Mot", "Tom"), ("SUA", "USA"), ("ACT", "CAT"), ("12 (girls); 15 (boys)", "12 (boys); 15 (girls)"),
                ("15 boys and 12 girls", "12 boys and 15 girls"), ("12 boys and 15 cows", "12 boys and 15 girls"),
                ("3 red, 5 blue", "3 blue, 5 red"), ("5:30 PM", "5:30 AM"), ("2:1", "1:2"), ("10:30", "10.5"), ("nom", "Mon"),
                ("BA", "AB"), ("OH2", "H2O"), ("(2,1)", "(1,2)"), ("first 2 then 1", "first 1 then 2"), ("12 hours", "12 minutes"),
                ("May 5", "May 6"), ("May 5, 2020", "May 5, 2021"), ("10-5", "6"), ("3%", "3"), ("$5", "5 cents")],
    }  # fmt: skip
    for want, pairs in wanted.items():
        for answer, gold in pairs:
            if compare(answer, gold).correct is not want:
                faults.append(f"{answer!r} for {gold!r}: wanted {want}, got {compare(answer, gold)}")
    return faults


def think_tags(folder: Path, work: Path) -> list[str]:
    """Think tags of other families, tags of one's own, and the siblings of triggers and boxes."""
    think, boxed, trigger = (PromptConfig(answer=answer) for answer in ("think", "boxed", "trigger"))
    own = PromptConfig(answer="think", think=("((muse))", "((/muse))"))
    outputs = [
        (think, "<think>Outer <think>inner</think> continues 5</think>The answer is 7."),
        (think, "<think>\nA 5\n</think>\n</think>\nThe answer is 7."),
        (think, "A and B.\n</think>\n\nThe answer is 7."),
        (think, "<think>\nI must write </think> at the end. So 3+4=7.\n</think>\nThe answer is 7."),
        (think, "<seed:think>3+4=7</seed:think>The answer is 7."),
        (think, "[THINK]3+4=7[/THINK]The answer is 7."),
        (think, "Here is my thought process: 3+4=7\n\nHere is my response: The answer is 7."),
        (think, "◁think▷3+4=7◁/think▷The answer is 7."),
        (think, "<|channel|>analysis<|message|>3+4=7<|end|><|start|>assistant<|channel|>final<|message|>The answer is 7."),
        (think, "<|channel>thought\n3+4=7<channel|>The answer is 7."),
        (think, "3+4=7\n[BEGIN FINAL RESPONSE]\nThe answer is 7.\n[END FINAL RESPONSE]"),
        (think, "<thinking>3+4=7</thinking>\nThe answer is 7."),
        (think, "<THINK>3+4=7</THINK>The answer is 7."),
        (think, "< think >3+4=7</ think >The answer is 7."),
        (own, "((muse))3+4=7((/muse))The answer is 7."),
        (trigger, "We look for it. The final answer is what we want. 3+4=7. The final answer is 7."),
        (trigger, "3+4=7. The final answer is 7.\n\nTo restate: the final answer is seven clips."),
        (trigger, "The final answer is 7. Let me explain: 3+4=7."),
        (trigger, "3+4=7.\n\n**The final answer is:** 7"),
        (trigger, "3+4=7.\n\n**The** **final answer** is 7"),
        (trigger, "3+4=7. The final\nanswer is 7."),
        (trigger, "3+4=7. The final answer\u00a0is 7."),
        (trigger, "3+4=7. The final answer is 7. It is wrong to think the final answer is 8."),
        (trigger, "3+4=7.\n\n## Step 3: done\n\nThe final answer is: $\\boxed{7}$"),
        (trigger, "3+4=7.\n\nThe final answer is 7. I hope it is correct."),
        (boxed, "3+4=7, so \\boxed{7}. Note that 7 > 5 and hence 8 is wrong."),
        (boxed, "\\begin{align}\nx&=3+4\\\\\n&=\\boxed{7}\n\\end{align}"),
        (boxed, "\\boxed{7}"),
        (boxed, "3+4=7. So $\\boxed {7}$"),
        (boxed, "3+4=7. So $\\boxed 7$"),
        (boxed, "3+4=7. So $\\fbox{7}$"),
    ]  # fmt: skip
    return not_right([(output, "7", prompt, "gsm8k") for prompt, output in outputs])


def grader_hardening(script: Path, work: Path) -> list[str]:
    """Equal for math-verify only after sympy has simplified, which the lock on its evaluation must not prevent."""
    pairs = re.findall(r'\((r?)"([^"]+)", "([^"]+)"\)', script.read_text(encoding="utf-8"))
    assert pairs
    return [f"{a} = {g}: {compare(a, g)}" for _, a, g in pairs if compare(a, g).correct is not True]


def answer_before_the_cap(folder: Path, work: Path) -> list[str]:
    """An answer that was complete before the token cap counts; one that may have been cut in two does not."""
    task = plugins.make_task(TaskConfig(name="gsm8k"), PromptConfig())
    outputs = {
        "9 + 3 = 12. The final answer is 12. Let me also": True,
        "So it is $\\boxed{12}$ because 9 + 3": True,
        "9 + 3 = 12.\n#### 12\nAnd then": True,
        "9 + 3 = 12. The final answer is 1": None,
        "9 + 3 = 12. The final answer is 12": None,
        "9 + 3 = 12. So": None,
    }
    faults = []
    for output, want in outputs.items():
        whole = Trajectory(id="a", question="?", gold="12", output=output, cot=output, finish="length")
        forced = Trajectory(id="a", question="?", gold="12", cot="9 + 3", tail=f"\n\n{output}", finish="length")
        for trajectory in (whole, forced):
            graded = grade_trajectory(trajectory, task)
            if graded.grade is None or graded.grade.correct is not want or graded.dropped != "truncated":
                faults.append(f"{output!r}: wanted {want}, got {graded.grade}, dropped: {graded.dropped}")
    return faults


CASES: dict[str, Case] = {
    "22": own_trigger,
    "23": choice_text,
    "24": nan_question,
    "25": gold_with_unit,
    "31": think_tags,
    "S01": grader_hardening,
    "R10": answer_before_the_cap,
}
