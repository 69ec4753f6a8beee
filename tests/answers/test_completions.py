"""Real-looking completions that a person has graded: no wrong answer is graded right, and every row comes out as
wanted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenskip import plugins
from tokenskip.answers.math_verify import close_math_verify
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.generation.grade import grade_rows
from tokenskip.storage.jsonl import read_jsonl

FOLDER = Path(__file__).parents[1] / "data" / "completions"
FILES = sorted(FOLDER.glob("*.jsonl"))


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left() -> Iterator[None]:
    yield
    close_math_verify()


def graded(row: dict[str, Any]) -> dict[str, Any]:
    """The row's grade, as `tokenskip grade FILE` gives it."""
    prompt = PromptConfig(**row.get("prompt", {}))
    task = plugins.make_task(TaskConfig(name=row["task"], options=row.get("options", {})), prompt)
    (grade,) = grade_rows([(1, row)], task, prompt, "completions")
    return grade


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_completion_is_graded_as_a_person_would(file: Path) -> None:
    wrong = []
    for _, row in read_jsonl(file):
        grade = graded(row)
        if grade["correct"] is not row["want"]:
            wrong.append(
                f"{row['id']}: wanted {row['want']}, got {grade['correct']} ({grade['reason']}, "
                f"{grade['extracted']!r}): {row['why']}"
            )
    assert not wrong, "\n".join(wrong)


def test_there_are_many_of_them_and_ids_are_unique() -> None:
    rows = [row for file in FILES for _, row in read_jsonl(file)]
    assert len(rows) >= 400
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["task"] for row in rows} == {"gsm8k", "math500", "choice", "jsonl"}
    assert all(json.dumps(row) and row["why"] for row in rows)
