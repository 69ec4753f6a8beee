"""`generate.source: solutions`: the problems' own solutions are the chains, graded like any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenskip import pipeline
from tokenskip.config import PromptConfig, TaskConfig, check_config
from tokenskip.errors import DataError
from tokenskip.plugins import make_task
from tokenskip.run import Run
from tokenskip.storage.store import COMPLETIONS, TRAIN, TRAJECTORIES, read_rows

ROWS = [
    {"question": "One and two?", "solution": "We add.\n1 + 2 = 3.\n\nThe final answer is 3."},
    {"question": "Two and two?", "gold": "4", "solution": "We add.\n2 + 2 = 4."},
    {"question": "Two and three?", "gold": "6", "solution": "2 + 3 = 5.\n\nThe final answer is 5."},
]


def run_of(tmp_path: Path, rows: list[dict[str, Any]], **prompt: Any) -> Run:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "task": {"name": "jsonl", "train": str(file), "test": str(file)},
        "generate": {"source": "solutions"},
        "score": {"scorer": "random"},
        "prune": {"ratios": [1.0], "per_trajectory": "all"},
        "prompt": prompt,
    }
    return Run(tmp_path / "run", check_config(values, "test"))


def test_solutions_become_training_rows_at_ratio_1_and_wrong_ones_are_dropped(tmp_path: Path) -> None:
    with run_of(tmp_path, ROWS) as run:
        for stage in ("generate", "grade", "score", "prune"):
            pipeline.STAGES[stage](run)
        outputs = [row["output"] for row in read_rows(run.folder.file(COMPLETIONS))]
        grades = list(read_rows(run.folder.file(TRAJECTORIES)))
        rows = list(read_rows(run.folder.file(TRAIN)))
    assert outputs[0] == ROWS[0]["solution"]
    assert outputs[1] == "We add.\n2 + 2 = 4.\n\nThe final answer is 4."
    assert [row.get("dropped") for row in grades] == [None, None, "incorrect"]
    assert [(row["completion"][0]["content"], row["ratio"]) for row in rows] == [(outputs[0], 1.0), (outputs[1], 1.0)]


def test_the_answer_is_put_in_the_form_of_the_recipe(tmp_path: Path) -> None:
    with run_of(tmp_path, ROWS[1:2], answer="boxed") as run:
        pipeline.STAGES["generate"](run)
        (row,) = read_rows(run.folder.file(COMPLETIONS))
    assert row["output"] == "We add.\n2 + 2 = 4.\n\nThe final answer is \\boxed{4}."


def test_a_problem_without_a_solution_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with run_of(tmp_path, [ROWS[0], {"question": "Which?", "gold": "1"}]) as run:
        with pytest.raises(DataError, match=r"generate.source=solutions: problem 'train-2' has none; .*'solution'"):
            pipeline.STAGES["generate"](run)
        assert not run.folder.file(COMPLETIONS).exists()


def test_a_row_whose_solution_states_no_answer_needs_a_gold_one(tmp_path: Path) -> None:
    run = run_of(tmp_path, [{"question": "Which?", "solution": "Who knows"}])
    with run, pytest.raises(DataError, match="line 1: no field 'gold', and its solution states no answer"):
        pipeline.STAGES["generate"](run)


def test_gsm8k_solutions_lose_their_notes() -> None:
    task = make_task(TaskConfig(name="gsm8k"), PromptConfig())
    row = {"question": "How many?", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\nSo 24.\n#### 24"}
    assert task.problem(row, "line 1", "train", 1).solution == "She sold 48/2 = 24 clips.\nSo 24."  # type: ignore[attr-defined]
    assert task.problem({**row, "answer": "24"}, "line 1", "train", 1).solution is None  # type: ignore[attr-defined]


def test_other_tasks_ignore_what_is_no_solution() -> None:
    task = make_task(TaskConfig(name="jsonl"), PromptConfig())
    for other in (None, "", ["a"], 3):
        row = {"question": "Which?", "gold": "1", "solution": other}
        assert task.problem(row, "line 1", "train", 1).solution is None  # type: ignore[attr-defined]
