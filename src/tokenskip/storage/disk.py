"""Files as the run folder needs them: whole or not there, or grown by whole lines; never written through a link.

Drafts have names that nobody else's file can have, and lie beside the file that they become. A killed process leaves
at most a draft, which the next one removes, and a torn last line, which `repair` cuts off.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from tokenskip.errors import RunError

_DRAFT = ".tokenskip-"
_BLOCK = 1 << 20


def write_atomically(file: Path, content: str | bytes | Iterable[str]) -> None:
    """Write a whole file, from text, lines or bytes, so that it is either the old one or the new one, never half."""

    def fill(draft: Path) -> None:
        with _open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as out:
            if isinstance(content, bytes):
                out.buffer.write(content)
            else:
                out.writelines((content,) if isinstance(content, str) else content)

    _replace(file, fill)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that the copy is whole or not there."""
    _replace(target, lambda draft: shutil.copyfile(source, draft, follow_symlinks=True))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is complete a second name, or copy it where the disk cannot do that."""
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:
        copy_atomically(source, target)


def append(file: Path, text: str) -> None:
    """Put `text` after what the file holds, after cutting off a torn last line.

    Raises:
        RunError: the disk takes no more; what is written is kept.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _open(file, os.O_RDWR | os.O_CREAT) as out:
            out.buffer.truncate(_end_of_last_line(out.buffer))
            out.seek(0, os.SEEK_END)
            out.write(text)
    except OSError as error:
        raise RunError(
            f"cannot write {file}: {error.strerror}; what is written is kept, the same command continues from there"
        ) from None


def repair(file: Path, limit: int | None = None) -> int:
    """Cut a torn last line off a JSONL file, and all but its first `limit` lines; returns the number of lines left."""
    if not file.exists():
        return 0
    lines = keep = 0
    with _open(file, os.O_RDWR) as handle:
        while (limit is None or lines < limit) and (chunk := handle.buffer.read(_BLOCK)):
            start, at = handle.buffer.tell() - len(chunk), -1
            if limit is None or lines + chunk.count(b"\n") <= limit:
                lines, at = lines + chunk.count(b"\n"), chunk.rfind(b"\n")
            else:
                for _ in range(limit - lines):
                    at = chunk.index(b"\n", at + 1)
                lines = limit
            keep = start + at + 1 if at >= 0 else keep
        handle.buffer.truncate(keep)
    return lines


def count_lines(file: Path) -> int:
    """The number of whole lines."""
    with file.open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(_BLOCK), b""))


def refuse_links(folder: Path) -> None:
    """RunError when a folder that is written to holds a symbolic link, through which other files would be written."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (link := Path(parent, name)).is_symlink():
                raise RunError(
                    f"{link} is a symbolic link, and a run folder is written to: put what it points to in its place, "
                    "or remove it"
                )


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left half written in a folder that this process holds, and in those inside it."""
    for draft in (*folder.glob(f"{_DRAFT}*.tmp"), *folder.glob(f"*/{_DRAFT}*.tmp")):
        draft.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within, this process alone has the folder, which is made where it is missing.

    Raises:
        RunError: another process has it (the message names it), or it cannot be written.
    """
    from filelock import FileLock, Timeout

    file = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        holder = "an unknown process"
        with suppress(OSError):
            holder = file.read_text(encoding="utf-8", errors="replace").strip() or holder
        raise RunError(f"the run folder {folder} is in use by {holder}: wait for it, or stop it") from None
    except OSError as error:
        raise RunError(f"cannot write the run folder {folder}: {error.strerror}; choose another --out") from None
    try:
        with _open(file, os.O_RDWR) as out:
            out.truncate(0)
            out.write(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


def _open(file: Path, flags: int) -> TextIO:
    """A text file, opened with the flags of `os.open`; a symbolic link in its place is an OSError."""
    number = os.open(file, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return os.fdopen(number, "w" if flags & os.O_WRONLY else "r+", encoding="utf-8", newline="\n")


def _replace(file: Path, fill: Callable[[Path], object]) -> None:
    draft = file.with_name(f"{_DRAFT}{secrets.token_hex(8)}.tmp")
    try:
        fill(draft)
        draft.replace(file)
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror}; what was computed before is kept") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _end_of_last_line(handle: Any) -> int:
    """Bytes up to and including the last line break."""
    at = handle.seek(0, os.SEEK_END)
    while at:
        start = max(0, at - _BLOCK)
        handle.seek(start)
        newline = handle.read(at - start).rfind(b"\n")
        if newline >= 0:
            return int(start + newline + 1)
        at = start
    return 0
