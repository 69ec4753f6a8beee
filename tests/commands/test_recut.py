"""The same scored chains cut again under other settings: in place until training has begun, then in a new folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import cli, pipeline
from tokenskip.config import load_recipe
from tokenskip.storage.store import COMPLETIONS, PRUNED, SCORES, TRAIN, TRAJECTORIES, read_manifest, read_rows

Command = Callable[..., tuple[int, str, str]]
CHAINS = (COMPLETIONS, TRAJECTORIES, SCORES)
RECUT = ("--set", "prune.ratios=[0.4, 1.0]")


@pytest.fixture
def tokenskip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command: its exit code, and what it printed."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tokenskip", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def pruned_run(folder: Path, model: Path, **sections: Any) -> Path:
    """A run folder up to the training rows."""
    with pipeline.Run(folder / "run", load_recipe(recipe(folder, model, **sections))) as run:
        for stage in (pipeline.generate, pipeline.grade, pipeline.score, pipeline.prune):
            stage(run)
    return folder / "run"


def ratios(path: Path) -> set[float]:
    return {row["ratio"] for row in read_rows(path / TRAIN)}


def contents(path: Path, *names: str) -> list[bytes]:
    return [(path / name).read_bytes() for name in names]


def test_until_training_a_new_cut_replaces_the_old_one_and_says_so(
    tmp_path: Path, model_folder: Path, tokenskip: Command
) -> None:
    path = pruned_run(tmp_path, model_folder)
    before = contents(path, *CHAINS)
    assert ratios(path) == {0.5, 0.8, 1.0}
    code, shown, _ = tokenskip("prune", path, *RECUT)
    assert code == 0
    assert "prune.ratios: [0.5, 0.8, 1.0] -> [0.4, 1.0]: the chains are cut anew" in shown
    assert ratios(path) == {0.4, 1.0}
    assert {cut["ratio"] for row in read_rows(path / PRUNED) for cut in row.get("pruned", ())} == {0.4, 1.0}
    assert contents(path, *CHAINS) == before
    assert read_manifest(path)["config"]["prune"]["ratios"] == [0.4, 1.0]
    again = contents(path, PRUNED, TRAIN)
    code, shown, _ = tokenskip("prune", path)
    assert (code, "cut anew" in shown, contents(path, PRUNED, TRAIN)) == (0, False, again)
    fresh = tmp_path / "fresh"  # the same as if it had been cut so at once
    fresh.mkdir()
    assert contents(pruned_run(fresh, model_folder, prune={"ratios": [0.4, 1.0]}), PRUNED, TRAIN) == again
    code, _, error = tokenskip("train", path, "--set", "prune.unit=word")
    assert (code, f"has no train.jsonl yet: run `tokenskip prune {path}` first" in error) == (2, True)


@pytest.mark.parametrize("trained", ["adapter", "checkpoints"])
def test_after_that_it_is_refused_and_goes_into_a_new_folder(
    tmp_path: Path, model_folder: Path, tokenskip: Command, trained: str
) -> None:
    path, other = pruned_run(tmp_path, model_folder), tmp_path / "other"
    (path / trained).mkdir()
    before = contents(path, *CHAINS, PRUNED, TRAIN, "config.json")
    code, _, error = tokenskip("prune", path, *RECUT)
    assert code == 2
    error = error.splitlines()[-1]
    assert "was run with other settings: prune.ratios: [0.5, 0.8, 1.0] -> [0.4, 1.0]. `tokenskip prune" in error
    assert f"`tokenskip prune {path} --into RUN2` cuts the same scored chains in a new run folder" in error
    code, shown, _ = tokenskip("prune", path, "--into", other, *RECUT)
    assert (code, f"prune: done, see {other}" in shown) == (0, True)
    assert contents(path, *CHAINS, PRUNED, TRAIN, "config.json") == before
    assert contents(other, *CHAINS) == before[:3]
    assert ratios(other) == {0.4, 1.0}
    assert read_manifest(other)["config"]["prune"]["ratios"] == [0.4, 1.0]
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_dir()) == ["other", "run"]
    code, _, error = tokenskip("prune", path, "--into", other)
    assert (code, f"{other} is there already" in error) == (2, True)


def test_what_a_new_folder_cannot_take(tmp_path: Path, model_folder: Path, tokenskip: Command) -> None:
    path, other = pruned_run(tmp_path, model_folder), tmp_path / "other"
    code, _, error = tokenskip("prune", path, "--into", other, "--set", "score.scorer=random")
    assert code == 2
    assert f'{path} was run with other settings: score.scorer: "surprisal" -> "random"' in error
    lines = (path / SCORES).read_text().splitlines(keepends=True)
    (path / SCORES).write_text("".join(lines[:5]))
    code, _, error = tokenskip("prune", path, "--into", other)
    assert (code, f"has 5 of 24 rows of scores.jsonl: `tokenskip score {path}` completes them" in error) == (2, True)
    (tmp_path / "chains.jsonl").write_text(json.dumps({"id": "a", "cot": "1 + 1 = 2"}) + "\n")
    code, _, error = tokenskip("prune", tmp_path / "chains.jsonl", "--into", other)
    assert (code, "--into goes with a run folder" in error) == (2, True)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == ["run"]
