"""The procedural problem family: running-total stories in English with exact answers.

Reads nothing, writes nothing. A story is a start value and k = 2-4 events (add, take away, double, triple, halve); the
same split, seed and index always give the same story. Splits cannot share a question: a stable hash of the normalised
question decides to which split it may belong, and a story drawn for another split is drawn again.
"""

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokenskip.embedded import words as W
from tokenskip.types import Problem

# split -> range of question buckets (of 100) that it may use; disjoint by construction
SPLITS: Final[dict[str, range]] = {
    "pretrain": range(76),
    "train": range(76, 88),
    "dev": range(88, 92),
    "test": range(92, 100),
}
STEP_COUNTS: Final = (2, 3, 4)
STEP_WEIGHTS: Final = (0.25, 0.4, 0.35)
LOW, HIGH = 1, 99
OPERATIONS: Final = {"+": 0.33, "-": 0.33, "*2": 0.13, "*3": 0.08, "/2": 0.13}
KINDS: Final = {op: [kind for kind, (o, _, _) in W.EVENTS.items() if o == op] for op in OPERATIONS}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a story: `before` (op) `operand` = `after`."""

    kind: str
    variant: int
    op: str
    operand: int
    before: int
    after: int
    friend: str

    @property
    def equation(self) -> str:
        """The step as `12 + 5 = 17`."""
        return f"{self.before} {self.op[0]} {self.operand} = {self.after}"


@dataclass(frozen=True, kw_only=True)
class Story:
    """A problem with its structure, from which any chain of thought can be written."""

    id: str
    name: str
    thing: str
    start: int
    events: tuple[Event, ...]
    question: str

    @property
    def answer(self) -> int:
        """The exact final count."""
        return self.events[-1].after

    def problem(self) -> Problem:
        """The story as the record that every stage uses; `level` is the number of steps."""
        return Problem(id=self.id, question=self.question, gold=str(self.answer), level=str(len(self.events)))


def bucket(question: str) -> int:
    """0-99 from the question's normalised text (case, spaces and punctuation do not count)."""
    normal = " ".join(re.findall(r"[a-z0-9]+", question.lower()))
    return zlib.crc32(normal.encode()) % 100


def pronouns(name: str) -> dict[str, str]:
    """Template values `p`, `m`, `h` (he/him/his or she/her/her) for a name."""
    he = name in W.HE
    return {"p": "he" if he else "she", "m": "him" if he else "her", "h": "his" if he else "her"}


def capital(text: str) -> str:
    """The text with its first letter raised, after any markup; a number at the start stays."""
    match = re.search(r"[A-Za-z0-9]", text)
    at = match.start() if match else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def _apply(op: str, before: int, rng: random.Random) -> tuple[int, int]:
    """(operand, after) for one operation; `after` may be out of bounds."""
    if op == "+":
        operand = rng.randint(2, 9)
        return operand, before + operand
    if op == "-":
        operand = rng.randint(2, 9)
        return operand, before - operand
    operand = int(op[1])
    if op == "/2":
        return operand, before // 2 if before % 2 == 0 else 0
    return operand, before * operand


def draw_events(start: int, count: int, friends: Sequence[str], rng: random.Random) -> tuple[Event, ...]:
    """`count` events that follow each other from `start` things on, with one of `friends` in each."""
    events: list[Event] = []
    total = start
    while len(events) < count:
        op = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        operand, after = _apply(op, total, rng)
        kind = rng.choice(KINDS[op])
        if not LOW <= after <= HIGH or (events and events[-1].kind == kind):
            continue
        variant = rng.randrange(2)
        friend = rng.choice(friends)
        events.append(
            Event(kind=kind, variant=variant, op=op, operand=operand, before=total, after=after, friend=friend)
        )
        total = after
    return tuple(events)


def _question(name: str, thing: str, start: int, events: tuple[Event, ...], rng: random.Random) -> str:
    fixed = {"N": name, "o": thing, "a": start, "x": rng.choice(W.BOXES), **pronouns(name)}
    parts = [rng.choice(W.STARTS).format(**fixed)]
    if rng.random() < 0.4:
        parts.insert(0, rng.choice(W.SCENES).format(**fixed))
    for event in events:
        subject = name if rng.random() < 0.4 else fixed["p"]
        clause = W.EVENTS[event.kind][1][event.variant]
        clause = clause.format(**fixed, s=subject, n=event.operand, f=event.friend)
        parts.append(capital(rng.choice(W.LINKS).format(c=clause)))
    parts.append(rng.choice(W.QUESTIONS).format(**fixed))
    return " ".join(parts)


def _draw(story_id: str, rng: random.Random) -> Story:
    name, thing = rng.choice(W.HE + W.SHE), rng.choice(W.THINGS)
    start = rng.randint(3, 50)
    count = rng.choices(STEP_COUNTS, STEP_WEIGHTS)[0]
    events = draw_events(start, count, [other for other in W.HE + W.SHE if other != name], rng)
    question = _question(name, thing, start, events, rng)
    return Story(id=story_id, name=name, thing=thing, start=start, events=events, question=question)


def stories(split: str, n: int, start: int = 0, seed: int = 0) -> Iterator[Story]:
    """Stories number `start` to `start + n - 1` of a split.

    Raises:
        KeyError: the split is not one of `SPLITS`.
    """
    allowed = SPLITS[split]
    for index in range(start, start + n):
        rng = random.Random(f"{split}:{seed}:{index}")
        story = _draw(f"{split}-{index}", rng)
        while bucket(story.question) not in allowed:
            story = _draw(story.id, rng)
        yield story


def problems(split: str, n: int, start: int = 0, seed: int = 0) -> Iterator[Problem]:
    """Problems number `start` to `start + n - 1` of a split (`pretrain`, `train`, `dev` or `test`)."""
    for story in stories(split, n, start, seed):
        yield story.problem()
