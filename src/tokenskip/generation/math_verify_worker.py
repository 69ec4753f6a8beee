"""The process that runs math-verify on model text, so that no answer can hang, fill or stop the caller.

Not for import: `answers.MathVerifier` starts it by its file name. Reads `{"gold": ..., "answer": ..., "limit_s": ...}`
lines on stdin, writes `{"equal": true|false|null}` lines to stdout (null: failed), and first `{"ready": true}`.

    echo '{"gold": "1/2", "answer": "0.5", "limit_s": 3}' | python -P src/tokenskip/generation/math_verify_worker.py
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

MEMORY_BYTES = 2 * 2**30
"""What the worker may take beyond what it holds after its imports."""

_NUMBER_CODE = re.compile(r"\s*[-+]?\s*(?:Integer|Float)\s*\(\s*'?[\d.]+'?\s*\)\s*")


def _own_stdout() -> IO[str]:
    """The real stdout for the protocol; everything else that prints (antlr does) goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return out


def _limit_memory() -> None:
    """Bound the address space; where the system cannot (Windows, macOS), the time limit is what is left."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as statm:
            held = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))


def _only_numbers(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """sympy's evaluation of Python text, narrowed to one number (`Integer (5 )`): LaTeX needs no more of it."""

    def narrowed(code: str, *args: Any) -> Any:
        if not _NUMBER_CODE.fullmatch(code):
            raise ValueError("text is not evaluated")
        return evaluate(code, *args)

    return narrowed


def _arm(seconds: float) -> None:
    """End this process once it has computed for so long (0: never); where that cannot be set, the parent ends it."""
    if hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Serve until stdin ends."""
    out = _own_stdout()
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy.parsing import sympy_parser

    # sympy reads plain strings with Python's eval; LaTeX goes through a grammar. Only the latter is asked for below,
    # and of the former it needs the numbers: the rest is closed for any way that leads there.
    sympy_parser.eval_expr = _only_numbers(sympy_parser.eval_expr)
    config = [LatexExtractionConfig()]
    _limit_memory()

    def tell(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    tell({"ready": True})
    for line in sys.stdin:
        equal: bool | None = None
        try:
            request = json.loads(line)
            _arm(request["limit_s"])
            # a raw gold string is read as prose and goes wrong (108 of 500 on MATH-500): both sides go into a box
            gold, answer = (
                parse(f"\\boxed{{{request[side]}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
                for side in ("gold", "answer")
            )
            if gold and answer:
                equal = bool(verify(gold, answer, timeout_seconds=None))
        except BaseException:  # math-verify's own TimeoutException is a BaseException, too
            equal = None
        _arm(0)
        tell({"equal": equal})


if __name__ == "__main__":
    main()
