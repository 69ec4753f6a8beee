"""Plain progress lines: what a log without a terminal gets, by a clock that the test holds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import cli
from tokenskip.errors import StageError
from tokenskip.progress import Lines, _Stage


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_rows_rate_time_left_and_loss() -> None:
    clock = Clock()
    stage = _Stage("train", None, clock)
    clock.now = 20
    assert stage.line() == "train: 0, after 0:00:20", "a model that loads for long is a stage that is alive"
    stage.advance(0, total=1000)
    stage.advance(300)  # an earlier process did these
    assert stage.line() == "train: 300 of 1,000 (30%), after 0:00:20"
    for _ in range(2):
        clock.now += 50
        stage.advance(100, note="loss 0.4123")
    assert stage.line() == "train: 500 of 1,000 (50%), 2/s, 0:04:10 left, loss 0.4123"
    clock.now += 3600
    assert stage.last_line() == "train: done, 500 in 1:02:00, loss 0.4123"


def test_lines_come_while_no_row_is_done_and_one_at_the_end() -> None:
    lines: list[str] = []
    shown = Lines(lines.append, every_s=0.02)
    with shown.stage("score", 10) as advance:
        deadline = time.monotonic() + 10
        while len(lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        advance(10)
    assert len(lines) >= 4
    assert all(line.startswith("score: 0 of 10 (0%), after 0:00:0") for line in lines[:3])
    assert lines[-1] == "score: done, 10 in 0:00:00"
    n_lines = len(lines)
    time.sleep(0.1)
    assert len(lines) == n_lines, "no line after the end"


def test_a_stage_that_fails_leaves_the_last_word_to_its_error() -> None:
    lines: list[str] = []
    with pytest.raises(StageError), Lines(lines.append).stage("prune", 3):
        raise StageError("nothing to prune")
    assert lines == []


@pytest.mark.parametrize("own_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_a_terminal_every_stage_says_when_it_ends(
    own_process: bool, tmp_path: Path, model_folder: Path, monkeypatch: Any, capfd: Any
) -> None:
    """Through the command line, standard error into a file as under nohup."""
    file = recipe(tmp_path, model_folder, train={"trainer": {"max_steps": 2, "logging_steps": 1}})
    command = ["tokenskip", "run", str(file), "-o", str(tmp_path / "run")]
    capfd.readouterr()
    if own_process:
        subprocess.run([sys.executable, "-m", *command], cwd=Path(__file__).parent, check=True)
    else:
        monkeypatch.setattr(sys, "argv", command)
        cli.main()
    lines = capfd.readouterr().err.splitlines()
    if not own_process:  # transformers, which other tests have loaded, draws its bars in spite of the command line
        lines = [line for line in lines if "%|" not in line and line]
    lines = [line for line in lines if " of " not in line]  # a busy machine takes 30 s for a stage
    stages = [line.partition(":")[0] for line in lines]
    assert stages[:4] == ["generate", "grade", "score (surprisal)", "prune"]
    assert "train" in stages
    assert all(": done, " in line for line in lines)
    assert any(line.startswith("train: done, 2 in ") and ", loss " in line for line in lines)
    assert not [line for line in lines if "\x1b" in line]
