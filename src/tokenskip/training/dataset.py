"""Stage 5: pruned trajectories -> the fine-tuning rows. Writes `train.jsonl`.

A row has the columns that TRL reads (`prompt`, `completion`, `chat_template_kwargs`) and beside them what happened:
the ratio asked for, the one achieved, the tokens. The completion is the pruned CoT and the untouched answer; a ratio
of 1 is the plain question with the whole chain (paper, section 3.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tokenskip.config import TrainConfig
from tokenskip.prompting.prompts import Prompts, prompt_kwargs
from tokenskip.ratio import RatioRange
from tokenskip.storage.store import CHOSEN, Row, RunFolder
from tokenskip.types import Pruned, Trajectory

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


def trained_ratios(folder: RunFolder) -> tuple[float, ...]:
    """The ratios that the training rows have: those of `prune.ratios`, but for one that no candidate came near."""
    file, ratios = folder.file(CHOSEN), folder.config.prune.ratios
    if not file.exists() or isinstance(ratios, RatioRange):
        return ratios
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return tuple(ratio for ratio in ratios if rows.get(str(ratio)))


def training_rows(trajectory: Trajectory, prompts: Prompts, cuts: Sequence[Pruned] | None = None) -> Iterator[Row]:
    """One row per pruned text (or of `cuts`) that was not rejected; none for a dropped trajectory."""
    if trajectory.dropped:
        return
    for cut in trajectory.pruned if cuts is None else cuts:
        if cut.rejected:
            continue
        text = trajectory.head + cut.text + trajectory.tail
        yield _row(trajectory, cut.ratio, cut.achieved_ratio, text, cut.n_tokens_pruned, prompts)


def candidate_row(text: Trajectory, source: str, ratio: float, n_cot_tokens: float, prompts: Prompts) -> Row:
    """The row of a chosen candidate, trained under `ratio`; `n_cot_tokens` has the question's whole chain."""
    achieved = text.n_cot_tokens / n_cot_tokens
    return {**_row(text, ratio, achieved, text.output, text.n_cot_tokens, prompts), "source": source}


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
