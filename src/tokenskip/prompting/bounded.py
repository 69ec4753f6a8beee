"""Work that somebody else's text decides on, tried in a separate process with limits on time, memory and size.

text = bounded(lambda: tokenizer.apply_chat_template(messages, tokenize=False))

A chat template is a program: nested loops may never end, and a doubled string fills any memory. Inside one operation
of C code nothing but the end of a process stops either, so the first rendering happens in a fork of this one.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable

SECONDS = 5
"""Of CPU time: on a busy machine five by the clock may be none of work."""
MOST_SECONDS = 120
"""By the clock, for work that waits."""
MEMORY_BYTES = 2 * 2**30
"""Beyond what the process has already."""
TEXT_BYTES = 4 * 2**20


class LimitError(Exception):
    """The work failed, or passed a limit; its text says which, in a few words."""


def bounded(work: Callable[[], str]) -> str:
    """What `work` returns, made in a forked process.

    Raises:
        LimitError: it raised, or took more than `SECONDS`, `MEMORY_BYTES` or `TEXT_BYTES`.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads are none of the child's business: it renders, and ends
        process = os.fork()
    if not process:
        os.close(reading)
        _work_in_child(work, writing)
    os.close(writing)
    try:
        raw = _read_all(reading)
    finally:
        os.close(reading)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise LimitError(f"does not end within {SECONDS} s")
    if not raw:
        raise LimitError(f"ended without a word, as when it needs more than {MEMORY_BYTES // 2**30} GiB of memory")
    text = raw[1:].decode("utf-8", "replace")
    if raw[:1] == b"!":
        raise LimitError(text)
    return text


def _work_in_child(work: Callable[[], str], writing: int) -> None:
    """Write b"." and the text, or b"!" and what went wrong, and end the process."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        _limit_memory()
        sys.setrecursionlimit(2000)
        result = b"." + work().encode("utf-8", "replace")
        if len(result) > TEXT_BYTES:
            result = f"!makes more than {TEXT_BYTES // 2**20} MiB of text of one question".encode()
    except MemoryError:
        result = f"!needs more than {MEMORY_BYTES // 2**30} GiB of memory".encode()
    except RecursionError:
        result = b"!calls itself without an end"
    except BaseException as error:
        result = f"!{str(error) or type(error).__name__}"[:500].encode("utf-8", "replace")
    try:
        while result:
            result = result[os.write(writing, result) :]
    finally:
        os._exit(0)  # none of the parent's exit handlers, and nothing of its buffers, is the child's


def _limit_memory() -> None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (OSError, ValueError):  # not Linux, or a lower limit is set already: the time limit is left
        return


def _read_all(reading: int) -> bytes:
    raw, end = bytearray(), time.monotonic() + MOST_SECONDS
    while True:
        if not select.select([reading], [], [], max(end - time.monotonic(), 0))[0]:
            raise LimitError(f"does not end within {MOST_SECONDS} s")
        piece = os.read(reading, 2**16)
        if not piece:
            return bytes(raw)
        raw += piece
