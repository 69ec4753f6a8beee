"""Where results go: a file or a folder appears whole or not at all, and nothing that is there already is lost.

The `-o` of every command ends here. A draft lies beside its target under a name that nobody can guess and is opened
with O_EXCL, so that no link and no file of anybody else is ever written to.

    with writing(output, inputs=[source]) as out:
        out.write(text)
    with new_folder(output) as draft:
        ...
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tokenskip.errors import RunError
from tokenskip.storage.store import is_run

OWNED: tuple[str, ...] = (
    "config.json",
    "results.json",
    "calibration.json",
    "report.html",
    "curve.png",
    "ratio.png",
    "example.png",
)
OWNED += ("adapter", "grpo", "checkpoints", "eval", "calibration", "tracking", ".requests", ".lock")
_OWNED_PREFIXES = (
    "candidates",
    "completions",
    "trajectories",
    "scores",
    "pruned",
    "train.jsonl",
    "samples",
    "round-",
    "control-",
)
"""What a run folder keeps its own state in: nothing else may be written there, even where it is not there yet."""


@contextmanager
def writing(target: Path, *, inputs: Iterable[Path] = ()) -> Iterator[TextIO]:
    """An open text file that becomes `target` when all went well; `inputs` are files that it must not replace.

    Raises:
        RunError: as `check_file`; or the disk does not take the file.
    """
    check_file(target, inputs)
    with _in_place(target) as draft:
        number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as out:
            yield out


@contextmanager
def new_folder(target: Path, *, or_empty: bool = False) -> Iterator[Path]:
    """An empty folder that becomes `target` when all went well; with `or_empty` in place of one that is empty.

    Raises:
        RunError: as `check_folder`; or the disk does not take the folder.
    """
    check_folder(target, or_empty=or_empty)
    with _in_place(target) as draft:
        draft.mkdir()
        yield draft


def check_file(target: Path, inputs: Iterable[Path] = ()) -> None:
    """Nothing where a file may be written or replaced; called early, so that no work is done in vain.

    Raises:
        RunError: `target` is a folder, a link, a device or the like, one of `inputs`, or a file of a run folder.
    """
    status = _status(target)
    if status is None:
        return
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"cannot write {target}: it is {_kind(status.st_mode)}; give the name of a file by -o")
    if any(source.exists() and source.samefile(target) for source in inputs):
        raise RunError(f"{target} is the input: give another -o")


def check_folder(target: Path, *, or_empty: bool = False) -> None:
    """Nothing where a folder may be made; called early, so that no work is done in vain.

    Raises:
        RunError: something is there already, or the name belongs to a run folder.
    """
    status = _status(target)
    if status is None:
        return
    if not stat.S_ISDIR(status.st_mode):
        raise RunError(f"cannot write {target}: it is {_kind(status.st_mode)}; give the name of a new folder by -o")
    if not or_empty or any(target.iterdir()):
        raise RunError(f"{target} exists: choose another -o")


def _status(target: Path) -> os.stat_result | None:
    """What is at `target`, a link not followed; None where nothing is. RunError for a name that no disk takes."""
    try:
        for folder in target.absolute().parents:
            first = target.absolute().relative_to(folder).parts[0]
            owned = first in OWNED or first.startswith(_OWNED_PREFIXES)
            if owned and is_run(folder) and any((folder / name).exists() for name in _MARKS):
                raise RunError(f"{target} belongs to the run folder {folder}: give an -o outside of it")
        return target.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise RunError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from None


_MARKS = (".lock", "completions.jsonl", "trajectories.jsonl")
"""What is in every run folder: other programs call their settings `config.json` as well."""


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextmanager
def _in_place(target: Path) -> Iterator[Path]:
    """The name of a draft beside `target`, moved in place at the end; removed where something went wrong."""
    draft = target.absolute().with_name(f".tokenskip-{secrets.token_hex(8)}.tmp")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
