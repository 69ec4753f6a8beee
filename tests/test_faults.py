"""What goes wrong outside of the program: disks, files, signals, versions. One clear line each, and a way on."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from growing import grow
from scripted_runs import recipe

from tokenskip import cli, pipeline
from tokenskip.commands import console
from tokenskip.config import RunConfig, load_recipe
from tokenskip.errors import RunError
from tokenskip.progress import Silent
from tokenskip.storage.store import RunFolder, read_manifest, read_rows

TESTS = str(Path(__file__).parent)
SOURCES = str(Path(cli.__file__).parents[1])


def tokenskip(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCES, TESTS])}
    command = [sys.executable, "-m", "tokenskip", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)


def rows(n: int) -> list[dict[str, Any]]:
    return [{"id": str(i), "text": "x" * 100} for i in range(n)]


def grown(folder: RunFolder, n: int) -> int:
    grow(folder, "rows.jsonl", rows(n), list, 4)
    return len(list(read_rows(folder.file("rows.jsonl"))))


def test_a_file_that_may_not_grow_is_one_line_and_the_rest_follows_later(tmp_path: Path) -> None:
    """As on a full disk the kernel refuses in the middle of a write; the torn line is mended by the next run."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(RunError, match=r"cannot write .*rows\.jsonl: File too large; what is written is kept"):
            grown(RunFolder(tmp_path, RunConfig()), 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert 0 < (tmp_path / "rows.jsonl").stat().st_size <= 1000
    assert grown(RunFolder(tmp_path, RunConfig()), 40) == 40
    assert list(read_rows(tmp_path / "rows.jsonl")) == rows(40)


def test_any_disk_error_is_one_line_on_the_command_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    for number in cli.DISK_ERRORS:

        def failing(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), str(tmp_path / "x"))

        monkeypatch.setattr("tokenskip.commands.files.grade_file", failing)
        (tmp_path / "in.jsonl").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["tokenskip", "grade", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "o")])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert done.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert os.strerror(number) in error
        assert "the same command continues" in error


def test_an_error_that_is_no_disks_fault_is_a_bug(monkeypatch: Any, tmp_path: Path) -> None:
    def failing(*_: object) -> None:
        raise OSError(None, "a bug")

    monkeypatch.setattr("tokenskip.commands.files.grade_file", failing)
    (tmp_path / "in.jsonl").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["tokenskip", "grade", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "o")])
    with pytest.raises(OSError, match="a bug"):
        cli.main()


def test_a_folder_of_another_version_is_read_or_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, RunConfig()):
        pass
    file = tmp_path / "config.json"
    manifest = json.loads(file.read_text())
    assert manifest["versions"]["tokenskip"]
    (tmp_path / "completions.jsonl").write_text("")
    older = {**manifest, "config": {key: value for key, value in manifest["config"].items() if key != "engine"}}
    del older["config"]["evaluate"]["latency_samples"]
    file.write_text(json.dumps(older))
    assert read_manifest(tmp_path)["config"]["engine"]["name"] == "local"
    with RunFolder(tmp_path, RunConfig()):  # a setting that did not exist then has its default
        pass
    removed = {**manifest, "versions": {"tokenskip": "0.0.9"}, "config": {**manifest["config"], "gone": 1}}
    file.write_text(json.dumps(removed))
    with pytest.raises(
        RunError, match=r"written by tokenskip 0\.0\.9, and this is .*unknown key 'gone'.*Use that vers"
    ):
        read_manifest(tmp_path)
    file.write_text(json.dumps({**manifest, "format": 3, "versions": {"tokenskip": "9.0"}}))
    with pytest.raises(RunError, match=r"tokenskip 9\.0 \(layout 3 of .*\), and this is .*, which cannot read it: up"):
        read_manifest(tmp_path)
    file.write_text(json.dumps({**manifest, "format": 1}))
    assert read_manifest(tmp_path)["config"]["seed"] == 0, "its settings can be read, so its adapter can be used"
    with (
        pytest.raises(RunError, match=r"\(layout 1 of run folders\), and this is .*choose another --out, or use that"),
        RunFolder(tmp_path, RunConfig()),
    ):
        pass


class _Bars:
    """What `console._Bars` needs of rich."""

    tasks: Sequence[Any] = ()
    task_ids: Sequence[int] = ()

    class console:
        @staticmethod
        def print(text: str) -> None: ...

    def add_task(self, name: str, total: int | None) -> int:
        return 0

    def update(self, *_: object, **__: object) -> None: ...

    def advance(self, *_: object) -> None: ...


