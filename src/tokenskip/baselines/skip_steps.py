"""Skipping steps: iterative expansion of the training data (Liu et al. 2024, arXiv 2411.01855; from the paper alone).

The model learns to obey how many steps it may leave out: first from whole chains and a few that have lost a step by
hand (their warm start). Then it is asked to leave out more than it has seen, on training questions; what is right and
has exactly that many steps joins the data (their section 3.2), and it is trained on all of it. What it gives is a
control of its own: "Leave out 1 step." behind the question, where TokenSkip has a ratio.

Deviations: the paper asks for a total ("Solve it in 3 steps"), which a caller can know only for data with labels;
here the number left out is said. The paper trains a new model on every expanded set, this goes on with the same
weights. Ordinary decoding answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from tokenskip.baselines.fit import fit, loss_of
from tokenskip.baselines.rows import Row, collate, draws, learn, steps_of
from tokenskip.prompting.prompts import Prompts, example_answer
from tokenskip.types import Backend, Sampling, Task, Trajectory

WARM = 0.3
"""Share of the chains that also come with a step left out by hand, before the first round."""


class Skipped(NamedTuple):
    """A question with some steps of its chain: `left_out` are missing. The gold answer follows."""

    question: str
    steps: tuple[str, ...]
    left_out: int
    gold: str


def instruction(left_out: int) -> str:
    """What follows the question."""
    return f"Leave out {left_out} step{'s' * (left_out != 1)}."


def whole(trajectory: Trajectory) -> Skipped:
    """A right chain, with nothing left out."""
    return Skipped(trajectory.question, tuple(steps_of(trajectory.cot)), 0, trajectory.gold)


def warm(chains: Sequence[Skipped], seed: int) -> list[Skipped]:
    """Some of the chains without one of their steps, drawn at random; the last step, which states the answer, stays."""
    rng = random.Random(seed)
    several = [one for one in chains if len(one.steps) > 1]
    short = []
    for one in rng.sample(several, int(WARM * len(several))):
        gone = rng.randrange(len(one.steps) - 1)
        short.append(one._replace(steps=one.steps[:gone] + one.steps[gone + 1 :], left_out=1))
    return short


def kept(chain: Skipped, left_out: int, cot: str, correct: bool | None) -> Skipped | None:
    """What the model wrote for a chain, where it is right and has exactly so many steps less; else None."""
    steps = tuple(steps_of(cot))
    if not correct or len(steps) != len(chain.steps) - left_out:
        return None
    return Skipped(chain.question, steps, left_out, chain.gold)


def expand(
    chains: Sequence[Skipped], left_out: int, backend: Backend, prompts: Prompts, task: Task, cap: int
) -> list[Skipped]:
    """What of the model's own answers to these questions, asked to leave out so many steps, may be trained on."""
    able = [one for one in chains if len(one.steps) > left_out]
    asked = [prompts.prompt(one.question, instruction=instruction(left_out)) for one in able]
    written = backend.generate(asked, Sampling(max_new_tokens=cap))
    found = []
    for one, completion in zip(able, written, strict=True):
        cot, trigger, tail = completion.text.partition(f"\n\n{prompts.config.trigger.strip()}")
        answer = task.extract(trigger + tail)
        right = completion.finish == "stop" and answer is not None and task.grade(answer, one.gold).correct
        found.append(kept(one, left_out, cot, right))
    return [one for one in found if one]


def row_of(one: Skipped, prompts: Prompts) -> Row:
    """The row that teaches to leave out so many steps."""
    prompt = prompts.prompt(one.question, instruction=instruction(one.left_out)).token_ids
    answer = example_answer(prompts.config, one.gold)
    return learn(prompt, prompts.completion_ids("\n".join(one.steps) + answer))


def train(
    model: Any,
    data: Sequence[Skipped],
    prompts: Prompts,
    *,
    steps: int,
    size: int = 32,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """CPU seconds of one round of training on everything that is there.

    Numbers of steps left out are drawn equally often, so that the few short chains are not drowned by the whole ones.
    """
    rows: dict[int, list[Row]] = {}
    for one in data:
        rows.setdefault(one.left_out, []).append(row_of(one, prompts))
    streams = [draws(some, size, seed, lambda row: len(row.ids)) for _, some in sorted(rows.items())]
    pad = int(model.config.pad_token_id or 0)

    def loss(step: int) -> Tensor:
        return loss_of(model, collate(next(streams[step % len(streams)]), pad))

    return fit(model, steps, loss, note=note)
