"""Internalised steps (Deng, Choi and Shieber 2024, arXiv 2405.14838): chain tokens vanish from the left as it trains.

Training begins with the whole chain. Every stage takes `PER_STAGE` more tokens from its left; at the end only the
answer is left, and the model has to have learned to do the steps inside: the limit γ → 0. As in the paper (section
3), the optimizer is reset when tokens go, and a row sometimes loses a few more than its stage says (removal
smoothing), so that the next stage does not come as a surprise. Three trainings are told apart by what is removed
when:

- `explicit`: nothing, ever. The reference with a whole chain, and where the others start.
- `gradual`: the paper's.
- `at_once`: everything from the first step. The control: an answer without a chain, for as many updates.

Ordinary decoding answers; no backend of its own is needed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tokenskip.baselines.fit import fit, loss_of
from tokenskip.baselines.rows import Row, Solved, collate, draws, learn

Way = Literal["explicit", "gradual", "at_once"]
PER_STAGE = 8
"""Tokens that every stage takes away, as many as the paper takes an epoch on GSM8K."""
SMOOTHING = 4.0
"""λ of the removal smoothing: P(o more tokens) ∝ exp(-λ o), as in the paper."""
LAST_STAGE = 0.6
"""Share of the updates after which nothing is left of any chain."""


def removed(step: int, steps: int, longest: int, way: Way) -> int:
    """Tokens that are gone from the left of every chain at a step of the training."""
    if way == "explicit":
        return 0
    if way == "at_once":
        return longest
    stages = math.ceil(longest / PER_STAGE)
    return min(longest, PER_STAGE * int(stages * step / (LAST_STAGE * steps)))


def more(rng: random.Random) -> int:
    """The removal smoothing: mostly 0, by a geometric law with ratio exp(-λ)."""
    extra = 0
    while rng.random() < math.exp(-SMOOTHING):
        extra += 1
    return extra


def without(solved: Solved, n: int) -> Row:
    """The row whose chain has lost its first `n` tokens; the answer is never touched."""
    return learn(solved.prompt, [*solved.chain[n:], *solved.answer])


def train(
    model: Any,
    solved: Sequence[Solved],
    way: Way,
    *,
    steps: int,
    size: int = 32,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """CPU seconds; `model` answers without a chain afterwards (`explicit`: with one)."""
    longest = max(len(one.chain) for one in solved)
    gone = [removed(step, steps, longest, way) for step in range(steps)]
    resets = [step for step in range(1, steps) if gone[step] != gone[step - 1]]
    batches = draws(solved, size, seed, lambda one: len(one.prompt) + len(one.chain))
    rng = random.Random(seed)
    pad = int(model.config.pad_token_id or 0)

    def loss(step: int) -> Any:
        smooth = way == "gradual"
        rows = [without(one, gone[step] + (more(rng) if smooth else 0)) for one in next(batches)]
        return loss_of(model, collate(rows, pad))

    return fit(model, steps, loss, resets=resets, note=note)
