"""`mist`: necessity and sufficiency of each token for the answer (MIST, arXiv 2608.31066).

With h_t^l the hidden state of token t after block l, log p(a) the log-likelihood of the answer, and w_l layer weights:

    necessity(t)   = sum_l w_l < d log p(a) / d h_t^l on the full chain,  h_t^l >
    sufficiency(t) = sum_l w_l < d log p(a) / d h_t^l without the chain,  h_t^l - h0_t^l >
    score(t)       = 0.6 z(necessity(t)) + 0.4 z(sufficiency(t))              z: z-score over the chain's tokens

necessity is the first-order loss when the token's state is removed from the full chain, sufficiency the first-order
gain when its state is patched into a pass that has no chain. Two forward and two backward passes a batch. The paper
has no published code; what we settled ourselves:

- The pass without a chain has the same length and positions: every CoT token's embedding is replaced by the mean
  embedding of the vocabulary (h0), so that each state has a place to be patched into.
- w_l is the logit lens: the geometric mean probability that the final norm and the output matrix give the answer's
  tokens when they read layer l at the answer's positions, normalised over the layers of one chain.
- `goal` may be "numbers" or "chain" as in `goal_gradient`; the paper's is "answer".

    tokenskip prune FILE.jsonl --scorer mist --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tokenskip.errors import ConfigError
from tokenskip.scorers._causal import (
    GOALS,
    CausalScorer,
    Encoded,
    Goal,
    check_choice,
    cot_scores,
    gather_logprobs,
    goal_logprob,
    pad,
)
from tokenskip.types import Scores, Trajectory


@dataclass(eq=False, repr=False, kw_only=True)
class Mist(CausalScorer):
    """`necessity` x z(necessity) + (1 - `necessity`) x z(sufficiency); 0.6 is the paper's weight."""

    name = "mist"
    needs_answer = True

    goal: Goal = "answer"
    necessity: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goal", self.goal, GOALS)
        if not 0 <= self.necessity <= 1:
            raise ConfigError(f"mist: necessity is a weight from 0 to 1; given: {self.necessity}")

    def _score_batch(self, items: list[Encoded], trajectories: list[Trajectory]) -> list[Scores]:
        ids, mask = pad([item.ids for item in items], self.model.device)
        table = self.model.get_input_embeddings()
        positions = [item.goal_positions(self.goal) for item in items]
        full = table(ids).detach()
        without = full.clone()
        mean = table.weight.detach().float().mean(0).to(full.dtype)
        for i, item in enumerate(items):
            without[i, item.n_prompt : item.n_prompt + item.n_cot_tokens] = mean
        states, gradients = self._states(full, ids, mask, positions)
        base_states, base_gradients = self._states(without, ids, mask, positions)
        weights = self._layer_weights(states, ids, positions)
        needed = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
        enough = torch.zeros_like(needed)
        for layer, weight in enumerate(weights.unbind(1)):
            state = states[layer].float()
            needed += weight[:, None] * (gradients[layer].float() * state).sum(-1)
            enough += weight[:, None] * (base_gradients[layer].float() * (state - base_states[layer].float())).sum(-1)
        results = []
        for i, item in enumerate(items):
            chain = slice(item.n_prompt, item.n_prompt + item.n_cot_tokens)
            values = self.necessity * _z(needed[i, chain]) + (1 - self.necessity) * _z(enough[i, chain])
            results.append(cot_scores(self.name, item, values.cpu().tolist()))
        return results

    def _states(self, embedded: Any, ids: Any, mask: Any, positions: list[list[int]]) -> tuple[list[Any], list[Any]]:
        """States after every block but the last, (batch, seq, hidden) each, and the goal's gradient there.

        The last block's states are left out: no later token reads them.
        """
        with torch.enable_grad():
            output = self.model(
                inputs_embeds=embedded.requires_grad_(True),
                attention_mask=mask,
                use_cache=False,
                output_hidden_states=True,
            )
            states = list(output.hidden_states[:-1])
            gradients = torch.autograd.grad(goal_logprob(output.logits, ids, positions), states)
        return [state.detach() for state in states], list(gradients)

    def _layer_weights(self, states: list[Any], ids: Any, positions: list[list[int]]) -> Any:
        """Logit-lens weights, (batch, layers); each row sums to 1."""
        head, norm = self.model.get_output_embeddings(), _final_norm(self.model)
        rows = []
        with torch.no_grad():
            for i, where in enumerate(positions):
                at = torch.tensor(where, dtype=torch.long, device=ids.device)
                lens = [gather_logprobs(head(norm(state[i, at - 1])), ids[i, at]).mean() for state in states]
                rows.append(torch.softmax(torch.stack(lens), dim=0))  # p_l / sum of p_l
        return torch.stack(rows)


def _z(values: Any) -> Any:
    """(x - mean) / standard deviation; zeros where all are equal."""
    if values.numel() < 2:
        return torch.zeros_like(values)
    return (values - values.mean()) / values.std(unbiased=False).clamp_min(1e-12)


def _final_norm(model: Any) -> Any:
    """The norm in front of the output matrix under the names that transformers uses; identity when there is none."""
    for name in ("norm", "ln_f", "final_layernorm", "final_layer_norm", "embedding_norm"):
        if hasattr(model.base_model, name):
            return getattr(model.base_model, name)
    return torch.nn.Identity()
