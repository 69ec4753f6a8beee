"""math-verify in a separate process: what it takes in time and memory is bounded, and it can be ended.

Reads and writes nothing but its pipe. The process starts at the first question, is replaced after a timeout, and ends
with this one (also when this one is killed: its stdin ends). Its time is CPU time, so that a busy machine grades as an
idle one does. It is a plain subprocess and not a `multiprocessing`
child, which would import the caller's main module once more.

    from tokenskip.answers.math_verify import math_verify

    math_verify().equal("x^2-1", "(x-1)(x+1)")
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LIMIT_S = 3.0
PATIENCE = 20
"""Times the limit by the clock, for a process that computes nothing, or a system without timers of CPU time."""
START_S = 120.0
"""Importing sympy takes a second, or a minute on a machine with a slow disk and much to do."""


class MathVerify:
    """Asks math-verify in another process; one question at a time, from any thread."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._known: dict[tuple[str, str], bool | None] = {}

    def equal(self, answer: str, gold: str) -> bool | None:
        """Whether the two are equal; None when that took `limit_s` of CPU time or the process died over it."""
        with self._lock:
            if (answer, gold) not in self._known:
                if len(self._known) > 10_000:
                    self._known.clear()
                self._known[answer, gold] = self._ask(answer, gold)
            return self._known[answer, gold]

    def close(self) -> None:
        """End the process; the next question starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # a question may still wait in a broken pipe
                    pipe.close()

    def _ask(self, answer: str, gold: str) -> bool | None:
        process = self._process or self._start()
        assert process.stdin
        try:
            process.stdin.write(json.dumps({"answer": answer, "gold": gold, "limit_s": self.limit_s}) + "\n")
            process.stdin.flush()
        except OSError:  # it died between two questions: out of memory, or ended from outside
            self.close()
            return None
        reply = self._read(PATIENCE * self.limit_s)
        if reply is None:
            self.close()
            return None
        return bool(reply["equal"])  # what cannot be parsed is not equal

    def _start(self) -> subprocess.Popen[str]:
        # -P: the folder of the worker holds a types.py, which must not hide Python's own
        command = [sys.executable, "-P", str(Path(__file__).with_name("math_verify_worker.py"))]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
        lines: queue.Queue[str | None] = queue.Queue()
        self._process, self._lines = process, lines

        def read() -> None:
            assert process.stdout
            try:
                for line in process.stdout:
                    lines.put(line)
            except ValueError:  # closed while reading
                pass
            finally:
                lines.put(None)

        threading.Thread(target=read, daemon=True, name="math-verify").start()
        if self._read(START_S) is None:
            self.close()
            raise RuntimeError(f"the grading process did not start: {' '.join(command)}")
        return process

    def _read(self, limit_s: float) -> dict[str, Any] | None:
        """The next message; None after `limit_s` or at the end of the process."""
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            return None
        return dict(json.loads(line)) if line is not None else None


_processes: dict[int, MathVerify] = {}


def math_verify() -> MathVerify:
    """The one math-verify process of this process (a forked child gets its own: a pipe cannot be shared)."""
    return _processes.setdefault(os.getpid(), MathVerify())


def close_math_verify() -> None:
    """End the grading process of this process, if there is one; it starts again when needed."""
    math_verify().close()


atexit.register(close_math_verify)
