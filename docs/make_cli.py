"""Writes docs/cli.md: the `--help` of every command, as plain text of a fixed width. `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from tokenskip.cli import app

TARGET = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# Command line

Made by `python docs/make_cli.py` from the commands themselves; a test checks that it is current. A user's mistake is
one line on standard error and exit code 2; an interrupted run exits with 130 and continues when the command is repeated.
"""


def help_of(*command: str) -> str:
    """What `tokenskip COMMAND --help` prints, without colours and boxes."""
    markup, app.rich_markup_mode = app.rich_markup_mode, None
    try:
        result = CliRunner().invoke(app, [*command, "--help"], prog_name="tokenskip", terminal_width=WIDTH)
    finally:
        app.rich_markup_mode = markup
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def document() -> str:
    """The whole page."""
    parts = [HEAD, f"```text\n{help_of()}\n```\n"]
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        parts.append(f"## {name}\n\n```text\n{help_of(name)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
