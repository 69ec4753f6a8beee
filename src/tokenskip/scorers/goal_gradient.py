"""`goal_gradient`: how much the loss of the answer moves with each token of the chain (GoGI, arXiv 2505.08392).

    L_ans = -sum_j log p(a_j | question, chain, a_<j)
    GoGI(t) = || d L_ans / d h_t ||_1          h_t: the hidden state of token t at one chosen layer

One forward and one backward pass a batch; no weight receives a gradient. Deviations from the paper:

- `layer=0`, the token embeddings, by default (the paper picks one middle layer per model); `layer=k` is the output of
  the k-th block. `norm="l2"` is the norm of the paper's first version.
- `goal="numbers"`: the goal is the answer *and* every later token of the chain with a digit in it. The answer of a
  worked chain can mostly be copied from its last line, so the answer alone hardly depends on the steps before; the
  numbers in between do. On a small reasoner this ranked digits and operators above the rest far more often than the
  paper's goal did. `goal="equations"` adds operators, `goal="steps"` also what later lines begin with, `goal="chain"`
  is the answer and every later token. Values are divided by how many goal tokens come
  after t: a token is not important because much comes after it, and a chain is not thinned towards its end only.
- `grad_x_input=True`: |<gradient, h_t>|, the first-order change when h_t is set to zero, in place of the norm.
- The threshold that follows the model's entropy (the paper's second half, ADS) is not here: a ratio decides.

    tokenskip prune FILE.jsonl --scorer goal_gradient --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tokenskip.errors import ConfigError
from tokenskip.scorers._causal import GOALS, CausalScorer, Encoded, Goal, check_choice, cot_scores, goal_logprob, pad
from tokenskip.types import Scores, Trajectory


@dataclass(eq=False, repr=False, kw_only=True)
class GoalGradient(CausalScorer):
    """The norm of the gradient of the goal's loss with respect to each token's representation."""

    name = "goal_gradient"
    needs_answer = True

    goal: Goal = "answer"
    layer: int = 0
    norm: Literal["l1", "l2"] = "l1"
    grad_x_input: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        n_layers = int(self.model.config.get_text_config().num_hidden_layers)
        if not 0 <= self.layer < n_layers:
            raise ConfigError(
                f"goal_gradient: layer is a number from 0 to {n_layers - 1} for this model; given: {self.layer}"
            )
        check_choice("goal", self.goal, GOALS)
        check_choice("norm", self.norm, ("l1", "l2"))

    def _score_batch(self, items: list[Encoded], trajectories: list[Trajectory]) -> list[Scores]:
        ids, mask = pad([item.ids for item in items], self.model.device)
        positions = [item.goal_positions(self.goal) for item in items]
        with torch.enable_grad():
            embedded = self.model.get_input_embeddings()(ids).detach().requires_grad_(True)
            output = self.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False, output_hidden_states=True)
            hidden = output.hidden_states[self.layer]
            (gradient,) = torch.autograd.grad(-goal_logprob(output.logits, ids, positions), hidden)
        gradient, hidden = gradient.float(), hidden.detach().float()
        if self.grad_x_input:
            values = (gradient * hidden).sum(-1).abs()
        else:
            values = gradient.norm(p=1 if self.norm == "l1" else 2, dim=-1)
        for row, goal_positions in zip(values, positions, strict=True):
            goal = torch.tensor(goal_positions, device=row.device)
            up_to_here = torch.searchsorted(goal, torch.arange(len(row), device=row.device), right=True)
            after = len(goal_positions) - up_to_here
            row /= after.clamp(min=1)
        rows = values.cpu().tolist()
        return [cot_scores(self.name, item, row[item.n_prompt :]) for item, row in zip(items, rows, strict=True)]
