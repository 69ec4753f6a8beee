"""Latent thoughts: Coconut (Hao et al. 2024, arXiv 2412.06769), the last hidden state fed back as the next input.

Behind the prompt comes a mark, then thoughts, then another mark and text again. The input of a thought's position is
no token: it is the last layer's hidden state of the position before it, after the final norm, as it is. Training is
the paper's curriculum (section 3): at stage s the first s steps of the chain are gone and `per_step` × s thoughts
stand there instead; the loss is on what is left of the chain and on the answer, through all thoughts; the optimizer
is reset at every stage. The last stage has no steps left, and keeps its number of thoughts whatever the problem, as
their decoding does.

Deviations: the marks are tokens that no text has; stages are shares of the updates, the last has the most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenskip.baselines.decode import State, completion, greedy, left_padded
from tokenskip.baselines.fit import cross_entropy, fit
from tokenskip.baselines.rows import IGNORE, Solved, draws, spare_tokens
from tokenskip.types import Completion, Prompt, Sampling

LAST_STAGE = 0.6
"""Share of the updates after which every step is a thought."""
THOUGHT = "~"
"""What a completion shows for a thought, so that each counts as the one token that it costs."""


def think(model: Any, prompts: Sequence[Sequence[int]], n: int, pad: int) -> tuple[Any, Tensor, Tensor]:
    """Cache, mask and next positions behind `prompts` and `n` thoughts; gradients flow through all of it.

    The input of thought k + 1 is the hidden state of thought k, and that of the first is the prompt's last one.
    """
    ids, mask, positions = left_padded(prompts, pad)
    out = model.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    cache, after = out.past_key_values, positions[:, -1:] + 1
    for _ in range(n):
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
        out = model.model(
            inputs_embeds=out.last_hidden_state[:, -1:],
            attention_mask=mask,
            position_ids=after,
            past_key_values=cache,
            use_cache=True,
        )
        after = after + 1
    return cache, mask, after


def latent_loss(model: Any, solved: Sequence[Solved], stage: int, n: int, marks: Sequence[int], pad: int) -> Tensor:
    """Cross entropy of the chain from step `stage` on and of the answer, behind `n` thoughts."""
    opened, closed = marks
    cache, mask, after = think(model, [[*one.prompt, opened] for one in solved], n, pad)
    rest = [[closed, *(token for step in one.steps[stage:] for token in step), *one.answer] for one in solved]
    width = max(map(len, rest))
    ids = torch.full((len(rest), width), pad)
    labels = torch.full((len(rest), width), IGNORE)
    for at, row in enumerate(rest):
        ids[at, : len(row)] = torch.tensor(row)
        labels[at, 1 : len(row)] = torch.tensor(row[1:])
    hidden = model.model(
        input_ids=ids,
        attention_mask=torch.cat((mask, torch.ones_like(ids)), 1),
        position_ids=after + torch.arange(width),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return cross_entropy(model, hidden, labels)


def stage_of(step: int, steps: int, last: int) -> int:
    """The curriculum's stage, 0 … `last`, at a step of the training; as many updates for each but the last."""
    return min(last, int((last + 1) * step / steps / LAST_STAGE)) if last else 0


def train(
    model: Any,
    tokenizer: Any,
    solved: Sequence[Solved],
    per_step: int,
    *,
    steps: int,
    size: int = 32,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[float, int]:
    """CPU seconds, and the number of thoughts that the model then answers after."""
    marks, pad = spare_tokens(tokenizer, 2), int(model.config.pad_token_id or 0)
    last = max(len(one.steps) for one in solved)
    stages = [stage_of(step, steps, last) for step in range(steps)]
    resets = [step for step in range(1, steps) if stages[step] != stages[step - 1]]
    batches = draws(solved, size, seed, lambda one: len(one.prompt))

    def loss(step: int) -> Tensor:
        return latent_loss(model, next(batches), stages[step], per_step * stages[step], marks, pad)

    return fit(model, steps, loss, resets=resets, note=note), per_step * last


class LatentBackend:
    """Answers after `thoughts` thoughts that nobody can read; each is shown as `~`."""

    def __init__(self, model: Any, tokenizer: Any, *, thoughts: int, batch_size: int = 64) -> None:
        self.model, self.tokenizer, self.thoughts, self.batch_size = model, tokenizer, thoughts, batch_size
        self.marks, self.pad = spare_tokens(tokenizer, 2), int(model.config.pad_token_id or 0)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`; greedy whatever `sampling` says."""
        done: list[Completion] = []
        for at in range(0, len(prompts), self.batch_size):
            done += self._complete(prompts[at : at + self.batch_size], sampling.max_new_tokens)
        return done

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _complete(self, prompts: Sequence[Prompt], cap: int) -> list[Completion]:
        opened, closed = self.marks
        cache, mask, after = think(self.model, [[*one.token_ids, opened] for one in prompts], self.thoughts, self.pad)
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
        ids = torch.full((len(prompts), 1), closed)
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=after, past_key_values=cache, use_cache=True)
        state = State(out.logits[:, -1], cache, mask, after[:, 0] + 1)
        made = greedy(self.model, state, cap, {self.tokenizer.eos_token_id})
        return [completion(self.tokenizer, ids, THOUGHT * self.thoughts, self.thoughts) for ids in made]

    def close(self) -> None:
        """Free the model."""
        self.model = None
