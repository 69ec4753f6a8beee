"""Stage 2: whether each completion is right; everything that is not stays as a record with its reason.

Reads `completions.jsonl`; writes `trajectories.jsonl`, the grades without the texts. The reasons in
`Trajectory.dropped` are what the report's funnel counts:

    incorrect            the answer differs from the gold one
    ungradable: WHY      no answer, answer too long, grader timeout, a gold that cannot be read
    truncated            the completion hit the token cap; an answer that it had given before is graded all the same
    backend error: WHY   there is no completion
    empty CoT            a right answer without any reasoning: nothing to prune

    tokenskip grade runs/NAME
    tokenskip grade FILE.jsonl --task gsm8k -o OUT.jsonl
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tokenskip.answers.compare import unreadable, with_percent_sign
from tokenskip.answers.latex import mend_backslashes
from tokenskip.answers.statements import complete_part
from tokenskip.config import PromptConfig
from tokenskip.engine import Work
from tokenskip.errors import DataError
from tokenskip.generation.split import NO_ANSWER, TRUNCATED
from tokenskip.run import Run
from tokenskip.storage.jsonl import UniqueIds, is_no_number, text_field
from tokenskip.storage.store import COMPLETIONS, TRAJECTORIES, Row, grade_row, read_rows, trajectory_from_row
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
    """The trajectory with its grade; dropped, with the reason, unless it is right and has a CoT.

    One that hit the token cap is dropped (its chain is not whole), but an answer that it states before the cap counts
    in its grade: it does not matter to an evaluation where a text was cut after its answer.
    """
    if trajectory.finish == "error":
        graded = replace(trajectory, grade=Grade(correct=None, reason="backend error"))
        return graded.drop("backend error: no completion")  # the stage that got the error has said more
    if trajectory.finish == "length":
        stated = complete_part(trajectory.tail if trajectory.tail.strip() else trajectory.output)
        grade = _grade(stated, trajectory.gold, task)
        return replace(trajectory, grade=replace(grade, reason=TRUNCATED) if grade.reason == NO_ANSWER else grade).drop(
            TRUNCATED
        )
    graded = replace(trajectory, grade=_grade(trajectory.tail, trajectory.gold, task))
    assert graded.grade
    if graded.grade.correct is None:
        return graded.drop(f"ungradable: {graded.grade.reason}")
    if not graded.grade.correct:
        return graded.drop("incorrect")
    return graded if trajectory.cot.strip() else graded.drop("empty CoT")


def _grade(text: str, gold: str, task: Task) -> Grade:
    answer = task.extract(text) if text.strip() else None
    return Grade(correct=None, reason=NO_ANSWER) if answer is None else task.grade(answer, gold)


def grade_output(output: str, gold: str, task: Task, prompt: PromptConfig) -> Grade:
    """The grade of any text, wherever in it the answer is stated: it need not have the form that `prompt` asks for."""
    return _grade(output, gold, task)


def grade_rows(
    rows: Iterable[tuple[int, dict[str, Any]]], task: Task, prompt: PromptConfig, source: str = "input"
) -> Iterator[dict[str, Any]]:
    """For numbered rows `{id, gold, output}` (as `jsonl.read_jsonl` gives them): `{id, correct, reason, extracted}`.

    A gold that is a whole GSM8K solution (`… #### 72`) counts as what follows the `####`. A row whose gold cannot be
    read (NaN, braces that do not match) is a record with that reason; an optional `question` says whether a percentage
    is asked for.

    Raises:
        DataError: a field is missing or an id occurs twice.
    """
    ids = UniqueIds()
    for line, row in rows:
        where = f"{source} line {line}"
        id = text_field(row, "id", where)
        ids.add(id, f"line {line}", source)
        gold = row.get("gold")
        gold = str(gold) if is_no_number(gold) else text_field(row, "gold", where)
        if "output" in row and (row["output"] in (None, "") or is_no_number(row["output"])):
            output = ""
        elif isinstance(row.get("output"), (list, dict)):
            raise DataError(f"{where}: field 'output' must be text")
        else:
            output = text_field(row, "output", where) if str(row.get("output", "x")).strip() else ""
        gold = mend_backslashes(gold)
        gold = gold.rsplit("####", 1)[-1].strip() or gold
        if unreadable(gold):
            grade = Grade(correct=None, reason="gold cannot be read")
        else:
            grade = grade_output(output, with_percent_sign(gold, str(row.get("question") or "")), task, prompt)
        yield {"id": row["id"], "correct": grade.correct, "reason": grade.reason, "extracted": grade.extracted}
