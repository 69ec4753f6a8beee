"""`tokenskip serve`: the command that serves an adapter on one of six engines, its chat template included."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenskip.commands.console import quiet, say
from tokenskip.errors import BackendError, ConfigError, unknown_name

ENGINES = ("vllm", "transformers", "sglang", "llamacpp", "ollama", "mlx")
INSTALLED_BY = {
    "vllm": "pip install vllm",
    "transformers": "pip install 'transformers[serving]'",
    "sglang": "pip install sglang",
    "llama-server": "install llama.cpp",
    "ollama": "install Ollama",
    "mlx_lm.server": "pip install mlx-lm (on a Mac)",
}


def serve(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Run folder, adapter folder, or 'embedded'; then -- ENGINE'S OPTIONS.")],
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINES)}; all but vllm take the merged model.")] = (
        "transformers"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 8000,
    base: Annotated[str | None, typer.Option(help="The adapter's base model, where it moved.")] = None,
    merged: Annotated[
        Path | None, typer.Option(help="Folder of the merged or exported model (default: merged/, gguf/ and so on).")
    ] = None,
    execute: Annotated[bool, typer.Option("--exec", help="Run the command instead of printing it.")] = False,
) -> None:
    """Print the command that serves an adapter so that the ratio works, or run it."""
    from tokenskip.serving.budgets import budgets_of, request_notes
    from tokenskip.serving.engines import plan_for
    from tokenskip.serving.merge import find_adapter

    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    quiet()
    trained = find_adapter(run, base)
    budgets = budgets_of(trained)
    plan = plan_for(engine, trained, run, base, merged, port, budgets)
    command = [*plan.command, *context.args]
    if execute:
        _run(command, plan.before, trained if plan.merges else None, plan.folder)
    for line in plan.before:
        say(shlex.join(line))
    say(shlex.join(command))
    for note in plan.notes:
        say(f"# {note}")
    for note in request_notes(trained, budgets, engine):
        say(f"# {note}")
    say(f"# then check it: tokenskip doctor http://localhost:{plan.port} --model {shlex.quote(plan.name)}")


def _run(command: list[str], before: Sequence[Sequence[str]], unmerged: Any, merged: Path) -> None:
    """Merge where that has not been done, and become the server.

    Raises:
        BackendError: it is not installed; ConfigError: it serves an export that has not been made.
    """
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise BackendError(f"{command[0]} is not installed here: {INSTALLED_BY[command[0]]}, or run without --exec")
    if before and unmerged is None:
        raise ConfigError(f"{merged} is not there yet: run `{shlex.join(before[0])}` first")
    if unmerged is not None:
        from tokenskip.serving.merge import merge

        merge(unmerged, merged)
    if command[0] == "transformers":  # its /v1/models fails without a hub cache
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        (home / "hub").mkdir(parents=True, exist_ok=True)
    say(shlex.join(command))
    sys.stdout.flush()
    os.execv(program, [program, *command[1:]])
