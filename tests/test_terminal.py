"""What others wrote reaches a terminal as text, and never as a command to it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tokenskip import cli
from tokenskip.terminal import console, one_line, printable

ATTACK = "Tom \x1b]0;PWNED\x07\x1b[2J\x9b31m\x90q\x85\r\x08\x7f\u202egnp\u2066.\udcff has"


def commands(text: str) -> set[str]:
    return {c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2028"}


def test_commands_become_text() -> None:
    shown = printable(ATTACK)
    assert commands(shown) == set()
    assert shown.startswith("Tom \\x1b]0;PWNED\\x07\\x1b[2J\\x9b31m")
    assert "\\u202egnp" in shown
    shown.encode()


@given(st.text())
def test_nothing_commands_and_nothing_else_changes(text: str) -> None:
    assert commands(printable(text)) == set()
    assert printable(printable(text)) == printable(text)
    assert len(one_line(text)) <= 301
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", ["a\n\tb", "日本語 の 答え", "קצת \u200fעברית", "e\u0301 🇩🇪 👩\u200d🔬", "2²√½ ≤ π"])
def test_all_that_people_write_stays(text: str) -> None:
    assert printable(text) == text


def test_a_console_prints_no_commands_whatever_they_come_in() -> None:
    out = io.StringIO()
    screen = console(file=out, width=200)
    table = Table(title=ATTACK)
    table.add_column(ATTACK)
    table.add_row(Text(ATTACK))
    screen.print(Panel(table, title=Text(ATTACK)), ATTACK)
    assert commands(out.getvalue()) == set()
    assert "PWNED" in out.getvalue()


def test_a_pruned_chain_and_an_error_show_no_commands(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        json.dumps({"id": "i\x1b[2J", "cot": "Tom \x1b]0;PWNED\x07 has 12. He buys \u202e5 more \x9b31m now."})
    )
    arguments = ["tokenskip", "prune", str(file), "--scorer", "random", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    monkeypatch.setattr(sys, "argv", [*arguments[:4], "ran\x1b]0;PWNED\x07dom", *arguments[5:]])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr()
    assert "PWNED" in said.out
    assert "PWNED" in said.err
    assert commands(said.out + said.err) == set()


CHAIN = json.dumps({"id": "γ日", "cot": "Tom hat 12 Äpfel 日本. Er kauft 5 γ mehr."})


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_encoding_that_lacks_a_character_fails_nothing(tmp_path: Path, encoding: str, monkeypatch: Any) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(CHAIN)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True))
    command = ["tokenskip", "prune", str(file), "-o", str(tmp_path / "out"), "--scorer"]
    monkeypatch.setattr(sys, "argv", [*command, "random"])
    cli.main()
    assert b"?" in sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "argv", [*command, "日γ"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    done, said = sys.stderr.buffer.getvalue().splitlines()  # type: ignore[attr-defined]
    assert done.startswith(b"prune: done, ")
    assert said.startswith(b"tokenskip: unknown scorer '??': allowed are ")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_the_encoding_of_a_process_fails_nothing(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(CHAIN)
    sources = str(Path(cli.__file__).parents[1])
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONPATH": sources}
    command = [sys.executable, "-m", "tokenskip", "prune", str(file), "-o", str(tmp_path / "out"), "--scorer"]
    done = subprocess.run([*command, "random"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    failed = subprocess.run([*command, "日γ"], env=environment, capture_output=True, check=False)
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1
