"""What a run was begun with is what it goes on with: its data, whole stages, the rows it was trained on; no links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import load_recipe
from tokenskip.errors import RunError, StageError
from tokenskip.storage.store import COMPLETIONS, SCORES, TRAIN, TRAJECTORIES, read_manifest, repair

QUICK = {"arms": ["original"], "ratios": [0.5], "latency_samples": 0}


def stages(path: Path, recipe_file: Path, *names: str) -> None:
    with pipeline.Run(path, load_recipe(recipe_file)) as run:
        for name in names:
            pipeline.STAGES[name](run)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: [*rows[:2], {**rows[2], "gold": "0"}, *rows[3:]], "changed: 'p3'"),
        (lambda rows: [*rows[:2], {**rows[2], "id": "new"}, *rows[2:]], "new: 'new'"),
        (lambda rows: rows[:3] + rows[8:], "missing: 'p4', 'p5', 'p6', …"),
        (lambda rows: rows[::-1], "the same problems in another order"),
    ],
)
def test_edited_data_is_refused_and_the_rows_are_named(
    tmp_path: Path, model_folder: Path, edit: Any, message: str
) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    stages(path, recipe_file, "generate")
    repair(path / COMPLETIONS, 8)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    whole = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in edit(rows)))
    with pytest.raises(RunError, match=f"was begun with other train data: {message}.*Restore the data"):
        stages(path, recipe_file, "generate")
    assert (path / COMPLETIONS).read_bytes().count(b"\n") == 8
    (tmp_path / "train.jsonl").write_text(whole)
    stages(path, recipe_file, "generate")
    assert read_manifest(path)["notes"]["train"]["rows"] == 24
    (path / COMPLETIONS).unlink()  # before the first row they may change
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    stages(path, recipe_file, "generate")
    assert read_manifest(path)["notes"]["train"]["rows"] == 5


def test_edited_evaluation_data_is_refused(tmp_path: Path, model_folder: Path) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    stages(path, recipe_file, "generate", "grade", "evaluate")
    file = tmp_path / "test.jsonl"
    file.write_text(file.read_text().replace("100 apples", "101 apples"))
    with pytest.raises(RunError, match="was begun with other test data: changed: 'p100'"):
        stages(path, recipe_file, "evaluate")


@pytest.mark.parametrize(
    ("name", "command", "stage"),
    [
        (COMPLETIONS, "generate", "grade"),
        (COMPLETIONS, "generate", "score"),
        (TRAJECTORIES, "grade", "score"),
        (SCORES, "score", "prune"),
    ],
)
def test_a_stage_that_was_interrupted_is_completed_first(
    tmp_path: Path, model_folder: Path, name: str, command: str, stage: str
) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    stages(path, recipe_file, "generate", "grade", "score")
    repair(path / name, 5)
    with pytest.raises(StageError, match=rf"has 5 of 24 rows of {name}: `tokenskip {command} {path}` completes them"):
        stages(path, recipe_file, stage)
    stages(path, recipe_file, command, stage)


def test_half_an_evaluation_is_not_reported(tmp_path: Path, model_folder: Path) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    stages(path, recipe_file, "generate", "grade", "evaluate", "report")
    repair(path / "eval" / "original.jsonl", 4)
    with pytest.raises(StageError, match=r"has 4 of 10 rows of eval/original\.jsonl: `tokenskip evaluate"):
        stages(path, recipe_file, "report")


def test_an_adapter_of_other_rows_is_not_kept_without_a_word(tmp_path: Path, model_folder: Path) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    stages(path, recipe_file, "generate", "grade", "score", "prune", "train", "train")
    whole = (path / TRAIN).read_bytes()
    repair(path / TRAIN, 20)
    with pytest.raises(RunError, match=r"adapter was trained on other rows than .*: remove adapter/ and"):
        stages(path, recipe_file, "train")
    (path / TRAIN).write_bytes(whole)
    stages(path, recipe_file, "train")


@pytest.mark.parametrize("name", [".lock", "results.json.tmp", "curve.png", "eval", "eval/original.jsonl"])
def test_nothing_is_written_through_a_link(tmp_path: Path, model_folder: Path, name: str) -> None:
    recipe_file, path = recipe(tmp_path, model_folder, evaluate=QUICK), tmp_path / "run"
    victim = tmp_path / "victim"
    victim.mkdir() if name == "eval" else victim.write_text("precious")
    (path / name).parent.mkdir(parents=True)
    (path / name).symlink_to(victim)
    with pytest.raises(RunError, match=f"{name} is a symbolic link"):
        stages(path, recipe_file, "generate", "grade", "evaluate", "report")
    assert list(victim.iterdir()) == [] if name == "eval" else victim.read_text() == "precious"
