"""`tokenskip doctor`: which ways to ask for a ratio a running server honours, and what to change where it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenskip.commands.console import say


def doctor(
    url: Annotated[str, typer.Argument(help="A running server, such as http://localhost:8000.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    ratio: Annotated[str, typer.Option(help="The ratio to try.")] = "0.5",
    run: Annotated[
        str | None,
        typer.Option("--run", help="The run or adapter that is served: its ratios and words are known then."),
    ] = None,
) -> None:
    """Does a server honour the ratio? Exits with 0 when it does, with 1 and what to change when it does not."""
    from tokenskip.errors import ConfigError
    from tokenskip.ratio import Ratio, spell
    from tokenskip.serving.doctor import diagnose
    from tokenskip.serving.merge import find_adapter
    from tokenskip.serving.template import template_of

    tried = Ratio.parse(ratio)
    if float(tried) == 1:
        raise ConfigError("--ratio 1 is the plain prompt: give one below 1")
    template = template_of(find_adapter(run).folder) if run else None
    diagnosis = diagnose(url, model, tried, template)
    say(diagnosis.found)
    if diagnosis.trained:
        say(f"trained on: {spell(diagnosis.trained)}")
    elif diagnosis.trained is None:
        say("trained on: not known here (give the adapter by --run)")
    for route in diagnosis.routes:
        say(f"{route.name:<22} {route.sent:<22} {route.verdict:<12} {route.found}")
    if not diagnosis.honoured:
        say(f"no: {diagnosis.advice}")
        raise typer.Exit(1)
    by = " and by ".join(diagnosis.by) or "chat_template_kwargs"
    say(f"yes: {model} at {url} honours compression_ratio by {by} (on {diagnosis.route})")
