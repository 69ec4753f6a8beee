"""How likely the untouched model finds every candidate. Writes `candidates/SOURCE.logprobs.jsonl`: {id, logprobs}.

    log-probability per token = 1/n sum_t log p(x_t | prompt, x_1 ... x_{t-1}),  over the n tokens of the CoT

The prompt is the plain question. What the base would rather write itself is learned with the smallest change to it. A
pass of its own, after all sources have written, so that one model is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tokenskip.candidates.pool import Part, logprobs_file, texts
from tokenskip.config import ScoreConfig
from tokenskip.engine import Work
from tokenskip.generation.generate import one_by_one
from tokenskip.plugins import make_scorer
from tokenskip.run import Run
from tokenskip.storage.store import CANDIDATES, Row
from tokenskip.types import Scores, Trajectory

WINDOW = 64
"""Chains between two writes."""


def measure(run: Run, part: Part) -> None:
    """Fill the file of a source's log-probabilities."""
    source, folder = part
    folder.file(CANDIDATES).mkdir(exist_ok=True)
    name = logprobs_file(source)
    pending = folder.pending(name, texts(run.folder, part), WINDOW)
    for rows in run.map(measuring, pending, f"log-probabilities: {source}", run.folder.completions()):
        folder.append(name, rows)


def measuring(run: Run) -> Work:
    """The work: (chain, its candidates) -> a row; null for one that is dropped, or that cannot be scored."""
    run.free()
    score = ScoreConfig(scorer="surprisal", batch_tokens=run.config.score.batch_tokens)
    scorer = make_scorer(run.config.model_copy(update={"score": score}), run.prompts)

    def work(window: Sequence[tuple[Trajectory, Sequence[Trajectory]]]) -> list[Row]:
        usable = [text for _, made in window for text in made if not text.dropped]
        scores = iter(one_by_one(scorer.score, usable, _failed))
        return [
            {
                "id": chain.id,
                "logprobs": [None if text.dropped else _per_token(next(scores), text) for text in made],
            }
            for chain, made in window
        ]

    return work


_failed = partial(lambda scores, _: scores, Scores(scorer="", spans=()))


def _per_token(scores: Scores, text: Trajectory) -> float | None:
    if not scores.spans or not text.n_cot_tokens:
        return None
    return float(f"{-sum(span.value for span in scores.spans) / text.n_cot_tokens:.6g}")
