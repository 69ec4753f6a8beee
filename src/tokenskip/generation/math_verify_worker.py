"""The process that runs math-verify on model text, so that no answer can hang, fill or stop the caller.

Not for import: `math_verify.MathVerify` starts it by its file name. Reads `{"gold": ..., "answer": ..., "limit_s": …}`
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

DIGITS = 40
"""Of numbers that are compared; exact ones that agree in nearly all of them are equal."""

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


def _warm_up() -> None:
    """Run once what sympy imports while it simplifies, solves and compares sets: some of it evaluates text of
    sympy's own.

    After the lock that would fail, and with it every comparison that needs `simplify` (`x^2-1` and `(x-1)(x+1)`).
    """
    from sympy import Interval, Symbol, cos, factorial, log, oo, simplify, sin, solve, sqrt
    from sympy.solvers.inequalities import reduce_inequalities

    x, y = Symbol("x"), Symbol("y")
    for expression in (x**2 - 1 - (x - 1) * (x + 1), sin(x) ** 2 + cos(x) ** 2 - 1, sqrt(8) - 2 * sqrt(2), log(x**2)):
        simplify(expression)
    simplify(factorial(x) / factorial(x - 1) - x)
    solve(2 * x + 4 * y - 3, x)
    reduce_inequalities([x > 2], x)
    (x > 2).as_set().symmetric_difference(Interval(0, oo))


def _close_to(tolerance: Callable[[Any, Any], float]) -> Callable[..., bool]:
    """In place of math-verify's numeric comparison, which rounds at the 6th decimal: 10^{-20} would be 10^{-21}.

    Numbers are equal when they differ by less than a relative tolerance; nothing else is compared numerically.
    """
    from sympy import MatrixBase

    def numeric_eq(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
        a, b = (side.doit() if hasattr(side, "doit") else side for side in (a, b))
        if isinstance(a, MatrixBase) and isinstance(b, MatrixBase):
            return a.shape == b.shape and all(
                numeric_eq(one, other, float_rounding, numeric_precision) or (one - other).simplify() == 0
                for one, other in zip(a.flat(), b.flat(), strict=True)
            )
        if a == b:
            return True
        if not (getattr(a, "is_number", False) and getattr(b, "is_number", False)):
            return False
        left, right = a.evalf(DIGITS), b.evalf(DIGITS)
        if not (left.is_finite and right.is_finite):  # 1/0 is not near anything
            return False
        return bool(abs(left - right) <= tolerance(a, b) * max(abs(left), abs(right)))

    return numeric_eq


def _equal_otherwise(gold: Any, answer: Any) -> bool:
    """What math-verify misses: inequalities with the same solutions, the imaginary unit, quotients of factorials."""
    from sympy import Expr, I, combsimp, factorial
    from sympy.core.relational import Relational

    try:
        if isinstance(gold, Relational) and isinstance(answer, Relational):
            same_symbols = gold.free_symbols == answer.free_symbols
            return bool(same_symbols and len(gold.free_symbols) == 1 and gold.as_set() == answer.as_set())
        if isinstance(gold, Expr) and isinstance(answer, Expr):
            units = [symbol for symbol in gold.free_symbols | answer.free_symbols if str(symbol) == "i"]
            if units:
                gold, answer = (side.subs(dict.fromkeys(units, I)) for side in (gold, answer))
                return bool((gold - answer).doit().simplify() == 0)
            if gold.has(factorial) or answer.has(factorial):
                return bool(combsimp(gold.doit() - answer.doit()) == 0)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        pass
    return False


def _tolerance(a: Any, b: Any) -> float:
    from sympy import Float

    return 1e-4 if a.has(Float) or b.has(Float) else 10.0 ** (5 - DIGITS)


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
    from math_verify import LatexExtractionConfig, grader, parse, verify
    from sympy.parsing import sympy_parser

    grader.sympy_numeric_eq = _close_to(_tolerance)
    _warm_up()
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
                equal = bool(verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True))
                equal = equal or _equal_otherwise(gold[0], answer[0])
        except BaseException:  # math-verify's own TimeoutException is a BaseException, too
            equal = None
        _arm(0)
        tell({"equal": equal})


if __name__ == "__main__":
    main()
