"""Soft tokens for the prompt: gist tokens (Mu, Li and Goodman 2023, arXiv 2304.08467).

`k` positions stand between the prompt and the answer. Later positions may look at them and not at the prompt, so what
the answer needs has to go through them; an ordinary fine-tuning under that mask is all there is to it (their section
3). To answer, the prompt is read once and its keys and values are thrown away but for those of the gist positions:
the cache of a prompt of any length is `k` columns.

Here the prompt is the question itself, which is harder than the paper's instructions: every number of it is needed.
The gist token is one token that no text has, repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenskip.baselines.decode import State, completion, greedy, prefill
from tokenskip.baselines.fit import fit, loss_of
from tokenskip.baselines.rows import IGNORE, Row, Solved, collate, draws, spare_tokens, triangle
from tokenskip.types import Completion, Prompt, Sampling


def gist_mask(n_prompt: int, k: int, n_after: int) -> Tensor:
    """(seq, seq) booleans: what follows the gist looks at the gist and itself, never at the prompt."""
    visible = triangle(n_prompt + k + n_after)
    visible[n_prompt + k :, :n_prompt] = False
    return visible


def gist_row(solved: Solved, k: int, gist: int) -> Row:
    """Prompt, gist, chain and answer; the first token after the gist is foretold by its last position."""
    target = [*solved.chain, *solved.answer]
    ids = [*solved.prompt, *[gist] * k, *target]
    labels = [IGNORE] * (len(solved.prompt) + k) + target
    return Row(ids, labels, gist_mask(len(solved.prompt), k, len(target)))


def train(
    model: Any,
    tokenizer: Any,
    solved: Sequence[Solved],
    k: int,
    *,
    steps: int,
    size: int = 32,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """CPU seconds; `model` then answers from `k` gist positions."""
    [gist] = spare_tokens(tokenizer, 1)
    pad = int(model.config.pad_token_id or 0)
    batches = draws(solved, size, seed, lambda one: len(one.prompt) + len(one.chain))

    def loss(step: int) -> Tensor:
        return loss_of(model, collate([gist_row(one, k, gist) for one in next(batches)], pad))

    return fit(model, steps, loss, note=note)


def only_gist(state: State, k: int) -> State:
    """The state without the prompt's columns: the cache holds the last `k`."""
    for layer in state.cache.layers:
        layer.keys, layer.values = layer.keys[:, :, -k:].contiguous(), layer.values[:, :, -k:].contiguous()
    return State(state.logits, state.cache, state.mask[:, -k:], state.positions)


class GistBackend:
    """Reads the prompt once, keeps `k` positions of it, and answers from those."""

    def __init__(self, model: Any, tokenizer: Any, *, k: int, batch_size: int = 64) -> None:
        self.model, self.tokenizer, self.k, self.batch_size = model, tokenizer, k, batch_size
        [self.gist] = spare_tokens(tokenizer, 1)
        self.pad = int(model.config.pad_token_id or 0)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`; greedy whatever `sampling` says."""
        done: list[Completion] = []
        for at in range(0, len(prompts), self.batch_size):
            done += self._complete(prompts[at : at + self.batch_size], sampling.max_new_tokens)
        return done

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _complete(self, prompts: Sequence[Prompt], cap: int) -> list[Completion]:
        rows = [[*prompt.token_ids, *[self.gist] * self.k] for prompt in prompts]
        state = only_gist(prefill(self.model, rows, self.pad), self.k)
        made = greedy(self.model, state, cap, {self.tokenizer.eos_token_id})
        return [completion(self.tokenizer, ids) for ids in made]

    def close(self) -> None:
        """Free the model."""
        self.model = None
