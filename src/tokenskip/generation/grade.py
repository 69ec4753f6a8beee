"""Stage 2: whether each completion is right; everything that is not stays as a record with its reason.

Reads `completions.jsonl`; writes `trajectories.jsonl`, the grades without the texts. The reasons in
`Trajectory.dropped` are what the report's funnel counts:

    incorrect            the answer differs from the gold one
    ungradable: WHY      no answer, answer too long, grader timeout
    truncated            the completion hit the token cap before it ended, whether or not it gave an answer
    backend error: WHY   there is no completion
    empty CoT            a right answer without any reasoning: nothing to prune

    tokenskip grade runs/NAME
    tokenskip grade FILE.jsonl --task gsm8k -o OUT.jsonl
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tokenskip.config import PromptConfig
from tokenskip.engine import Work
from tokenskip.errors import DataError
from tokenskip.generation.split import NO_ANSWER, TRUNCATED, split_completion
from tokenskip.jsonl import UniqueIds, text_field
from tokenskip.run import Run
from tokenskip.store import COMPLETIONS, TRAJECTORIES, Row, grade_row, read_rows, trajectory_from_row
from tokenskip.types import Grade, Task, Trajectory

WINDOW = 256
"""Completions between two writes."""


def run(run: Run) -> None:
    """Stage 2. Raises StageError when nothing has been generated, or not all of it."""
    run.folder.completions()
    completions = map(trajectory_from_row, read_rows(run.folder.require(COMPLETIONS)))
    for rows in run.map(grading, run.folder.pending(TRAJECTORIES, completions, WINDOW), "grade"):
        run.folder.append(TRAJECTORIES, rows)


def grading(run: Run) -> Work:
    """The work of stage 2: ungraded trajectories -> rows of `trajectories.jsonl`."""

    def work(window: Sequence[Trajectory]) -> list[Row]:
        return [grade_row(grade_trajectory(trajectory, run.task)) for trajectory in window]

    return work


def grade_trajectory(trajectory: Trajectory, task: Task) -> Trajectory:
    """The trajectory with its grade; dropped, with the reason, unless it is right and has a CoT."""
    if trajectory.finish == "error":
        graded = replace(trajectory, grade=Grade(correct=None, reason="backend error"))
        return graded.drop("backend error: no completion")  # the stage that got the error has said more
    answer = stated_answer(trajectory, task)
    if answer is None and trajectory.finish == "length":
        return replace(trajectory, grade=Grade(correct=None, reason=TRUNCATED)).drop(TRUNCATED)
    grade = Grade(correct=None, reason=NO_ANSWER) if answer is None else task.grade(answer, trajectory.gold)
    graded = replace(trajectory, grade=grade)
    if grade.correct is None:
        return graded.drop(f"ungradable: {grade.reason}")
    if not grade.correct:
        return graded.drop("incorrect")
    if trajectory.finish == "length":  # right, but the model never ended it: nothing to train on
        return graded.drop(TRUNCATED)
    return graded if trajectory.cot.strip() else graded.drop("empty CoT")


def stated_answer(trajectory: Trajectory, task: Task) -> str | None:
    """The answer that a completion gives; None where it gives none, or where the token cap may have cut it short.

    An answer before the cap counts wherever the cap fell, if no text that might have followed changes it: `12` at the
    very end may have become `125`, `12.5` or `12 million`.
    """
    answer = task.extract(trajectory.tail) if trajectory.tail.strip() else None
    if answer is None or trajectory.finish != "length":
        return answer
    unchanged = all(task.extract(trajectory.tail + more) == answer for more in _MIGHT_FOLLOW)
    return answer if unchanged else None


_MIGHT_FOLLOW = ("9", "x", "/7", "^2", " million", " and 7", "}")


def grade_output(output: str, gold: str, task: Task, prompt: PromptConfig) -> Grade:
    """The grade of any text, generously: it need not have the form that the prompt configuration asks for.

    The answer is looked for behind the configured trigger (or box, or `</think>`) first and then in the whole text, in
    the task's order: `\\boxed{x}`, `#### x`, `answer is x`, and the last number (numeric tasks) or the last line.
    """
    tail = split_completion(output, "stop", prompt).tail
    answer = task.extract(tail) if tail.strip() else None
    if answer is None:
        answer = task.extract(output)
    return Grade(correct=None, reason=NO_ANSWER) if answer is None else task.grade(answer, gold)


def grade_rows(
    rows: Iterable[tuple[int, dict[str, Any]]], task: Task, prompt: PromptConfig, source: str = "input"
) -> Iterator[dict[str, Any]]:
    """For numbered rows `{id, gold, output}` (as `jsonl.read_jsonl` gives them): `{id, correct, reason, extracted}`.

    A gold that is a whole GSM8K solution (`… #### 72`) counts as what follows the `####`.

    Raises:
        DataError: a field is missing or an id occurs twice.
    """
    ids = UniqueIds()
    for line, row in rows:
        where = f"{source} line {line}"
        id = text_field(row, "id", where)
        ids.add(id, f"line {line}", source)
        gold = text_field(row, "gold", where)
        if "output" in row and row["output"] in (None, ""):
            output = ""
        elif isinstance(row.get("output"), (list, dict)):
            raise DataError(f"{where}: field 'output' must be text")
        else:
            output = text_field(row, "output", where) if str(row.get("output", "x")).strip() else ""
        bare = gold.rsplit("####", 1)[-1].strip() or gold
        grade = grade_output(output, bare, task, prompt)
        yield {"id": row["id"], "correct": grade.correct, "reason": grade.reason, "extracted": grade.extracted}
