"""`tokenskip push`: a run's adapter with a card written from its results, to the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenskip.commands.console import quiet, say
from tokenskip.errors import BackendError, ConfigError
from tokenskip.terminal import one_line

if TYPE_CHECKING:
    from tokenskip.serving.upload import Upload


def push(
    run: Annotated[str, typer.Argument(help="Run folder, with its report made.")],
    repo: Annotated[str, typer.Argument(help="Repository on the hub: OWNER/NAME.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and upload nothing.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="That folder (default: RUN/upload).")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id of the base model, where the run used a copy.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Upload the merged model instead of the adapter.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a run's adapter, tokenizer and chat template with a model card written from its results."""
    from tokenskip.serving.merge import find_adapter
    from tokenskip.serving.model_card import HUB_ID
    from tokenskip.serving.upload import prepare_upload

    if not HUB_ID.fullmatch(repo):
        raise ConfigError(f"a repository is OWNER/NAME, such as me/qwen-tokenskip; given: {repo!r}")
    token = None if dry_run else _token()
    quiet()
    upload = prepare_upload(find_adapter(run), repo, output or Path(run) / "upload", base_model, merged=merged)
    files = ", ".join(upload.files)
    if dry_run:
        left_out = f" (left out: {', '.join(upload.left_out)})" if upload.left_out else ""
        say(f"would upload {upload.folder} to {repo}: {files}{left_out}")
        return
    say(f"{_upload(upload, repo, token, private)}: {files}")


def _token() -> str:
    """The hub's token, as its own tools find it. Raises BackendError before anything is loaded."""
    from huggingface_hub import get_token

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise BackendError("HF_HUB_OFFLINE is set: unset it, or write the folder only, with --dry-run")
    token = get_token()
    if not token:
        raise BackendError("not logged in to the hub: run `hf auth login`, or write the folder only, with --dry-run")
    return token


def _upload(upload: Upload, repo: str, token: Any, private: bool) -> str:
    """The repository's address. Raises BackendError with the hub's own words."""
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        address = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, folder_path=upload.folder, allow_patterns=[*upload.files], commit_message="tokenskip push"
        )
    except (OSError, ValueError) as error:
        raise BackendError(f"the hub did not take {repo}: {one_line(error)}; {upload.folder} is kept") from None
    return str(address)
