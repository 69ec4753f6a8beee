"""Nothing is reported to anybody: the switches of the libraries underneath, and no connection in a training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenskip import cli, tracking

WATCH = """
import socket, sys
def refuse(*arguments, **_):
    open({log!r}, "a").write(f"{{arguments}}\\n")
    raise OSError("no network in this test")
socket.getaddrinfo = refuse
socket.socket.connect = lambda self, *address: refuse(*address)
"""


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*tracking.TELEMETRY, "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    tracking.switch_telemetry_off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert "DO_NOT_TRACK" not in os.environ  # would overrule what was switched on
    for name in tracking.TELEMETRY:
        monkeypatch.delenv(name, raising=False)
    tracking.switch_telemetry_off()
    assert os.environ["DO_NOT_TRACK"] == "1"
    for name in (*tracking.TELEMETRY, "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)


def test_a_hub_client_that_was_imported_before_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    tracking.switch_telemetry_off()
    assert hub.HF_HUB_DISABLE_TELEMETRY
    monkeypatch.setattr(hub, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    tracking.switch_telemetry_off()
    assert not hub.HF_HUB_DISABLE_TELEMETRY


@pytest.mark.parametrize("through_cli", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_training_connects_to_nothing(tmp_path: Path, model_folder: Path, through_cli: bool) -> None:
    """TRL's trainer reports its use when it is made, unless the hub is offline: which it is not here."""
    from scripted_runs import recipe

    file = recipe(tmp_path, model_folder)
    log = tmp_path / "connections"
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    run = tmp_path / "run"
    stages = "generate grade score prune train"
    code = (
        "from pathlib import Path; from tokenskip import pipeline; from tokenskip.config import load_recipe\n"
        f"with pipeline.Run(Path({str(run)!r}), load_recipe(Path({str(file)!r}))) as job:\n"
        f"    for stage in {stages!r}.split(): getattr(pipeline, stage)(job)\n"
    )
    if through_cli:
        arguments = ["tokenskip", "run", str(file), "--out", str(run)]
        code = f"import sys; from tokenskip import cli; sys.argv = {arguments!r}; cli.main()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DO_NOT"))}
    paths = [str(tmp_path), str(Path(cli.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**kept, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (run / "adapter").exists(), done.stderr
    assert not log.exists(), log.read_text()
