"""`contrast`: how much easier each token gets when the answer is known (Conditional Token Selection, arXiv 2505.17827).

    importance(x_t) = loss(x_t | question, x_<t) - loss(x_t | question, answer, x_<t)

with `loss = -log p` under a reference model; two forward passes a batch. The papers' form is a difference of
perplexities per token (as in LongLLMLingua's contrastive perplexity); deviations:

- losses instead of their exponentials: the same sign, without the few tokens of huge perplexity that decide everything;
- the answer is put into the prompt after the question, on a separate line, so that any chat template carries it;
- the reference model is the one that is given (`--model`); the paper trains its own on chains of high quality.

    tokenskip prune FILE.jsonl --scorer contrast --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

from dataclasses import replace

from tokenskip.scorers._causal import CausalScorer, Encoded, cot_scores, encode, find_answer, token_logprobs
from tokenskip.types import Scores, Trajectory


class Contrast(CausalScorer):
    """Loss without the answer minus loss with the answer in the prompt, in nats."""

    name = "contrast"
    needs_answer = True

    def _score_batch(self, items: list[Encoded], trajectories: list[Trajectory]) -> list[Scores]:
        with_answer = []
        for trajectory in trajectories:
            tail, (low, high) = find_answer(trajectory)
            answer = (trajectory.cot + tail)[low:high].strip()
            prompt = self.render(replace(trajectory, question=f"{trajectory.question}\n{answer}"))
            with_answer.append(encode(trajectory, self.tokenizer, lambda _, prompt=prompt: prompt))  # type: ignore[misc]
        plain_rows, known_rows = token_logprobs(self.model, items), token_logprobs(self.model, with_answer)
        return [
            cot_scores(self.name, item, [b - a for a, b in zip(plain, known, strict=True)], "sum")
            for item, plain, known in zip(items, plain_rows, known_rows, strict=True)
        ]
