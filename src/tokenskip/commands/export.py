"""`tokenskip export`: the training rows of a run for TRL, LLaMA-Factory, Axolotl, or as plain chats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenskip.commands.console import RunDir, quiet, say


def export(
    run: RunDir,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder; must not exist.")],
    format: Annotated[str, typer.Option("--format", help="trl, messages, alpaca or axolotl.")] = "trl",
) -> None:
    """Write the training rows of a run in the format of another trainer."""
    from tokenskip.serving.export import export as write

    quiet()
    say(f"{write(run, format, output)} rows -> {output}")
