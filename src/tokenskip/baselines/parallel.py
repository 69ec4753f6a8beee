"""Parallel steps: fork, branches decoded as one batch, join (Skeleton-of-Thought, Ning et al. 2023, arXiv 2307.15337).

A chain has three parts: a plan that names the branches, a line for each branch, and the join:

    Tom, Anna
    Tom: 12 + 3 = 15, 15 * 2 = 30
    Anna: 5 + 4 = 9
    So 30 + 9 = 39

As in ThreadWeaver (arXiv 2512.07843) and unlike Skeleton-of-Thought, which only prompts, the model is trained for it:
a branch looks at the prompt, the plan and itself; all branches begin at the same position; the join looks at
everything and goes on behind the longest branch. So a branch reads the same whether it was written alone or beside
others, and the tokens that have to be waited for (the critical path) are plan + longest branch + join.

The control, `sequential`, is trained on the same text in one piece and answers by ordinary decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tokenskip.baselines.decode import State, completion, greedy, left_padded, prefill
from tokenskip.baselines.fit import fit, loss_of
from tokenskip.baselines.rows import IGNORE, Row, collate, draws, learn, triangle
from tokenskip.prompting.prompts import Prompts
from tokenskip.types import Completion, Problem, Prompt, Sampling, TokenCounter

Way = Literal["fork", "sequential"]
JOIN = "So"
"""What the join begins with; it is given, as a branch's name is."""
MOST_BRANCHES = 4
"""A plan that names more is cut: each branch costs a row of the batch."""


class Forked(NamedTuple):
    """A chain in token ids. The first `n_given` tokens of a branch, and the first of the join, are not the model's."""

    prompt: list[int]
    plan: list[int]
    branches: list[list[int]]
    n_given: list[int]
    join: list[int]

    @property
    def text(self) -> list[int]:
        """Everything behind the prompt, in one piece."""
        return [*self.plan, *(token for branch in self.branches for token in branch), *self.join]


def fork(problem: Problem, prompts: Prompts) -> Forked:
    """A problem with its solution, which has the form that the module describes."""
    chain, _, _ = (problem.solution or "").partition("\n\n")
    plan, *branches, join = chain.split("\n")
    tail = (problem.solution or "")[len(chain) :]
    return Forked(
        prompt=list(prompts.prompt(problem.question).token_ids),
        plan=prompts.ids(f"{plan}\n"),
        branches=[prompts.ids(f"{branch}\n") for branch in branches],
        n_given=[len(prompts.ids(branch[: branch.index(":") + 1])) for branch in branches],
        join=prompts.completion_ids(join + tail),
    )


def fork_mask(before: int, branches: Sequence[int], after: int) -> Tensor:
    """(seq, seq) booleans for `before` tokens, branches of these lengths, and `after` more: branches are apart."""
    visible = triangle(before + sum(branches) + after)
    at = before
    for length in branches:
        visible[at : at + length, before:at] = False
        at += length
    return visible


def fork_positions(before: int, branches: Sequence[int], after: int) -> list[int]:
    """Every branch begins where the plan ends, the join where the longest branch does."""
    places = list(range(before))
    for length in branches:
        places += range(before, before + length)
    join = before + max(branches, default=0)
    return [*places, *range(join, join + after)]


def fork_row(one: Forked) -> Row:
    """The row of fork and join; given tokens are not learned."""
    lengths = [len(branch) for branch in one.branches]
    before = len(one.prompt) + len(one.plan)
    labels = [IGNORE] * len(one.prompt) + one.plan
    for branch, given in zip(one.branches, one.n_given, strict=True):
        labels += [IGNORE] * given + branch[given:]
    labels += [IGNORE, *one.join[1:]]
    mask, places = fork_mask(before, lengths, len(one.join)), fork_positions(before, lengths, len(one.join))
    return Row([*one.prompt, *one.text], labels, mask, places)


