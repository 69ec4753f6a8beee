"""`surprisal`: the self-information of each token, as Selective Context prunes by (Li et al. 2023, arXiv 2310.06201).

    I(x_t) = -log2 p(x_t | x_1 ... x_{t-1})                                                    (their equation 1)

Here x begins with the prompt of the question. Self-information adds up over a phrase (their equation 3), so tokens that
share characters are summed. Deviations: natural logarithm, which changes no order; units are formed when pruning
(atoms, words or steps), not by noun phrases.

    tokenskip prune FILE.jsonl --scorer surprisal --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

from tokenskip.scorers._causal import CausalScorer, Encoded, cot_scores, token_logprobs
from tokenskip.types import Scores, Trajectory


class Surprisal(CausalScorer):
    """-log p(token | prompt, tokens before it), in nats."""

    name = "surprisal"

    def _score_batch(self, items: list[Encoded], trajectories: list[Trajectory]) -> list[Scores]:
        rows = token_logprobs(self.model, items)
        return [cot_scores(self.name, item, [-v for v in row], "sum") for item, row in zip(items, rows, strict=True)]
