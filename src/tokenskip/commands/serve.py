"""`tokenskip serve`: the command that serves an adapter with vLLM or transformers, its chat template included."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenskip.commands.console import quiet, say
from tokenskip.errors import BackendError, ConfigError, unknown_name

ENGINES = ("vllm", "transformers")


def serve(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Run folder, adapter folder, or 'embedded'; then -- ENGINE'S OPTIONS.")],
    engine: Annotated[str, typer.Option(help="vllm, or transformers (serves the merged model).")] = "transformers",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 8000,
    base: Annotated[str | None, typer.Option(help="The adapter's base model, where it moved.")] = None,
    merged: Annotated[Path | None, typer.Option(help="Folder of the merged model (default: merged/).")] = None,
    execute: Annotated[bool, typer.Option("--exec", help="Run the command instead of printing it.")] = False,
) -> None:
    """Print the command that serves an adapter so that the ratio works, or run it."""
    from tokenskip.serving.merge import find_adapter

    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    quiet()
    trained = find_adapter(run, base)
    beside = trained.run / "merged" if trained.run else Path("merged")
    merged = merged or (trained.folder if trained.is_model else beside)
    needs_merge = engine == "transformers" and not merged.exists()
    command = _vllm(trained, port) if engine == "vllm" else _transformers(merged, port)
    command += context.args
    name = "tokenskip" if engine == "vllm" and not trained.is_model else command[2]
    if execute:
        _run(command, trained if needs_merge else None, merged)
    if needs_merge:
        say(shlex.join(["tokenskip", "merge", run, "-o", str(merged), *(["--base", base] if base else [])]))
    say(shlex.join(command))
    if kwargs := trained.config.prompt.template_kwargs:
        say(f"# the template's defaults, which a client may override: {json.dumps(kwargs)}")
    say(f"# then check it: tokenskip doctor http://localhost:{port} --model {shlex.quote(name)}")


def _vllm(trained: Any, port: int) -> list[str]:
    """vLLM with the adapter beside its base, for this machine only (its own default is every network).

    The template must be named: it reads none from an adapter's folder.
    """
    from tokenskip.client import lora_rank
    from tokenskip.models.loading import resolve_model

    if trained.is_model:
        return ["vllm", "serve", str(trained.folder), "--host", "127.0.0.1", "--port", str(port)]
    settings = json.loads((trained.folder / "adapter_config.json").read_text(encoding="utf-8"))
    model = resolve_model(trained.config.model.path)
    command = ["vllm", "serve", model, "--enable-lora", "--max-lora-rank", str(lora_rank(settings["r"]))]
    command += ["--lora-modules", f"tokenskip={trained.folder}"]
    command += ["--chat-template", str(trained.folder / "chat_template.jinja")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return command + (["--revision", trained.config.model.revision] if trained.config.model.revision else [])


def _transformers(merged: Path, port: int) -> list[str]:
    """`transformers serve` cannot load adapters: the merged model."""
    return ["transformers", "serve", str(merged.absolute()), "--port", str(port)]


def _run(command: list[str], unmerged: Any, merged: Path) -> None:
    """Merge where that has not been done, and become the server. Raises BackendError when it is not installed."""
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        extra = {"vllm": "vllm", "transformers": "transformers[serving]"}[command[0]]
        raise BackendError(f"{command[0]} is not installed here: pip install '{extra}', or run without --exec")
    if unmerged is not None:
        from tokenskip.serving.merge import merge

        merge(unmerged, merged)
    if command[0] == "transformers":  # its /v1/models fails without a hub cache
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        (home / "hub").mkdir(parents=True, exist_ok=True)
    say(shlex.join(command))
    sys.stdout.flush()
    os.execv(program, [program, *command[1:]])