def train(
    model: Any,
    forked: Sequence[Forked],
    way: Way,
    *,
    steps: int,
    size: int = 32,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """CPU seconds; `fork` is to be answered by `ForkBackend`, `sequential` by any."""
    pad = int(model.config.pad_token_id or 0)
    batches = draws(forked, size, seed, lambda one: len(one.prompt) + len(one.text))

    def loss(step: int) -> Tensor:
        rows = [fork_row(one) if way == "fork" else learn(one.prompt, one.text) for one in next(batches)]
        return loss_of(model, collate(rows, pad))

    return fit(model, steps, loss, note=note)


def critical_tokens(cot: str, count: TokenCounter) -> int:
    """Tokens of a chain that have to be waited for: all but those of the branches that are not the longest."""
    plan, *rest = cot.split("\n")
    branches = [line for line in rest if ":" in line]
    alone = [line for line in rest if ":" not in line]
    longest = max((count(f"{branch}\n") for branch in branches), default=0)
    return count("\n".join((plan, *alone))) + longest if branches else count(cot)


class ForkBackend:
    """Writes the plan, then all branches of all problems as one batch, then the joins."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 64) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.pad = int(model.config.pad_token_id or 0)
        self.line, self.end = self._ids("\n")[0], int(tokenizer.eos_token_id)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`; greedy whatever `sampling` says."""
        done: list[Completion] = []
        for at in range(0, len(prompts), self.batch_size):
            done += self._complete([list(one.token_ids) for one in prompts[at : at + self.batch_size]], sampling)
        return done

    def close(self) -> None:
        """Free the model."""
        self.model = None

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _complete(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Completion]:
        cap, stops = sampling.max_new_tokens, {self.line, self.end}
        plans = greedy(self.model, prefill(self.model, prompts, self.pad), min(cap, 4 * MOST_BRANCHES), stops)
        heads = [self._heads(plan) for plan in plans]
        rows = [[*prompts[i], *plans[i], *head] for i, some in enumerate(heads) for head in some]
        written = iter(greedy(self.model, prefill(self.model, rows, self.pad), cap, stops) if rows else [])
        branches = [[[*head, *self._closed(next(written))] for head in some] for some in heads]
        joins = greedy(self.model, self._joined(prompts, plans, branches), cap, {self.end})
        return [
            completion(self.tokenizer, [*plan, *(t for branch in some for t in branch), *self._ids(JOIN), *join])
            for plan, some, join in zip(plans, branches, joins, strict=True)
        ]

    def _heads(self, plan: Sequence[int]) -> list[list[int]]:
        """What each branch begins with: a name of the plan and a colon."""
        names = self.tokenizer.decode(plan, skip_special_tokens=True).strip().split(", ")
        return [self._ids(f"{name}:") for name in names[:MOST_BRANCHES] if name]

    def _closed(self, branch: list[int]) -> list[int]:
        """A branch ends with a line break, also where it was cut off or ended too soon."""
        return branch if branch[-1] == self.line else [*(t for t in branch if t != self.end), self.line]

    def _joined(
        self, prompts: Sequence[list[int]], plans: Sequence[list[int]], branches: Sequence[list[list[int]]]
    ) -> State:
        """The state behind the join's first word, under the mask and the positions of the training."""
        start = self._ids(JOIN)
        rows = [
            [*prompt, *plan, *(token for branch in some for token in branch), *start]
            for prompt, plan, some in zip(prompts, plans, branches, strict=True)
        ]
        ids, mask, positions = left_padded(rows, self.pad)
        width = ids.shape[1]
        visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
        for at, (row, prompt, plan, some) in enumerate(zip(rows, prompts, plans, branches, strict=True)):
            parts = len(prompt) + len(plan), [len(branch) for branch in some], len(start)
            visible[at, width - len(row) :, width - len(row) :] = fork_mask(*parts)
            positions[at, width - len(row) :] = torch.tensor(fork_positions(*parts))
        out = self.model(
            input_ids=ids, attention_mask=visible[:, None], position_ids=positions, use_cache=True, logits_to_keep=1
        )
        return State(out.logits[:, -1], out.past_key_values, mask, positions[:, -1] + 1)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
