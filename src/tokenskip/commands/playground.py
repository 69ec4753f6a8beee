"""`tokenskip playground`: try ratios in a local page.

tokenskip playground runs/mine
"""

from __future__ import annotations

from typing import Annotated

import typer

from tokenskip.commands.console import Set, quiet, say
from tokenskip.errors import ConfigError


def playground(
    run: Annotated[str | None, typer.Argument(help="Run folder, adapter folder, or 'embedded' (the default).")] = None,
    url: Annotated[str | None, typer.Option(help="Ask a server instead, such as http://localhost:8000.")] = None,
    model: Annotated[str | None, typer.Option(help="With --url: the trained model's name there.")] = None,
    original: Annotated[str | None, typer.Option(help="With --url: the untouched model's name there.")] = None,
    base: Annotated[str | None, typer.Option(help="The adapter's base model, where it moved.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve the page at; others than this are for a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 7860,
    set_: Set = None,
) -> None:
    """Ask with a slider for the ratio, in a local page: whole and short chain stream side by side.

    Both models of a run are loaded here; for large ones start a server (`tokenskip serve`) and give its --url.
    """
    from tokenskip.serving.playground_page import check_installed, launch

    if bool(url) != bool(model) or (original and not url):
        raise ConfigError("a server needs both --url and --model (and perhaps --original); without one, give none")
    check_installed("gradio")
    quiet()
    from tokenskip.serving.playground import local, remote

    overrides = set_ or []
    if url and model:
        ground = remote(url, model, original, run, base, overrides)
    else:
        ground = local(run or "embedded", base, overrides)
    if host not in ("127.0.0.1", "localhost", "::1"):
        say(f"! anybody who reaches {host} can use this page: it has no password")
    launch(ground, host, port, lambda address: say(f"playground: {address} (Ctrl-C ends it)"))
