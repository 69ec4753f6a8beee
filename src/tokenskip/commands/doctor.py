"""`tokenskip doctor`: whether a running server honours `compression_ratio`, and what to change where it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenskip.commands.console import say


def doctor(
    url: Annotated[str, typer.Argument(help="A running server, such as http://localhost:8000.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    ratio: Annotated[str, typer.Option(help="The ratio to try.")] = "0.5",
) -> None:
    """Does a server honour the ratio? Exits with 0 when it does, with 1 and what to change when it does not."""
    from tokenskip.errors import ConfigError
    from tokenskip.ratio import Ratio
    from tokenskip.serving.doctor import diagnose

    tried = Ratio.parse(ratio)
    if float(tried) == 1:
        raise ConfigError("--ratio 1 is the plain prompt: give one below 1")
    diagnosis = diagnose(url, model, tried)
    say(diagnosis.found)
    if not diagnosis.honoured:
        say(f"no: {diagnosis.advice}")
        raise typer.Exit(1)
    say(f"yes: {model} at {url} honours compression_ratio (on {diagnosis.route})")
