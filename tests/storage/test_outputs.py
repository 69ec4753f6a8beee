"""`-o` never destroys: not the input, not a run's own files, not what a link or a draft's name points to."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenskip import cli
from tokenskip.config import RunConfig
from tokenskip.errors import RunError
from tokenskip.storage.outputs import check_file, check_folder, new_folder, writing
from tokenskip.storage.store import RunFolder


def fails(monkeypatch: Any, capsys: Any, *argv: object) -> str:
    """The one line of a command that ends with 2."""
    monkeypatch.setattr(sys, "argv", ["tokenskip", *map(str, argv)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    error: str = capsys.readouterr().err.strip()
    assert done.value.code == 2
    assert error.count("\n") == 0, error
    return error


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with nothing in it but its settings."""
    with RunFolder(tmp_path / "run", RunConfig()):
        pass
    return tmp_path / "run"


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.jsonl"
    with writing(target) as out:
        out.write("one\n")
    with pytest.raises(UnicodeEncodeError), writing(target) as out:
        out.writelines(("half", "\ud800"))
    assert target.read_text() == "one\n"
    assert os.listdir(target.parent) == ["out.jsonl"]
    umask = os.umask(0o027)
    try:
        with writing(target) as out:
            out.write("two\n")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError), new_folder(tmp_path / "out") as draft:
        (draft / "x").write_text("half \ud800", encoding="utf-8")
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "out") as draft:
        (draft / "x").write_text("whole")
    assert (tmp_path / "out" / "x").read_text() == "whole"
    with pytest.raises(RunError, match="exists: choose another -o"):
        check_folder(tmp_path / "out")


def test_neighbours_named_like_drafts_stay(tmp_path: Path) -> None:
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "mine").write_text("mine")
    (tmp_path / "f.jsonl.tmp").write_text("mine")
    with new_folder(tmp_path / "out"), writing(tmp_path / "f.jsonl") as out:
        out.write("x")
    assert (tmp_path / "out.tmp" / "mine").read_text() == (tmp_path / "f.jsonl.tmp").read_text() == "mine"


@pytest.mark.parametrize(
    "kind", ["link", "dangling", "folder", "pipe", "input", "hard link of the input", "NUL", "long"]
)
def test_what_is_no_place_for_a_file_is_named(kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_text("precious")
    if kind in ("link", "dangling"):
        target.symlink_to(source if kind == "link" else tmp_path / "nowhere")
    elif kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "input":
        target = source
    elif kind == "hard link":
        os.link(source, target)
    else:
        target = tmp_path / ("a\0b" if kind == "NUL" else "x" * 300)
    with pytest.raises(RunError):
        check_file(target, [source])
    assert source.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["config.json", "results.json", "scores.jsonl", "train.jsonl", "eval/original.jsonl", "adapter", "round-1"]
)
def test_the_names_of_a_run_are_its_own(name: str, run: Path) -> None:
    for check in (check_file, check_folder):
        with pytest.raises(RunError, match="belongs to the run folder"):
            check(run / name)
    check_file(run / "compare.html")
    check_folder(run / "merged")


def test_another_programs_config_json_makes_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"port": 80}')
    check_file(tmp_path / "train.jsonl")


def test_commands_refuse_before_they_work(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    rows = tmp_path / "q.jsonl"
    rows.write_text('{"id":"a","gold":"17","output":"17"}\n')
    before = (run / "config.json").read_bytes()
    assert "belongs to the run" in fails(monkeypatch, capsys, "grade", rows, "-o", run / "config.json")
    assert "exists" in fails(monkeypatch, capsys, "distill", run, "-o", run)
    assert "is the input" in fails(monkeypatch, capsys, "grade", rows, "-o", rows)
    chains = tmp_path / "c.jsonl"
    chains.write_text('{"id":"a","cot":"So 2 + 3 = 5."}\n')
    assert "is the input" in fails(monkeypatch, capsys, "prune", chains, "-o", chains)
    os.symlink(rows, tmp_path / "link")
    assert "symbolic link" in fails(monkeypatch, capsys, "grade", rows, "-o", tmp_path / "link")
    results = [tmp_path / name for name in ("a.json", "b.json")]
    for file in results:
        file.write_text(json.dumps({"run": "x", "arms": []}))
    assert "is the input" in fails(monkeypatch, capsys, "compare", *results, "-o", results[1])
    assert rows.read_text().startswith('{"id"')
    assert (run / "config.json").read_bytes() == before
    shutil.rmtree(run)
