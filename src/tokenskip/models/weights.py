"""The files of a checkpoint: whole, and safetensors, or one line that names the file.

Reads headers, indexes and JSON settings; `fingerprint` and `is_finite` read the numbers. Writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenskip.errors import ModelError, TokenskipError

WEIGHTS, _INDEX_END = "model.safetensors", ".safetensors.index.json"
_POINTER = b"version https://git-lfs"


def check_weights(source: str, revision: str | None = None) -> None:
    """Nothing, where the weight files of a resolved model are whole safetensors files.

    Raises:
        ModelError: a file is missing, cut off, a git-lfs pointer, damaged, or not safetensors; the message names it.
    """
    folder = Path(source)
    named = str(read_settings(source, "config.json", revision).get("transformers_weights") or WEIGHTS)
    if not named.endswith((".safetensors", _INDEX_END)):
        raise ModelError(f"{source}/config.json names the weights {named!r}: weights are read from safetensors only")
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{source} is a model and an adapter at once: move adapter_config.json out of it")
    index = named if named.endswith(_INDEX_END) else named.removesuffix(".safetensors") + _INDEX_END
    if named != index and (folder / named).exists():
        read_header(folder / named)
        return
    weight_map = read_settings(source, index, revision).get("weight_map")
    if weight_map is None and folder.is_dir():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = ": pickled weights are not read, save them as safetensors" if pickled else ""
        raise ModelError(f"{source} has no {named}{why}")
    if not isinstance(weight_map or {}, dict):
        raise ModelError(f"{source}/{index} is damaged: its weight_map is no object")
    for shard in dict.fromkeys(map(str, (weight_map or {}).values())):
        if not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise ModelError(f"{source}/{index} names {shard!r}: weights are read from safetensors beside it only")
        if folder.is_dir():
            read_header(folder / shard)


def read_header(file: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a safetensors file; the weights themselves are not read.

    Raises:
        ModelError: there is no such file, or it is cut off, a git-lfs pointer, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not file.is_file():
            raise FileNotFoundError
        with file.open("rb") as handle:
            if handle.read(len(_POINTER)) == _POINTER:
                raise ModelError(f"{file} is a git-lfs pointer, not the weights: run `git lfs pull` in its repository")
        with safe_open(str(file), "np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: copy or download the folder again") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{file} is damaged or cut off ({first_line(error)}): copy or download it again") from None


def read_settings(source: str, name: str, revision: str | None = None) -> dict[str, Any]:
    """The JSON object in a file of a resolved model or adapter; empty where it has no such file.

    Raises:
        ModelError: the file is not a JSON object.
    """
    file: str | None = str(Path(source) / name)
    if not Path(source).is_dir():
        from transformers.utils import cached_file

        with reading(source, f"{name} cannot be read"):
            file = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    if file is None or not os.path.lexists(file):
        return {}
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(settings, dict):
        raise ModelError(f"{file} is damaged: a JSON object is needed")
    return settings


def fingerprint(folder: Path) -> str:
    """A hash of 256 pieces of every weight file: other weights differ everywhere, so a sample tells them apart."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            for at in range(0, size, max(1, size // 256)):
                handle.seek(at)
                digest.update(handle.read(1024))
    return digest.hexdigest()


def is_finite(tensor: Any) -> bool:
    """Whether every number of a tensor is; those of less than 16 bits are not looked at."""
    import torch

    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64) or tensor.is_meta:
        return True
    return bool(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite())


@contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """ModelError for whatever a library raises over a folder's files: they are the user's, or somebody else's."""
    try:
        yield
    except TokenskipError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: {what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an exception says, on one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "custom code" in text:
        text = (
            f"{text[: text.index('custom code') + 11]} of its own. Read it; model.trust_remote_code=true then runs it"
        )
    return text if len(text) <= 300 else f"{text[:300]}…"
