"""The equations that a text states, and whether a pruned chain states one that its original did not. Pure.

    check_pruned("8 × 4 = 32", "8 4 = 32")   # "new equation '8 4 = 32'"
    check_pruned("half of 48 = 24", "48 = 24")   # "false equation '48 = 24'"

An equation is read with its surroundings. One that holds by its numbers alone ("12 + 5 = 17") is the same wherever it
is, unless an operator word lands beside it. One that does not ("48 = 24", "2x + 3 = 11") means what the words of its
clause say, so it is only the original's if those words are there as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from tokenskip.pruning.arithmetic import rounding, value
from tokenskip.pruning.notation import Run, may_state, runs_of
from tokenskip.pruning.vocabulary import (
    FILLERS,
    OPERATOR_WORDS,
    SUFFIX_OPERATORS,
    UNSPACED_OPERATORS,
)

__all__ = ["Equation", "check_pruned", "check_written", "equations", "holds_by_itself", "value"]


@dataclass(frozen=True, slots=True)
class Equation:
    """One stated relation, mostly an equation. A side is its normalised tokens; empty where it has words instead."""

    lhs: str
    rhs: str
    relation: str = "="

    @property
    def holds(self) -> bool | None:
        """Whether both sides have exactly the same value (or are in that relation); None when either has none."""
        left, right = value(self.lhs), value(self.rhs)
        if left is None or right is None:
            return None
        match self.relation:
            case "<" | "≤":
                return left < right or (left == right and self.relation == "≤")
            case ">" | "≥":
                return left > right or (left == right and self.relation == "≥")
            case "≠":
                return left != right
            case "=" | "==" | "≡":
                return left == right
        return abs(Fraction(left - right)) * 20 <= abs(Fraction(right))  # "≈"

    @property
    def holds_rounded(self) -> bool:
        """Whether it holds by its numbers alone, a decimal number on either side taken as rounded: 10 / 3 = 3.33."""
        if self.holds is not False or self.relation not in ("=", "=="):
            return self.holds is True
        left, right = value(self.lhs), value(self.rhs)
        assert left is not None
        assert right is not None
        return abs(Fraction(left - right)) <= max(rounding(self.lhs), rounding(self.rhs))

    def __str__(self) -> str:
        return f"{self.lhs} {self.relation} {self.rhs}".strip()


_MAX_SIDES = 32  # of longer chains of equalities only the neighbours count


class Statement(NamedTuple):
    """An equation and its place in the text."""

    equation: Equation
    run: Run

    @property
    def is_self_contained(self) -> bool:
        """Whether it holds by its numbers alone, and begins with a calculation.

        One that begins with a number ("2 = 1 + 1") may be the end of another: "half of the sum of 2 and 2 = 1 + 1".
        """
        return " " in self.run.first_side() and self.equation.holds_rounded


def equations(text: str) -> list[Equation]:
    """All equations in `text` in reading order; `a = b = c` is two. Calculator notes (`<<2+3=5>>`) come last."""
    return [statement.equation for statement in statements(text) if statement.equation.relation == "="]


def holds_by_itself(text: str) -> bool:
    """Whether every relation that `text` states holds by its numbers alone (decimals rounded), and there is one."""
    stated = statements(text)
    return bool(stated) and all(statement.is_self_contained for statement in stated)


def check_pruned(original: str, pruned: str) -> str | None:
    """Why `pruned` must not be trained on, or None: it states an equation that `original` does not, or a false one.

    What is directly left and right of an equation counts as part of it, so a lost operator shows ("8 4 = 32"), and
    so do the words of its clause where it does not hold by its numbers ("half of 48 = 24"). `a = c` is stated by
    `a = b = c`. A false equation that the original states in the same words passes: it is not the pruner's fault.
    """
    return next(_unlike(original, pruned), None)


def check_written(original: str, written: str) -> str | None:
    """Why a chain that a model wrote must not be trained on, or None: it states a false equation of its own.

    New ones that hold are another way to the same answer; `original` excuses what it says in the same words.
    """
    return next((reason for reason in _unlike(original, written) if reason.startswith("false")), None)


def _unlike(original: str, text: str) -> Iterator[str]:
    """What `text` states and `original` does not."""
    if not may_state(text):
        return
    stated = _stated(original)
    for statement in statements(text):
        equation = statement.equation
        originals = stated.get(equation, ())
        if not any(_says_the_same(statement, other) for other in originals):
            yield f"{'false' if equation.holds is False else 'new'} equation '{equation}'"


def _says_the_same(pruned: Statement, original: Statement) -> bool:
    """Whether the words around the same equation let it say the same."""
    seen_before, before = pruned.run.before(), original.run.before()
    seen_after, after = pruned.run.after(), original.run.after()
    operators, suffix = _operators_at_end(before), _first_suffix(after)
    if pruned.is_self_contained and not operators and not suffix:
        return not _operators_at_end(seen_before) and not _first_suffix(seen_after)
    before, after, seen_before, seen_after = map(_meaningful, (before, after, seen_before, seen_after))
    n_before, n_after = len(before), len(after)
    return (
        (not n_before or seen_before[-n_before:] == before)
        and seen_after[:n_after] == after
        and _meaningful(pruned.run.inside) == _meaningful(original.run.inside)
        and not any(map(_is_operator, seen_before[: len(seen_before) - n_before]))
        and not _first_suffix(seen_after[n_after:])
    )


def _meaningful(words: list[str]) -> list[str]:
    return [word for word in words if word.lower() not in FILLERS]


def _operators_at_end(words: list[str]) -> list[str]:
    """The operator words that end `words`, those that directly precede an equation."""
    first = len(words)
    while first and _is_operator(words[first - 1]) and not words[first - 1][:1].isdigit():
        first -= 1
    after_number = first > 0 and words[first - 1][:1].isdigit()
    if words[first : first + 1] == ["of"] and not after_number:
        first += 1  # "the cost of", which calculates nothing
    if first == len(words) > 1 and words[-1] == "and" and words[-2][:1].isdigit():
        first -= 1  # "the sum of 4 and"
    return words[first:]


def _first_suffix(words: list[str]) -> str | None:
    """The word that directly follows an equation, where it changes the number before it."""
    return words[0] if words and (words[0].lower() in SUFFIX_OPERATORS or words[0] in UNSPACED_OPERATORS) else None


def _is_operator(word: str) -> bool:
    return word.lower() in OPERATOR_WORDS or word[:1].isdigit() or word[0] in UNSPACED_OPERATORS or word in "√∛%"


@lru_cache(maxsize=4)  # a chain is checked once per ratio
def _stated(text: str) -> dict[Equation, list[Statement]]:
    """Every equation that `text` states, `a = c` of `a = b = c` as well, with the statements of it."""
    stated: dict[Equation, list[Statement]] = {}
    for run in runs_of(text):
        sides, relations = run.sides()
        for index, left in enumerate(sides):
            for later in range(index + 1, len(sides) if len(sides) <= _MAX_SIDES else min(index + 2, len(sides))):
                between = set(relations[index:later])
                if later == index + 1 or between == {"="}:
                    equation = Equation(left, sides[later], relations[index])
                    stated.setdefault(equation, []).append(Statement(equation, run))
    return stated


def statements(text: str) -> list[Statement]:
    """All relations that `text` states, with their surroundings."""
    return [
        Statement(Equation(left, right, relation), run)
        for run in runs_of(text)
        for sides, relations in [run.sides()]
        for (left, right), relation in zip(pairwise(sides), relations, strict=True)
    ]
