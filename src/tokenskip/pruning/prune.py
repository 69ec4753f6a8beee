"""Stages 4 and 5: every correct chain cut to its ratios, and the training rows of what is left.

Reads `scores.jsonl`; writes `pruned.jsonl`, what was kept of every chain at each ratio, and `train.jsonl`. How a chain
is cut, `tokenskip.pruning.chain` says. Until training has begun, other settings of `prune` cut the scored chains anew.

    tokenskip prune runs/NAME --set 'prune.ratios=[0.5, 0.7, 1.0]'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenskip.candidates.settings import PRUNE
from tokenskip.engine import Work
from tokenskip.pruning.corpus import corpus_thresholds, prune_trajectory, ratios_of
from tokenskip.pruning.score import need_correct
from tokenskip.run import Run
from tokenskip.storage.store import PRUNED, SCORES, TRAIN, Row, pruned_row, write_rows
from tokenskip.training.dataset import training_rows
from tokenskip.types import Trajectory

WINDOW = 256
"""Trajectories between two writes."""


def run(run: Run) -> None:
    """Stages 4 and 5. Raises StageError when there is no correct trajectory, or one without scores.

    With other sources of candidates beside it, the stage candidates writes the training rows.
    """
    if PRUNE not in run.config.candidates.sources:
        return
    prune_chains(run)
    if run.config.candidates.is_paper:
        write_dataset(run)


def prune_chains(run: Run) -> None:
    """Stage 4: what is kept of every correct chain at its ratios."""
    need_correct(run)
    pending = run.folder.pending(PRUNED, run.folder.trajectories(SCORES), WINDOW)
    for rows in run.map(pruning, pending, "prune"):
        run.folder.append(PRUNED, rows)


def pruning(run: Run) -> Work:
    """The work of stage 4: scored trajectories -> rows of `pruned.jsonl`."""
    settings = run.config.prune
    thresholds = None
    if settings.cut == "corpus":
        scored = (
            (trajectory.cot, trajectory.scores) for trajectory in run.folder.trajectories(SCORES) if trajectory.scores
        )
        thresholds = corpus_thresholds(scored, settings.ratios, run.count, settings)

    def work(window: Sequence[Trajectory]) -> list[Row]:
        return [pruned_row(_prune(run, trajectory, thresholds)) for trajectory in window]

    return work


def write_dataset(run: Run) -> None:
    """Stage 5: the training rows, written anew as a whole."""
    trajectories = run.folder.trajectories(PRUNED)
    rows = (row for trajectory in trajectories for row in training_rows(trajectory, run.prompts))
    write_rows(run.folder.file(TRAIN), rows)


def _prune(run: Run, trajectory: Trajectory, thresholds: Mapping[float, float] | None) -> Trajectory:
    if trajectory.dropped:
        return trajectory
    ratios = ratios_of(trajectory, run.config)
    return prune_trajectory(trajectory, ratios, run.count, run.config.prune, thresholds)
