"""The exact value of plain arithmetic, by a small bounded parser: text from a model is never evaluated. Pure.

    value("( 2 + 3 ) * 4")   # Fraction(20, 1)

Sides come normalised (`tokenskip.pruning.equations`): tokens with spaces between, operators `+ - * / ^ !`. Numbers are
written `1200`, `0.5`, `25%`; everything else (a variable, a word, two numbers side by side) has no value.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 40
_MAX_TOKENS = 200
_MAX_DEPTH = 32
_MAX_EXPONENT = 64
_MAX_FACTORIAL = 50
_MAX_BITS = 4096
_NUMBER = re.compile(r"[0-9]+(?:\.([0-9]+))?(%)?")


Number = int | Fraction
"""Exact; an int wherever that is possible, which is several times faster."""


@lru_cache(maxsize=8192)  # the same sides are met when a chain is divided, and again when its cuts are checked
def value(side: str) -> Number | None:
    """The exact value of one side of an equation; None when it is not plain arithmetic of bounded size."""
    tokens = side.split()
    if not tokens or len(tokens) > _MAX_TOKENS:
        return None
    try:
        return _Parser(tokens).whole()
    except (_NotArithmeticError, ZeroDivisionError):
        return None


def rounding(side: str) -> Fraction:
    """How far a number that is written with decimals may be from what it rounds: 1/2 of its last place; else 0."""
    match = _NUMBER.fullmatch(side.removeprefix("- "))
    if not match or len(side) > MAX_DIGITS or not (match[1] or match[2]):
        return Fraction(0)  # a whole number is exact: "7 / 2 = 3" is no rounding
    places = len(match[1] or "") + (2 if match[2] else 0)
    return Fraction(1, 2 * 10**places)


class _NotArithmeticError(Exception):
    """The tokens are not an expression, or it is too large."""


class _Parser:
    """Recursive descent over + - * / ^ ! and parentheses; the size of every value is bounded."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Number:
        result = self._sum()
        if self._next != len(self._tokens):
            raise _NotArithmeticError
        return result

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotArithmeticError

    def _sum(self) -> Number:
        result = self._product()
        while (operator := self._peek()) in ("+", "-"):
            self._next += 1
            operand = self._product()
            result = self._bounded(result + operand if operator == "+" else result - operand)
        return result

    def _product(self) -> Number:
        result = self._power()
        while (operator := self._peek()) in ("*", "/", "("):
            self._next += operator != "("  # 2(3 + 4)
            operand = self._power()
            result = self._bounded(Fraction(result) / operand if operator == "/" else result * operand)
        return result

    def _power(self) -> Number:
        if self._peek() in ("+", "-"):
            self._deeper()
            sign = -1 if self._peek() == "-" else 1
            self._next += 1
            result = sign * self._power()
            self._depth -= 1
            return result
        base = self._operand()
        while self._peek() == "!":
            self._next += 1
            if base.denominator != 1 or not 0 <= base <= _MAX_FACTORIAL:
                raise _NotArithmeticError
            base = math.factorial(int(base))
        if self._peek() != "^":
            return base
        self._next += 1
        self._deeper()
        exponent = self._power()
        self._depth -= 1
        power = int(exponent)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if power != exponent or abs(power) > _MAX_EXPONENT or size * abs(power) > _MAX_BITS:
            raise _NotArithmeticError
        return Fraction(base) ** power

    def _operand(self) -> Number:
        token = self._peek()
        self._next += 1
        if token == "(":
            self._deeper()
            result = self._sum()
            if self._peek() != ")":
                raise _NotArithmeticError
            self._next += 1
            self._depth -= 1
            return result
        if len(token) <= MAX_DIGITS and token.isascii() and token.isdigit():
            return int(token)
        if len(token) > MAX_DIGITS or not _NUMBER.fullmatch(token):
            raise _NotArithmeticError
        return Fraction(token.removesuffix("%")) / (100 if token.endswith("%") else 1)

    @staticmethod
    def _bounded(result: Number) -> Number:
        if max(result.numerator.bit_length(), result.denominator.bit_length()) > _MAX_BITS:
            raise _NotArithmeticError
        return result
