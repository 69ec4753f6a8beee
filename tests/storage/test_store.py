"""The run folder: what a kill leaves behind is repaired, what would mix two runs is refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from growing import grow
from hypothesis import given
from hypothesis import strategies as st

from tokenskip.config import RunConfig, load_recipe
from tokenskip.errors import RunError, StageError
from tokenskip.storage.store import (
    COMPLETIONS,
    PRUNED,
    SCORES,
    TRAIN,
    TRAJECTORIES,
    RunFolder,
    dump_row,
    grade_row,
    pruned_row,
    read_manifest,
    read_rows,
    repair,
    scores_row,
    trajectory_row,
    write_atomically,
)
from tokenskip.types import Grade, Pruned, Scores, Span, Trajectory

ROWS = [{"id": str(i), "text": "line\nbreak – é 👍🏽" * (i % 3)} for i in range(11)]
WHOLE = "".join(map(dump_row, ROWS)).encode()


def grown(folder: RunFolder, window: int, rows: Sequence[dict[str, Any]] = ROWS) -> list[int]:
    """Let `rows.jsonl` grow to all rows; the sizes of the windows that were really computed."""
    sizes: list[int] = []

    def work(items: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        sizes.append(len(items))
        return items

    grow(folder, "rows.jsonl", rows, work, window)
    return sizes


@given(st.integers(0, len(WHOLE)), st.integers(1, 12))
def test_cut_off_at_any_byte_the_file_grows_to_the_same_bytes(cut: int, window: int) -> None:
    with TemporaryDirectory() as name:
        folder = RunFolder(Path(name), RunConfig())
        file = folder.file("rows.jsonl")
        file.write_bytes(WHOLE[:cut])
        sizes = grown(folder, window)
        assert file.read_bytes() == WHOLE
        whole_windows = WHOLE[:cut].count(b"\n") // window
        assert sum(sizes) == len(ROWS) - whole_windows * window or WHOLE[:cut].count(b"\n") == len(ROWS)
        assert grown(folder, window) == []


def test_a_torn_last_line_is_cut_off_and_never_read(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    assert repair(file) == 0
    file.write_bytes(b'{"a":1}\n{"a":2}\n{"a":')
    assert [row["a"] for row in read_rows(file)] == [1, 2]
    assert repair(file) == 2
    assert file.read_bytes() == b'{"a":1}\n{"a":2}\n'
    file.write_bytes(b"{")
    assert (repair(file), file.read_bytes()) == (0, b"")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, flags: int) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    monkeypatch.setattr("tokenskip.storage.disk._open", full)
    with pytest.raises(RunError, match="No space left on device; what is written is kept"):
        grown(RunFolder(tmp_path, RunConfig()), 100)


def test_windows_are_the_same_in_every_run_and_nothing_is_cut_off_that_is_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RunConfig())
    assert grown(folder, 4) == [4, 4, 3]
    whole = folder.file("rows.jsonl").read_bytes()
    more = [*ROWS, {"id": "new", "text": ""}]
    assert grown(folder, 4, more) == [4], "the last window is computed again as a whole"
    assert folder.file("rows.jsonl").read_bytes() == whole + dump_row(more[-1]).encode()
    assert grown(folder, 4, ROWS[:5]) == [], "fewer inputs than rows take none away"
    assert grown(folder, 4, []) == []
    assert len(list(read_rows(folder.file("rows.jsonl")))) == 12


def open_with(path: Path, *overrides: str) -> None:
    with RunFolder(path, load_recipe(None, list(overrides))):
        pass


def test_a_changed_configuration_is_refused_once_a_stage_has_read_it(tmp_path: Path) -> None:
    open_with(tmp_path)
    open_with(tmp_path, "generate.max_new_tokens=64", "score.scorer=random", "train.rank=4")  # nothing has run
    (tmp_path / COMPLETIONS).write_text("")
    with pytest.raises(RunError, match=r"generate\.max_new_tokens: 64 -> 32; seed: 0 -> 1\. Set them back"):
        open_with(tmp_path, "generate.max_new_tokens=32", "score.scorer=random", "train.rank=4", "seed=1")
    open_with(tmp_path, "generate.max_new_tokens=64", "score.scorer=surprisal", "train.rank=2")
    assert read_manifest(tmp_path)["config"]["train"]["rank"] == 2
    (tmp_path / SCORES).write_text("")
    with pytest.raises(RunError, match=r'score\.scorer: "surprisal" -> "random"\.') as error:
        open_with(tmp_path, "generate.max_new_tokens=64", "score.scorer=random", "prune.unit=word")
    assert "prune" not in str(error.value)
    assert read_manifest(tmp_path)["config"]["prune"]["unit"] == "token"


def test_keys_that_change_no_row_may_change_at_any_time(tmp_path: Path) -> None:
    open_with(tmp_path)
    for name in (COMPLETIONS, TRAJECTORIES, SCORES, PRUNED, TRAIN):
        (tmp_path / name).write_text("")
    (tmp_path / "eval").mkdir()
    free = ["evaluate.arms=[original]", "evaluate.ratios=[0.5]", "name=other", "evaluate.latency_samples=0"]
    open_with(tmp_path, *free)
    with pytest.raises(RunError, match=r"task\.test_limit: null -> 5"):
        open_with(tmp_path, *free, "task.test_limit=5")


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    holder = (
        "import sys, pathlib; from tokenskip.storage.store import RunFolder; from tokenskip.config import RunConfig\n"
        "with RunFolder(pathlib.Path(sys.argv[1]), RunConfig()):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"in use by process {process.pid} on .*: wait for it, or stop it"):
            open_with(tmp_path)
        process.kill()
    open_with(tmp_path)  # a lock dies with its process


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(RunError, match=r"cannot write the run folder .*; choose another --out"):
            open_with(path)
    with pytest.raises(RunError, match="is not a run folder"):
        read_manifest(tmp_path)
    for text in ("{", "[]", "{}", json.dumps({"format": 99, "config": {}})):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(RunError, match=r"config\.json (cannot be read|was (not )?written by tokenskip)"):
            open_with(tmp_path)


def test_whole_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = tmp_path / "results.json"
    write_atomically(file, "old")
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RunConfig())
    wanted = {TRAJECTORIES: "grade", SCORES: "score", TRAIN: "prune", "adapter": "train", "eval/x.jsonl": "evaluate"}
    for name, command in wanted.items():
        with pytest.raises(StageError, match=f"run `tokenskip {command} {tmp_path}` first"):
            folder.require(name)


def test_trajectories_come_back_as_they_were(tmp_path: Path) -> None:
    good = Trajectory(
        id="a",
        question="q – é",
        gold="1",
        output="<think>one two\n\nSo 1.",
        head="<think>",
        cot="one two",
        tail="\n\nSo 1.",
        grade=Grade(correct=True, reason="equal", extracted="1"),
        scores=Scores(scorer="s", spans=(Span(0, 3, 0.5), Span(4, 7, -1.25))),
        pruned=(Pruned(ratio=0.5, text="two", n_tokens=2, n_tokens_pruned=1, kept=((4, 7),)),),
    )
    grade = Grade(correct=False, reason="differs")
    bad = Trajectory(id="b", question="q", gold="1", grade=grade).drop("incorrect").drop("later")
    folder = RunFolder(tmp_path, RunConfig())
    files = {COMPLETIONS: trajectory_row, TRAJECTORIES: grade_row, SCORES: scores_row, PRUNED: pruned_row}
    for name, row in files.items():
        folder.append(name, [row(one) for one in (good, bad)])
    assert list(folder.trajectories(SCORES, PRUNED)) == [good, bad]
    text = folder.file(COMPLETIONS).read_text()
    assert text.count("one two") == 1, "a text is stored once"
    assert not any("one two" in folder.file(name).read_text() for name in (TRAJECTORIES, SCORES, PRUNED))
    repair(folder.file(SCORES), 1)
    with pytest.raises(
        StageError, match=rf"has 1 of 2 rows of scores\.jsonl: `tokenskip score {tmp_path}` completes them"
    ):
        list(folder.trajectories(SCORES))
    assert bad.dropped == "incorrect"
