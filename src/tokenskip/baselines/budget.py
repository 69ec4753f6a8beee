"""A trained predictor of the token budget, question by question (TALE, Han et al. 2024, arXiv 2412.18547).

TALE searches the smallest budget under which a question is still answered right, and trains a model to know it
beforehand. The embedded model obeys no number of tokens, but instructions that cost different numbers of them ("Be
concise."). So a budget is an instruction here: each is tried on training questions, and a linear head on the frozen
model's hidden states of the question learns whether the answer is right under each. At inference the cheapest
instruction whose predicted chance is at least `least` follows the question, the most trusted one if none is; the
untouched model answers.

What the predictor costs is one reading of the question, which the answer could share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tokenskip.baselines.decode import left_padded
from tokenskip.types import Problem, Prompt

UPDATES = 300
"""Of the head: full batches."""
DECAY = 1e-3


class Head(NamedTuple):
    """Weights (features, instructions), biases, and the mean and deviation that features are normalised by."""

    weights: Tensor
    biases: Tensor
    mean: Tensor
    deviation: Tensor

    def chances(self, features: Tensor) -> Tensor:
        """(questions, instructions): how likely the answer is right under each."""
        return torch.sigmoid((features - self.mean) / self.deviation @ self.weights + self.biases)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def features(model: Any, prompts: Sequence[Prompt], batch_size: int = 128) -> Tensor:
    """(questions, 2 × width): the model's last hidden state at the end of each prompt, and the mean over it."""
    found = []
    for at in range(0, len(prompts), batch_size):
        rows = [prompt.token_ids for prompt in prompts[at : at + batch_size]]
        ids, mask, positions = left_padded(rows, int(model.config.pad_token_id or 0))
        hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        found.append(torch.cat((hidden[:, -1], mean), 1))
    return torch.cat(found)


def fit_head(seen: Tensor, right: Tensor) -> Head:
    """Logistic regressions, one an instruction, from features (questions, n) and outcomes (questions, instructions)."""
    mean, deviation = seen.mean(0), seen.std(0) + 1e-6
    weights = torch.zeros(seen.shape[1], right.shape[1], requires_grad=True)
    biases = torch.zeros(right.shape[1], requires_grad=True)
    normal = ((seen - mean) / deviation).clone()  # of inference mode, which keeps no graph
    optimizer = torch.optim.AdamW([weights, biases], lr=0.03, weight_decay=DECAY)
    for _ in range(UPDATES):
        loss = functional.binary_cross_entropy_with_logits(normal @ weights + biases, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Head(weights.detach(), biases.detach(), mean.clone(), deviation.clone())


def choose(chances: Tensor, tokens: Sequence[float], least: float) -> list[int]:
    """Per question the instruction with the fewest tokens whose chance is at least `least`, else the likeliest one."""
    cheap_first = sorted(range(len(tokens)), key=lambda i: tokens[i])
    return [
        next((i for i in cheap_first if row[i] >= least), max(cheap_first, key=row.__getitem__))
        for row in chances.tolist()
    ]


def instructed(problems: Sequence[Problem], instructions: Sequence[str], chosen: Sequence[int]) -> list[Problem]:
    """The problems with their instruction behind the question; an empty one changes nothing."""
    return [
        replace(problem, question=f"{problem.question} {instructions[i]}".strip())
        for problem, i in zip(problems, chosen, strict=True)
    ]
