"""An answer before the cap counts wherever the cap fell; what the cap may have cut short is no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.arms import ARMS
from tokenskip.config import PromptConfig, TaskConfig, load_recipe
from tokenskip.evaluation.evaluate import answering
from tokenskip.evaluation.shorten import Item
from tokenskip.generation.generate import trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.storage.store import trajectory_from_row
from tokenskip.tasks.gsm8k import Gsm8k
from tokenskip.types import Completion, Finish, Problem, Trajectory


def graded(text: str, finish: Finish = "length", gold: str = "12", answer: str = "trigger") -> Trajectory:
    problem = Problem(id="a", question="q", gold=gold)
    completion = Completion(text=text, n_tokens=len(text.split()), finish=finish)
    prompt = PromptConfig(answer=answer)  # type: ignore[arg-type]
    one = trajectory_of(problem, 1.0, completion, prompt, lambda part: len(part.split()))
    return grade_trajectory(one, Gsm8k(TaskConfig(name="gsm8k")))


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("5 + 7 = 12.\n\nThe final answer is 12.\n\nNow let us look at", "trigger", True),
        ("5 + 7 = 12.\n\nThe final answer is 13.\n\nNow let us look at", "trigger", False),
        ("5 + 7 = 12.\n\nThe final answer is 12", "trigger", None),  # 125, 12.5, 12 million
        ("5 + 7 = 12.\n\nThe final answer is", "trigger", None),
        ("5 + 7 = 12. So there are", "trigger", None),
        ("5 + 7 = 12.\n\nIt is \\boxed{12}. And now", "boxed", True),
        ("5 + 7 = 12.\n\nIt is \\boxed{12", "boxed", None),
        ("5 + 7 = 12.\n</think>\n\nThe final answer is 12.\n\nNow let", "think", True),
    ],
)
def test_the_cap_alone_is_no_verdict(text: str, answer: str, correct: bool | None) -> None:
    one = graded(text, answer=answer)
    assert one.grade is not None
    assert one.grade.correct is correct
    assert one.dropped == "truncated", "nothing without an end is trained on"
    assert one.head + one.cot + one.tail == text


def test_an_original_that_failed_is_not_cut_off_and_an_answer_is_not_asked_for_twice(
    tmp_path: Path, model_folder: Path
) -> None:
    config = load_recipe(recipe(tmp_path, model_folder), ["evaluate.max_new_tokens=200"])
    problem = Problem(id="p1", question="Tom has 1 apples. He buys 3 more. How many are there?", gold="4")
    with pipeline.Run(tmp_path / "run", config) as run:

        def original(text: str, finish: Finish, error: str | None = None) -> Trajectory:
            completion = Completion(text=text, n_tokens=len(run.prompts.ids(text)), finish=finish, error=error)
            return trajectory_of(problem, 1.0, completion, config.prompt, run.count)

        failed = original("", "error", "no reply")
        answered = original("1 + 3 = 4.\n\nThe final answer is 4.\n\n" + "And so on. " * 60, "length")
        rambling = original("Well, then. " * 80 + "\n\nThe final answer is 4.", "stop")
        for name in ("truncation", "truncation_forced"):
            work = answering(run, ARMS[name], 0.5)
            rows, times = work([Item(problem, one) for one in (failed, answered, rambling)])
            found = [trajectory_from_row(row) for row in rows]
            assert times == []
            assert (found[0].finish, found[0].dropped) == ("error", "backend error: no reply")
            assert found[0].grade is not None
            assert found[0].grade.reason == "backend error"
            assert found[1].grade is not None
            assert found[1].grade.correct is True
            assert found[1].output.count("The final answer is") == 1
            assert found[2].grade is not None
            assert found[2].grade.correct is (None if name == "truncation" else True)
            assert found[2].ratio == 0.5