def test_one_interrupt_ends_the_run_after_the_window_in_flight_and_two_at_once(tmp_path: Path) -> None:
    shown = console._Stoppable(console._Bars(_Bars()), print)
    folder = RunFolder(tmp_path, RunConfig())
    windows = 0

    def work(window: Sequence[Any]) -> Sequence[Any]:
        nonlocal windows
        windows += 1
        if windows == 2:
            signal.raise_signal(signal.SIGINT)
        return window

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started with `nohup … &` ignores it
    with console._stopping(shown):
        with pytest.raises(KeyboardInterrupt):
            grow(folder, "rows.jsonl", rows(40), work, 4, shown)
        assert windows == 2
        assert list(read_rows(tmp_path / "rows.jsonl")) == rows(8)  # the window in flight is there
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_the_bars_show_speed_and_time_left_however_slow_a_window_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    clock = 0.0
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    with console.bars() as shown:
        bars = shown.shown.bars
        bars.get_time = lambda: clock
        with shown.stage("score", 1000) as advance:
            advance(300)  # done by an earlier run: no speed is taken from these
            for _ in range(2):
                clock += 100
                advance(200)
            page = Console(width=120, record=True, file=io.StringIO())
            page.print(bars.make_tasks_table(bars.tasks))
            line = page.export_text()
    assert "700/1000" in line
    assert "2/s" in line
    assert "0:02:30" in line  # 300 texts left


def test_an_interrupted_training_saves_first_and_ends_in_the_same_bytes(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, train={"save_steps": 1000}, evaluate={"arms": ["original"]})
    config = load_recipe(recipe_file)
    for name in ("whole", "stopped"):
        with pipeline.Run(tmp_path / name, config) as run:
            for stage in ("generate", "grade", "score", "prune"):
                getattr(pipeline, stage)(run)
    with pipeline.Run(tmp_path / "whole", config) as run:
        pipeline.train(run)
    with pytest.raises(KeyboardInterrupt), pipeline.Run(tmp_path / "stopped", config, _Late(3)) as run:
        pipeline.train(run)
    saved = list((tmp_path / "stopped" / "checkpoints").glob("checkpoint-*"))
    assert len(saved) == 1
    with pipeline.Run(tmp_path / "stopped", config) as run:
        pipeline.train(run)
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "stopped" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


class _Late(Silent):
    """A `Progress` whose n-th report is an interrupt."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage(self, name: str, total: int | None) -> Any:
        from contextlib import nullcontext

        def advance(n: int, *, total: int | None = None, note: str = "") -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        return nullcontext(advance)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_of_a_whole_command(tmp_path: Path, model_folder: Path) -> None:
    """A full disk in the middle of training, a file removed between stages, a second process."""
    arms = {"arms": ["original", "tokenskip"], "ratios": [0.5], "latency_samples": 0}
    recipe_file = recipe(tmp_path, model_folder, evaluate=arms, train={"save_steps": 2})
    out = tmp_path / "run"
    for stage in ("generate", "grade", "score", "prune"):
        options = ("--recipe", recipe_file) if stage == "generate" else ()
        assert tokenskip(stage, out, *options).returncode == 0
    limit = (out / "train.jsonl").stat().st_size // 4  # an adapter does not fit, nor a checkpoint

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (min(limit, 8000), min(limit, 8000)))

    done = tokenskip("train", out, preexec_fn=small)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "the same command continues" in done.stderr
    (out / "train.jsonl").unlink()
    done = tokenskip("train", out)
    assert done.returncode == 2
    assert f"has no train.jsonl yet: run `tokenskip prune {out}` first" in done.stderr
    with RunFolder(out, load_recipe(recipe_file)):
        done = tokenskip("train", out)
        assert done.returncode == 2
        assert f"in use by process {os.getpid()} on " in done.stderr
    assert tokenskip("prune", out).returncode == 0
    assert tokenskip("train", out).returncode == 0
    assert (out / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_ctrl_c_on_the_real_command(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, generate={"options": {"pause": 1.0}})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCES, TESTS])}
    command = [sys.executable, "-m", "tokenskip", "run", str(recipe_file), "--out", str(tmp_path / "run")]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell are born deaf
    with subprocess.Popen(command, env=environment, preexec_fn=heard, **pipes) as run:
        file = tmp_path / "run" / "completions.jsonl"
        while not (file.exists() and file.stat().st_size):
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "stopping after the batch in flight" in errors
    assert "everything computed is kept: the same command continues from here" in errors
    assert "Traceback" not in errors
    assert file.read_bytes().endswith(b"\n")
    assert len(list(read_rows(file))) % 8 == 0
