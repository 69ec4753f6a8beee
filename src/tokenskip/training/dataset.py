"""Stage 5: pruned trajectories -> the fine-tuning rows. Writes `train.jsonl`.

A row has the columns that TRL reads (`prompt`, `completion`, `chat_template_kwargs`) and beside them what happened:
the ratio asked for, the one achieved, the tokens. The completion is the pruned CoT and the untouched answer; a ratio
of 1 is the plain question with the whole chain (paper, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenskip.config import TrainConfig
from tokenskip.prompting.prompts import Prompts, prompt_kwargs
from tokenskip.storage.store import Row
from tokenskip.types import Trajectory

FEW_STEPS = 500
"""Optimiser steps below which the ratio is in doubt: the embedded model obeyed it after 800, and not surely after 400
(docs/results/ablations.md).
"""


def few_steps(rows: int, train: TrainConfig) -> str | None:
    """What to know before trusting the ratio after a fine-tuning on `rows` rows; None where there are enough."""
    steps = train.steps(rows)
    if steps >= FEW_STEPS:
        return None
    return (
        f"{rows:,} training rows are {steps:,} optimiser steps; with fewer than {FEW_STEPS} the ratio may not be "
        "obeyed: use more problems (task.train_limit) or epochs (train.epochs; on few problems these cost accuracy)"
    )


def training_rows(trajectory: Trajectory, prompts: Prompts) -> Iterator[Row]:
    """One row per pruned text that was not rejected; none for a dropped trajectory."""
    if trajectory.dropped:
        return
    for cut in trajectory.pruned:
        if cut.rejected:
            continue
        text = trajectory.head + cut.text + trajectory.tail
        yield _row(trajectory, cut.ratio, cut.achieved_ratio, text, cut.n_tokens_pruned, prompts)


def round_row(trajectory: Trajectory, n_cot_tokens: float, prompts: Prompts) -> Row:
    """The row of a chain that the tuned model wrote itself, under `trajectory.ratio`.

    `n_cot_tokens`: what the untouched model took for the problem, in tokens.
    """
    achieved = trajectory.n_cot_tokens / n_cot_tokens
    return _row(trajectory, trajectory.ratio, achieved, trajectory.output, trajectory.n_cot_tokens, prompts)


def _row(trajectory: Trajectory, ratio: float, achieved: float, text: str, n_cot_tokens: int, prompts: Prompts) -> Row:
    return {
        "id": trajectory.id,
        "ratio": ratio,
        "achieved_ratio": round(achieved, 4),
        "prompt": list(prompts.messages(trajectory.question)),
        "completion": [{"role": "assistant", "content": text}],
        "chat_template_kwargs": prompt_kwargs(prompts.config, ratio),
        "n_cot_tokens": n_cot_tokens,
    }
