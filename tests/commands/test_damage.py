"""Run folders as a kill, an editor or half a copy leaves them: every command, one line, exit code 2, no traceback."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import cli, pipeline
from tokenskip.config import load_recipe

DAMAGES: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "empty": b"",
    "a list": b"[1,2]\n",
    "null": b"null\n",
    "an empty object": b"{}\n",
    "too deep": b"[" * 100_000 + b"\n",
}
FILES = ("config.json", "completions.jsonl", "trajectories.jsonl", "scores.jsonl", "train.jsonl")
COMMANDS = {
    "grade": (),
    "score": (),
    "prune": (),
    "report": (),
    "export": ("--format", "messages", "-o", "out"),
    "merge": ("-o", "out"),
    "serve": (),
    "compare": ("other", "-o", "out"),
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A run up to its training rows."""
    folder = tmp_path_factory.mktemp("damage")
    with pipeline.Run(folder / "run", load_recipe(recipe(folder, model_folder, score={"scorer": "random"}))) as run:
        for stage in (pipeline.generate, pipeline.grade, pipeline.score, pipeline.prune):
            stage(run)
    return folder / "run"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_one_line(
    command: str, file: str, scored: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*DAMAGES, "a folder", "a loop"):
        run = tmp_path / name
        shutil.copytree(scored, run)
        (run / file).unlink()
        if name == "a folder":
            (run / file).mkdir()
        elif name == "a loop":
            (run / file).symlink_to(run / file)
        else:
            (run / file).write_bytes(DAMAGES[name])
        monkeypatch.setattr(sys, "argv", ["tokenskip", command, str(run), *COMMANDS[command]])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
        said = capsys.readouterr().err.strip().splitlines()
        assert code in (0, 2), (name, code)
        assert code == 0 or len(said[-1]) < 700
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
