"""Stage 3: an importance for every part of every correct chain. Writes `scores.jsonl`.

Scored once, a chain can be pruned at any ratio. What a scorer is, `tokenskip.scorers` says.

    tokenskip score runs/NAME
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tokenskip.candidates.settings import PRUNE
from tokenskip.config import RunConfig
from tokenskip.engine import Work
from tokenskip.errors import StageError
from tokenskip.generation.generate import one_by_one
from tokenskip.plugins import make_scorer
from tokenskip.run import Run
from tokenskip.storage.store import SCORES, TRAJECTORIES, Row, read_rows, scores_row
from tokenskip.types import Scores, Trajectory

WINDOW = 256
"""Trajectories between two writes: sorted by length and batched inside, lost at most on a kill."""


def run(run: Run) -> None:
    """Stage 3; nothing where the chains are not to be pruned. Raises StageError when there is no correct trajectory."""
    if PRUNE in run.config.candidates.sources:
        score_into(run, SCORES, run.config)


def score_into(run: Run, name: str, config: RunConfig) -> None:
    """Fill the file `name` of the run folder with the scores by the scorer that `config` names.

    Raises:
        StageError: there is no correct trajectory.
    """
    need_correct(run)
    pending = run.folder.pending(name, run.folder.trajectories(), WINDOW)
    for rows in run.map(partial(scoring, config=config), pending, f"score ({config.score.scorer})"):
        run.folder.append(name, rows)


def scoring(run: Run, config: RunConfig) -> Work:
    """The work of stage 3: trajectories -> rows of `scores.jsonl`, by the scorer that `config` names."""
    run.free()  # one model in memory at a time
    scorer = make_scorer(config, run.prompts)

    def failed(error: Exception) -> str:
        return f"scorer error: {type(error).__name__}: {error}"[:200]

    def work(window: Sequence[Trajectory]) -> list[Row]:
        alive = [trajectory for trajectory in window if not trajectory.dropped]
        scores: list[Scores | str] = one_by_one(scorer.score, alive, failed)
        scored = iter([_scored(trajectory, found) for trajectory, found in zip(alive, scores, strict=True)])
        return [scores_row(trajectory if trajectory.dropped else next(scored)) for trajectory in window]

    return work


def need_correct(run: Run) -> None:
    """StageError unless something is left to learn from, with the reasons of what is not."""
    dropped: Counter[str] = Counter()
    total = 0
    for row in read_rows(run.folder.require(TRAJECTORIES)):
        total += 1
        dropped[row["dropped"] or ""] += 1
    if not dropped.pop("", 0):
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.most_common(3))
        raise StageError(
            f"0 of {total} trajectories are correct: nothing to train on ({reasons or 'no problems'}); "
            f"everything is kept in {run.folder.path}. Try a stronger model, another prompt or a higher token cap"
        )


def _scored(trajectory: Trajectory, scores: Scores | str) -> Trajectory:
    return trajectory.drop(scores) if isinstance(scores, str) else replace(trajectory, scores=scores)
