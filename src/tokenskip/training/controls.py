"""The adapters that TokenSkip is compared with, each in a folder of its own inside the run.

    control-random        arm random              the same chains, pruned by chance
    control-full-chain    arm full_chain          whole chains only (γ = 1), no ratio in the prompt
    control-longer        arm tokenskip_longer    the run's own rows, for as many tokens as all rounds together

The last two differ from the run in their training rows or epochs only; the first goes through scoring and pruning
again (`pipeline.train_control`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tokenskip.config import RoundsConfig
from tokenskip.run import Run
from tokenskip.store import TRAIN, Row, RunFolder, read_rows, write_rows
from tokenskip.training.dataset import training_rows
from tokenskip.training.rounds import round_infos, trained_tokens
from tokenskip.training.train import train as train_adapter
from tokenskip.types import Pruned


def train_full_chain(job: Run) -> None:
    """The adapter of the arm `full_chain`: every correct chain whole, the run's own settings."""
    _train(job, job.sub_folder("full_chain", rounds=RoundsConfig()), _whole_chains(job))


def train_longer(job: Run) -> None:
    """The adapter of the arm `tokenskip_longer`: the first fine-tuning's rows, as many tokens as all rounds together.

    Every round trains from the base, so what the rounds cost is the sum over their rows; the control gets the same
    number of tokens as more epochs.
    """
    first = trained_tokens(job.folder.require(TRAIN))
    whole = first + sum(info["train_tokens"] for info in round_infos(job.folder))
    settings = job.config.train
    changes: dict[str, Any] = {"epochs": round(settings.epochs * whole / first, 4)}
    if isinstance(fixed := settings.trainer.get("max_steps"), int) and fixed > 0:  # goes before epochs in the trainer
        changes["trainer"] = {**settings.trainer, "max_steps": round(fixed * whole / first)}
    settings = settings.model_copy(update=changes)
    _train(job, job.sub_folder("longer", train=settings, rounds=RoundsConfig()), read_rows(job.folder.require(TRAIN)))


def _train(job: Run, folder: RunFolder, rows: Iterator[Row]) -> None:
    job.free()
    with folder:
        if not folder.file(TRAIN).exists():
            write_rows(folder.file(TRAIN), rows)
        train_adapter(folder, job.prompts, job.progress)


def _whole_chains(job: Run) -> Iterator[Row]:
    for one in job.folder.trajectories():
        if not one.dropped:
            n = one.n_cot_tokens
            whole = Pruned(ratio=1.0, text=one.cot, n_tokens=n, n_tokens_pruned=n)
            yield from training_rows(replace(one, pruned=(whole,)), job.prompts)
