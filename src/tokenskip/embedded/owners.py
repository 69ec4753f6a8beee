"""Stories with several owners and a total: problems whose parts do not depend on each other.

Reads nothing, writes nothing. Each owner has a short running-total story of the kind of `family`, and the question
asks how many things they have together. Friends in the events are never owners, so no part changes another. The
splits are those of `family`, by the same hash. Nothing that ships was made with these stories: the embedded model has
never seen one, and the task yields them only where `task.options.owners` asks for it.

A story's solution says who there is, works out each owner on a line, and adds up:

    Tom, Anna
    Tom: 12 + 3 = 15, 15 * 2 = 30
    Anna: 5 + 4 = 9
    So 30 + 9 = 39
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from tokenskip.embedded import words as W
from tokenskip.embedded.family import SPLITS, Event, bucket, capital, draw_events, pronouns
from tokenskip.types import Problem

MOST: Final = 3
"""Owners of a story at most."""
HIGHEST: Final = 40
"""What one owner may have at any time, so that a total has two digits or hardly more."""
QUESTIONS: Final = (
    "How many {o} do they have together?",
    "In the end, how many {o} are there together?",
    "How many {o} do all of them have now?",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What happens to one owner."""

    name: str
    start: int
    events: tuple[Event, ...]

    @property
    def line(self) -> str:
        """The owner's line of the solution."""
        return f"{self.name}: {', '.join(event.equation for event in self.events)}"

    @property
    def after(self) -> int:
        """What the owner has in the end."""
        return self.events[-1].after


def _part(name: str, friends: list[str], rng: random.Random) -> Part:
    while True:
        start = rng.randint(3, 20)
        events = draw_events(start, rng.choice((1, 2)), friends, rng)
        if all(event.after <= HIGHEST for event in events):
            return Part(name=name, start=start, events=events)


def _told(part: Part, thing: str, rng: random.Random) -> str:
    fixed = {"N": part.name, "o": thing, "a": part.start, "x": rng.choice(W.BOXES), **pronouns(part.name)}
    sentences = [rng.choice(W.STARTS).format(**fixed)]
    for event in part.events:
        clause = W.EVENTS[event.kind][1][event.variant].format(
            **{**fixed, "m": part.name}, s=part.name, n=event.operand, f=event.friend
        )
        sentences.append(capital(rng.choice(W.LINKS).format(c=clause)))
    return " ".join(sentences)


def solution(parts: tuple[Part, ...]) -> str:
    """The chain in the form above, without the answer."""
    totals = pairwise(accumulate(part.after for part in parts))
    sums = [f"{a} + {part.after} = {b}" for (a, b), part in zip(totals, parts[1:], strict=True)]
    return "\n".join((", ".join(part.name for part in parts), *(part.line for part in parts), f"So {', '.join(sums)}"))


def _draw(story_id: str, most: int, rng: random.Random) -> Problem:
    names = rng.sample(W.HE + W.SHE, rng.randint(2, most))
    friends = [name for name in W.HE + W.SHE if name not in names]
    parts = tuple(_part(name, friends, rng) for name in names)
    thing = rng.choice(W.THINGS)
    told = [_told(part, thing, rng) for part in parts]
    question = " ".join((*told, rng.choice(QUESTIONS).format(o=thing)))
    total = sum(part.after for part in parts)
    chain = f"{solution(parts)}\n\nThe final answer is {total}."
    return Problem(id=story_id, question=question, gold=str(total), level=str(len(parts)), solution=chain)


def problems(split: str, n: int, most: int = 2, start: int = 0, seed: int = 0) -> Iterator[Problem]:
    """Problems number `start` to `start + n - 1` of a split, of 2 to `most` owners; `level` is how many they are.

    Raises:
        KeyError: the split is not one of `SPLITS`.
    """
    allowed = SPLITS[split]
    for index in range(start, start + n):
        rng = random.Random(f"owners:{split}:{seed}:{index}")
        problem = _draw(f"{split}-owners-{index}", most, rng)
        while bucket(problem.question) not in allowed:
            problem = _draw(problem.id, most, rng)
        yield problem
