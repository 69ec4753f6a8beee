"""Solved problems as token ids, and batches of them to train on: what the families here learn from. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tokenskip.errors import ModelError
from tokenskip.prompting.prompts import Prompts, example_answer
from tokenskip.types import Trajectory

IGNORE = -100
"""The label of a position that nothing is learned from."""
EQUATION = re.compile(r"\d+(?: [-+*/] \d+)+ = \d+")

Item = TypeVar("Item")


class Solved(NamedTuple):
    """A problem with its chain, in token ids: the prompt, each step, and the answer with the end of the sequence."""

    prompt: list[int]
    steps: list[list[int]]
    answer: list[int]

    @property
    def chain(self) -> list[int]:
        """All steps in a row."""
        return [token for step in self.steps for token in step]


class Row(NamedTuple):
    """One sequence to train on.

    `labels` has the token itself where it is learned, else `IGNORE`. `visible[i, j]`: position i may look at j; None is
    the usual triangle. `positions` are those of the rotary embedding; None counts from 0.
    """

    ids: list[int]
    labels: list[int]
    visible: Tensor | None = None
    positions: list[int] | None = None


class Batch(NamedTuple):
    """Rows padded on the right: ids and labels (batch, seq), visible (batch, 1, seq, seq), positions (batch, seq)."""

    ids: Tensor
    labels: Tensor
    visible: Tensor | None
    positions: Tensor | None


def steps_of(cot: str) -> list[str]:
    """The steps of a chain: its lines with an equation, each with the lines without one that come before it.

    Joined by line breaks they are the chain again; one that states no equation has no steps.
    """
    steps: list[str] = []
    pending: list[str] = []
    for line in cot.split("\n"):
        pending.append(line)
        if EQUATION.search(line):
            steps.append("\n".join(pending))
            pending = []
    if steps and pending:
        steps[-1] = "\n".join((steps[-1], *pending))
    return steps


def solve(trajectory: Trajectory, prompts: Prompts, instruction: str = "") -> Solved:
    """A trajectory as ids, step by step; `instruction` follows the question."""
    steps = [prompts.ids(f"\n{step}" if i else step) for i, step in enumerate(steps_of(trajectory.cot))]
    answer = example_answer(prompts.config, trajectory.gold)
    prompt = prompts.prompt(trajectory.question, instruction=instruction).token_ids
    return Solved(list(prompt), steps, prompts.completion_ids(answer))


def learn(prompt: Sequence[int], target: Sequence[int]) -> Row:
    """The ordinary row of supervised fine-tuning: only the target is learned."""
    return Row([*prompt, *target], [IGNORE] * len(prompt) + list(target))


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """One batch; padding sees itself alone, so that its softmax has something to share out."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORE)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        labels[at, : len(row.ids)] = torch.tensor(row.labels)
    if rows[0].visible is None:
        return Batch(ids, labels, None, None)
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    positions = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        n = len(row.ids)
        visible[at, :n, :n] = row.visible
        positions[at, :n] = torch.tensor(row.positions if row.positions is not None else range(n))
    return Batch(ids, labels, visible[:, None], positions)


def draws(items: Sequence[Item], size: int, seed: int, length: Any = len) -> Iterator[list[Item]]:
    """Endless batches of `size` items, each item once an epoch, those of similar `length` together."""
    rng = random.Random(seed)
    pool = 16 * size
    while True:
        order = rng.sample(range(len(items)), len(items))
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda i: length(items[i]))
            groups = [near[at : at + size] for at in range(0, len(near), size)]
            rng.shuffle(groups)
            yield from ([items[i] for i in group] for group in groups)


def triangle(n: int) -> Tensor:
    """The usual (n, n) mask: every position looks at itself and what is before it."""
    return torch.ones(n, n, dtype=torch.bool).tril()


def spare_tokens(tokenizer: Any, n: int) -> list[int]:
    """`n` tokens that no text has: bytes that UTF-8 never uses (0xF5 … 0xFF) in a byte-level vocabulary.

    Their embeddings are free for marks and soft tokens, so the model keeps its shape.

    Raises:
        ModelError: the vocabulary is no byte-level one.
    """
    vocabulary = tokenizer.get_vocab()
    found = [vocabulary[chr(byte)] for byte in range(0xF5, 0x100) if chr(byte) in vocabulary]
    if len(found) < n:
        raise ModelError(f"the tokenizer has {len(found)} tokens that no text uses, {n} are needed: no byte-level one")
    return found[:n]


def right(trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
    """Those that are graded right and have at least one step."""
    return (one for one in trajectories if one.grade and one.grade.correct and steps_of(one.cot))
