"""`tokenskip export`: a run's training rows for other trainers, or its model for llama.cpp, Ollama and mlx-lm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenskip.commands.console import quiet, say


def export(
    run: Annotated[str, typer.Argument(help="Run folder; with --to also an adapter folder, or 'embedded'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder; must not exist.")],
    format: Annotated[
        str | None, typer.Option("--format", help="Rows: trl, messages, alpaca or axolotl (default: trl).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="The model instead: gguf, ollama or mlx.")] = None,
    type_: Annotated[str, typer.Option("--type", help="Of a GGUF's weights: f16, q8_0, f32 or bf16.")] = "f16",
    converter: Annotated[Path | None, typer.Option(help="llama.cpp's convert_hf_to_gguf.py.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name (default: the run's).")] = None,
    base: Annotated[str | None, typer.Option(help="The adapter's base model, where it moved.")] = None,
) -> None:
    """Write the training rows of a run for another trainer, or with --to the model for a local server."""
    from tokenskip.errors import ConfigError

    if to and format:
        raise ConfigError("--format writes training rows and --to the model: give one of them")
    quiet()
    if not to:
        from tokenskip.serving.export import export as write

        say(f"{write(Path(run), format or 'trl', output)} rows -> {output}")
        return
    from tokenskip.serving.local import export_local
    from tokenskip.serving.merge import find_adapter

    for line in export_local(find_adapter(run, base), to, output, type_=type_, converter=converter, name=name):
        say(line)
