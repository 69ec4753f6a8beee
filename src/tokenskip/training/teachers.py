"""A compressor of a run's own: the scorers whose importance it learns, and the run's chains.

The scores of a teacher stay in `scores-TEACHER.jsonl` of the run folder, so that a second student costs no scoring.

    tokenskip distill runs/NAME --teacher goal_gradient -o DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenskip.errors import RunError
from tokenskip.plugins import check_scorer
from tokenskip.pruning.score import score_into
from tokenskip.run import Run
from tokenskip.storage.store import Row
from tokenskip.training.distill import Settings, distill


def distill_run(
    run: Run,
    teachers: Sequence[str],
    out: Path,
    *,
    encoder: str | None = None,
    epochs: float = 3.0,
    pool: bool = False,
    **options: Any,
) -> Row:
    """A compressor that learned the importance by `teachers` on the run's correct chains; returns its metrics.

    `options` go to every teacher; one named after a teacher holds those of that teacher alone.

    Raises:
        TokenskipError: an unknown teacher or option, or nothing to learn from.
    """
    if out.exists() and not (out / "distill.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is there already, and no compressor: give a folder that is not, with -o")
    configs = {}
    shared = {key: value for key, value in options.items() if key not in teachers}
    for teacher in teachers:
        chosen = {**shared, **options.get(teacher, {})}
        score = run.config.score.model_copy(update={"scorer": teacher, "model": None, "options": chosen})
        config = run.config.model_copy(update={"score": score})
        check_scorer(config)
        configs[f"scores-{teacher.rpartition(':')[2]}.jsonl"] = config
    for name, config in configs.items():
        score_into(run, name, config)
    with run.progress.stage("distill", None) as advance:
        seen = 0

        def step(done: int, total: int, loss: float) -> None:
            nonlocal seen
            advance(done - seen, total=total)
            seen = done

        return distill(
            [run.folder.trajectories(name) for name in configs],
            out,
            Settings(encoder=encoder, epochs=epochs, pool=pool, seed=run.config.seed),
            device=run.config.model.device,
            progress=step,
        )
