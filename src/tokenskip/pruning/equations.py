"""The equations that a text states, and whether a pruned chain states one that its original did not. Pure.

    check_pruned("8 × 4 = 32", "8 4 = 32")   # "new equation '8 4 = 32'"

Values are exact (`Fraction`) and come from a small bounded parser of our own: text from a model is never evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

_MAX_TOKENS = 200
_MAX_DEPTH = 32
_MAX_EXPONENT = 64
_MAX_BITS = 4096
_MAX_DIGITS = 40

_NOTE = re.compile(r"<<([^<>\n]{0,200})>>")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]{0,300})\}\s*\{([^{}]{0,300})\}")
_FLATTEN = (  # what a text must hold for the pattern to find something, pattern, replacement
    ("", re.compile(r"(?m)^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+"), ""),  # list markers are no signs
    ("**", re.compile(r"(?<!\d)(?<!\d )\*\*|\*\*(?! ?\d)"), ""),  # bold, unless it is a power
    ("", re.compile(r"\\(?:left|right|quad|,|;|!|:|displaystyle)(?![A-Za-z])|\\[()\[\]]|&|\$|[€£¥]"), " "),
    ("\\", re.compile(r"\\(?:text|mathrm|mathbf|boxed|textbf)\s*\{([^{}]{0,300})\}"), r" \1 "),
    ("{,}", re.compile(r"\{,\}"), ","),
    ("\\", re.compile(r"\\%"), "%"),
    ("\\", re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    ("\\", re.compile(r"\\div(?![A-Za-z])"), "/"),
    ("^", re.compile(r"\^\s*\{([^{}]{0,100})\}"), r"^(\1)"),
)
_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)%?)"
    r"|(?P<times>[xX](?=[ \t]*[\d(.])(?<![^\W\d_][xX]))"
    r"|(?P<verb>(?:equals|plus|minus|times|(?:divided|multiplied)[ ]by)(?!\w))"
    r"|(?P<variable>(?!(?:a|A|I)\b)[A-Za-z](?![\w'’]))"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<word>[^\W\d_][\w'’\-]*)"
    r"|(?P<equals>(?<![<>!=])=(?!=))"
    r"|(?P<op>\*\*|[+\-−–*/×÷·∙⋅^])"
    r"|(?P<bracket>[(){}\[\]])"
    r"|(?P<other>\S)"
)
_SPELLINGS = {
    "plus": "+", "minus": "-", "times": "*", "equals": "=", "divided by": "/", "multiplied by": "*", "x": "*", "X": "*",
    "−": "-", "–": "-", "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "**": "^",
}  # fmt: skip
_MATH = frozenset(("number", "times", "verb", "variable", "command", "equals", "op", "bracket"))
_MAX_SIDES = 32  # of longer chains only the neighbours count
_UNIT_WORDS = 3


@dataclass(frozen=True, slots=True)
class Equation:
    """One stated equation. Each side is its normalised tokens with spaces between; empty where words stand there."""

    lhs: str
    rhs: str

    @property
    def holds(self) -> bool | None:
        """Whether both sides have exactly the same value; None when either is not plain arithmetic."""
        left, right = value(self.lhs), value(self.rhs)
        return None if left is None or right is None else left == right

    def __str__(self) -> str:
        return f"{self.lhs} = {self.rhs}".strip()


def equations(text: str) -> list[Equation]:
    """All equations in `text` in reading order; `a = b = c` is two. Calculator notes (`<<2+3=5>>`) come last."""
    return [Equation(*pair) for sides in _chains(text) for pair in pairwise(sides)]


def check_pruned(original: str, pruned: str) -> str | None:
    """Why `pruned` must not be trained on, or None: it states an equation that `original` does not, or a false one.

    What stands directly left and right of an equation counts as part of it, so a lost operator shows ("8 4 = 32").
    `a = c` is stated by `a = b = c`. A false equation that the original states in the same words passes: it is not the
    pruner's fault.
    """
    if "=" not in pruned and "equals" not in pruned:
        return None
    stated = _stated(original)
    for equation in equations(pruned):
        if equation not in stated:
            return f"{'false' if equation.holds is False else 'new'} equation '{equation}'"
    return None


@lru_cache(maxsize=4)  # a chain is checked once per ratio
def _stated(text: str) -> frozenset[Equation]:
    return frozenset(
        Equation(left, right)
        for sides in _chains(text)
        for index, left in enumerate(sides)
        for right in (sides[index + 1 :] if len(sides) <= _MAX_SIDES else sides[index + 1 : index + 2])
    )


def value(side: str) -> Fraction | None:
    """The exact value of one side of an equation; None when it is not plain arithmetic of bounded size."""
    tokens = side.split()
    if not tokens or len(tokens) > _MAX_TOKENS:
        return None
    try:
        return _Parser(tokens).whole()
    except (_NotArithmeticError, ZeroDivisionError):
        return None


def _chains(text: str) -> list[list[str]]:
    """For every run of mathematics with an equals sign: its sides."""
    notes = [note.group(1) for note in _NOTE.finditer(text)] if "<<" in text else []
    chains: list[list[str]] = []
    for part in (_NOTE.sub("", text) if notes else text, *notes):
        if "=" in part or "equals" in part:
            for line in _LINE_END.split(_flatten(part)):  # no equation goes over the end of a line
                if "=" not in line and "equals" not in line:
                    continue
                for run in _runs(line):
                    if "=" in run:
                        sides = " ".join(run).split("=")
                        chains.append([side.strip() for side in sides])
    return chains


_LINE_END = re.compile(r"[\r\n]+")


def _flatten(text: str) -> str:
    for mark, pattern, replacement in _FLATTEN:
        if mark in text:
            text = pattern.sub(replacement, text)
    for _ in range(4 if "\\" in text else 0):  # fractions in fractions
        text, n_found = _FRACTION.subn(r" ((\1)/(\2)) ", text)
        if not n_found:
            break
    return text


def _runs(line: str) -> list[list[str]]:
    """Maximal sequences of normalised mathematical tokens; words between an operand and its operator are skipped."""
    runs: list[list[str]] = [[]]
    n_words = 0  # unit words behind the last operand of the current run
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup
        if kind in _MATH:
            joins = kind in ("op", "equals", "verb", "times")
            if n_words and not joins:
                runs.append([])
            n_words = 0
            runs[-1].append(_normal(match.group()))
        elif kind == "word" and runs[-1] and _ends_operand(runs[-1][-1]) and n_words < _UNIT_WORDS:
            n_words += 1
        elif runs[-1]:
            runs.append([])
            n_words = 0
    return runs


def _ends_operand(token: str) -> bool:
    return token[0].isalnum() or token in ")]}"


def _normal(token: str) -> str:
    if token.isascii() and token.isdigit():
        return token
    if token[0] in "0123456789." and len(token) <= _MAX_DIGITS:
        token = token.replace(",", "")
        percent = "%" if token.endswith("%") else ""
        digits = token.removesuffix("%")
        if "." in digits:
            digits = digits.rstrip("0").rstrip(".") or "0"
            digits = "0" + digits if digits.startswith(".") else digits
        return digits + percent
    return _SPELLINGS.get(token, token)


class _NotArithmeticError(Exception):
    """The tokens are not an expression, or it is too large."""


class _Parser:
    """Recursive descent over + - * / ^ and parentheses; the size of every value is bounded."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Fraction:
        result = self._sum()
        if self._next != len(self._tokens):
            raise _NotArithmeticError
        return result

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _sum(self) -> Fraction:
        result = self._product()
        while (operator := self._peek()) in ("+", "-"):
            self._next += 1
            operand = self._product()
            result = self._bounded(result + operand if operator == "+" else result - operand)
        return result

    def _product(self) -> Fraction:
        result = self._power()
        while (operator := self._peek()) in ("*", "/", "("):
            self._next += operator != "("  # 2(3 + 4)
            operand = self._power()
            result = self._bounded(result / operand if operator == "/" else result * operand)
        return result

    def _power(self) -> Fraction:
        if self._peek() in ("+", "-"):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise _NotArithmeticError
            sign = -1 if self._peek() == "-" else 1
            self._next += 1
            result = sign * self._power()
            self._depth -= 1
            return result
        base = self._operand()
        if self._peek() != "^":
            return base
        self._next += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotArithmeticError
        exponent = self._power()
        self._depth -= 1
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT or size * abs(exponent) > _MAX_BITS:
            raise _NotArithmeticError
        return base ** int(exponent)

    def _operand(self) -> Fraction:
        token = self._peek()
        self._next += 1
        if token == "(":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise _NotArithmeticError
            result = self._sum()
            if self._peek() != ")":
                raise _NotArithmeticError
            self._next += 1
            self._depth -= 1
            return result
        digits = token.removesuffix("%")
        if len(token) > _MAX_DIGITS or not re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", digits):
            raise _NotArithmeticError
        return Fraction(digits) / (100 if token.endswith("%") else 1)

    @staticmethod
    def _bounded(result: Fraction) -> Fraction:
        if max(result.numerator.bit_length(), result.denominator.bit_length()) > _MAX_BITS:
            raise _NotArithmeticError
        return result
