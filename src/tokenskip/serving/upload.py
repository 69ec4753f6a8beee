"""The folder that `push` uploads: an explicit list of files, the model card among them, and nothing that lies beside.

    tokenskip push runs/NAME OWNER/NAME --dry-run

Names that are not on the list stay here (`.env`, `.git`, checkpoints, notes), and a link is never followed: its target
was not made by the training.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenskip.client import redact
from tokenskip.errors import RunError
from tokenskip.evaluation.schema import load_results
from tokenskip.serving.merge import Trained, merge
from tokenskip.serving.model_card import base_model_of, write_card
from tokenskip.terminal import one_line

CARD, MADE = "README.md", ".tokenskip-push"
"""The model card, and the list of what was written into the folder: only that is ever replaced."""
_UPLOADED = re.compile(
    r"""adapter_config\.json | adapter_model\.safetensors
    | config\.json | generation_config\.json | model(?:-\d+-of-\d+)?\.safetensors | model\.safetensors\.index\.json
    | chat_template\.(?:jinja|json) | tokenizer\.(?:json|model) | tokenizer_config\.json | special_tokens_map\.json
    | added_tokens\.json | vocab\.(?:json|txt) | merges\.txt | spiece\.model | sentencepiece\.bpe\.model""",
    re.VERBOSE,
)
"""What transformers and PEFT write and read: weights, configuration, tokenizer, chat template."""


class Upload(NamedTuple):
    """A folder that is ready, the names that would go to the hub, and what was found beside them and stays here."""

    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def prepare_upload(trained: Trained, repo: str, out: Path, base: str | None, *, merged: bool) -> Upload:
    """Write the folder that would be uploaded to `repo`; what an earlier push wrote there is replaced.

    Raises:
        RunError: the run has no results yet, a file is a link, or `out` holds what no push has written or cannot be
            written; ConfigError: its base model is not public.
    """
    if trained.run is None:
        raise RunError(f"{trained.folder} is not in a run folder: its card is written from a run's results.json")
    results = load_results(trained.run)
    whole = merged or trained.is_model
    base = base_model_of(trained.config, base, whole=whole)
    card = redact(write_card(trained, results, repo, base, whole=whole))
    try:
        _empty(out)
        if merged and not trained.is_model:
            with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".merging-") as beside:
                merge(trained, Path(beside) / "model")
                files, left_out = _copy_listed(Path(beside) / "model", out)
        else:
            files, left_out = _copy_listed(trained.folder, out)
        if not whole:
            settings = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
            settings |= {"base_model_name_or_path": base, "revision": trained.config.model.revision}
            (out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (out / CARD).write_text(card, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError(f"cannot write {out}: {one_line(error)}") from None
    return Upload(out, (CARD, *files), left_out)


def _empty(out: Path) -> None:
    """Make `out`, or take out of it what an earlier push wrote; RunError when it holds anything else."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RunError(f"{out} is no folder of its own: choose another --output")
    out.mkdir(parents=True, exist_ok=True)
    listed = out / MADE
    made: set[str] = set()
    if listed.is_file() and not listed.is_symlink():
        made = {name for name in listed.read_text(encoding="utf-8").split("\n") if name == CARD or _is_listed(name)}
    foreign = [
        entry.name for entry in out.iterdir() if entry.name not in {MADE, *made} or entry.is_symlink() or entry.is_dir()
    ]
    if foreign:
        raise RunError(
            f"{out} holds something else, which no push has written ({_some(foreign)}): choose another --output"
        )
    for name in made:
        (out / name).unlink(missing_ok=True)


def _copy_listed(source: Path, out: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the files of the list; their names, and the names of what was left out."""
    entries = sorted(source.iterdir())
    listed = [entry for entry in entries if _is_listed(entry.name)]
    if links := [entry.name for entry in listed if entry.is_symlink() or not entry.is_file()]:
        raise RunError(f"{source} holds {_some(links)} as a link or a folder: only files of its own are uploaded")
    names = tuple(entry.name for entry in listed)
    # written first: should the copying break off, the next push may clear the folder
    (out / MADE).write_text("\n".join((CARD, *names)) + "\n", encoding="utf-8")
    for entry in listed:
        shutil.copyfile(entry, out / entry.name, follow_symlinks=False)
    made_anew = (CARD, "losses.tsv")  # the card of PEFT, and the training's own record
    return names, tuple(entry.name for entry in entries if entry not in listed and entry.name not in made_anew)


def _is_listed(name: str) -> bool:
    return bool(_UPLOADED.fullmatch(name))


def _some(names: Iterable[str]) -> str:
    shown = sorted(one_line(name, 60) for name in names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
