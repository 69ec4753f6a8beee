"""Joins of versions of one solution: the first steps of a longer one, then the remaining steps of a shorter one. Pure.

    splices("He has 4.\nHe buys 2, and so 4 + 2 = 6.\nHe eats one: 6 - 1 = 5.", ["4 + 2 = 6\n6 - 1 = 5\n\nSo 5."])
    # ["He has 4.\n4 + 2 = 6\n6 - 1 = 5\n\nSo 5.", "He has 4.\nHe buys 2, and so 4 + 2 = 6.\n6 - 1 = 5\n\nSo 5.", …]

Versions are joined that state the same equations in the same order, and only where both have stated as many of them.
So a join calculates what they do, and each of its sentences stands in one of them. Only neighbours in length are
joined: of two manners at the same length a model would have to learn both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tokenskip.pruning.atoms import split_units
from tokenskip.pruning.equations import Equation, equations

MOST = 16
"""Joins of one chain, evenly over their lengths: those of a thought of hundreds of steps would fill the disk."""
Version = tuple[str, tuple[Equation, ...], dict[int, int]]
"""A text, its equations, and number of equations stated -> where the step begins that states the next one, or, after
all of them, where the last one ends."""


def splices(whole: str, shorter: Sequence[str]) -> list[str]:
    """The joins of `whole` with the longest of `shorter`, of that with the next, and so on; from short to long.

    Of `shorter` those count that state the equations of `whole`; nothing can be joined where it states none.
    """
    first = _version(whole)
    same = [version for version in map(_version, dict.fromkeys(shorter)) if version[1] == first[1]]
    below = sorted((one for one in same if len(one[0]) < len(whole)), key=lambda one: len(one[0]), reverse=True)
    joins = [text for longer, short in pairwise([first, *below]) for text in _joins(longer, short)]
    found = sorted(set(joins) - {whole, *shorter}, key=lambda text: (len(text), text)) if first[1] else []
    return found[:: -(-len(found) // MOST) or 1]


def _joins(longer: Version, shorter: Version) -> Iterator[str]:
    for stated, end in longer[2].items():
        begin = shorter[2].get(stated)
        if begin is not None and longer[0][end:].strip():
            yield longer[0][:end] + shorter[0][begin:]


def _version(text: str) -> Version:
    stated: list[Equation] = []
    places: dict[int, int] = {}
    for start, end in split_units(text, "step", atoms=True):
        found = equations(text[start:end])
        if found:
            places[len(stated)] = start  # white space and steps without an equation stay with what is before them
            stated += found
            places[len(stated)] = end
    return text, tuple(stated), places
