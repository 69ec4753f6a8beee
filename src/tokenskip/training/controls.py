"""The adapters that TokenSkip is compared with, each in a separate folder inside the run, where an arm asks for it.

    control-random        arm random              the same chains, pruned randomly
    control-full-chain    arm full_chain          whole chains only (γ = 1), no ratio in the prompt
    control-preference    arm preference          the model's own short right answers against its long ones
    control-longer        arm tokenskip_longer    the run's own rows, for as many tokens as all rounds together

The first goes through scoring and pruning again; the others differ from the run in their training rows or epochs only.

    tokenskip train runs/NAME
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tokenskip.arms import WEIGHTS
from tokenskip.config import CandidatesConfig, EngineConfig
from tokenskip.distributed import alone, rank
from tokenskip.pruning import prune, score
from tokenskip.run import Run
from tokenskip.storage.store import (
    ADAPTER,
    COMPLETIONS,
    TRAIN,
    TRAJECTORIES,
    Row,
    RunFolder,
    copy_atomically,
    read_rows,
    write_rows,
)
from tokenskip.training import train
from tokenskip.training.dataset import training_rows
from tokenskip.training.preference import train_preference
from tokenskip.training.rounds import round_infos, trained_tokens, without_rounds
from tokenskip.types import Pruned


def run(run: Run) -> None:
    """Stage 6c: the adapters of the controls whose arms the evaluation asks for; at once where they are there."""
    weights = {arm.weights for arm in run.config.chosen_arms()}
    if "random" in weights:
        train_random(run)
    if "full_chain" in weights:
        train_full_chain(run)
    if "preference" in weights:
        train_preference(run)
    n_rounds = run.config.candidates.rounds
    if "longer" in weights and len(round_infos(run.folder)) == n_rounds:  # else it waits for them
        train_longer(run)


def train_random(run: Run) -> None:
    """The adapter of the arm `random`: the same trajectories, budget and training, random importance."""
    name = WEIGHTS["random"]
    path = run.folder.path / name
    if (path / ADAPTER).exists():
        return
    random_score = run.config.score.model_copy(update={"scorer": "random", "model": None, "options": {}})
    changes = {"name": name, "score": random_score, "engine": EngineConfig(), "candidates": CandidatesConfig()}
    config = run.config.model_copy(update=changes)
    while rank() and not (path / TRAIN).exists():  # the first of several launched processes prepares it for all
        time.sleep(0.5)
    run.free()
    with Run(path, config, run.progress) as control:
        if not rank():
            _prepare(run, control)
        train.run(control)


def _prepare(run: Run, control: Run) -> None:
    """Score and prune randomly what the run has generated."""
    for name in (COMPLETIONS, TRAJECTORIES):
        if not control.folder.file(name).exists():
            copy_atomically(run.folder.file(name), control.folder.file(name))
    with alone():
        score.run(control)
        prune.run(control)


def train_full_chain(run: Run) -> None:
    """The adapter of the arm `full_chain`: every correct chain whole, the run's own settings."""
    _train(run, run.sub_folder("full_chain", candidates=without_rounds(run)), _whole_chains(run))


def train_longer(run: Run) -> None:
    """The adapter of the arm `tokenskip_longer`: the first fine-tuning's rows, as many tokens as all rounds together.

    Every round trains from the base, so what the rounds cost is the sum over their rows; the control gets the same
    number of tokens as more epochs.
    """
    first = trained_tokens(run.folder.require(TRAIN))
    whole = first + sum(info["train_tokens"] for info in round_infos(run.folder))
    settings = run.config.train
    changes: dict[str, Any] = {"epochs": round(settings.epochs * whole / first, 4)}
    if isinstance(fixed := settings.trainer.get("max_steps"), int) and fixed > 0:  # goes before epochs in the trainer
        changes["trainer"] = {**settings.trainer, "max_steps": round(fixed * whole / first)}
    settings = settings.model_copy(update=changes)
    _train(
        run,
        run.sub_folder("longer", train=settings, candidates=without_rounds(run)),
        read_rows(run.folder.require(TRAIN)),
    )


def _train(run: Run, folder: RunFolder, rows: Iterator[Row]) -> None:
    run.free()
    with folder:
        if not folder.file(TRAIN).exists():
            write_rows(folder.file(TRAIN), rows)
        train.train(folder, run.prompts, run.progress)


def _whole_chains(run: Run) -> Iterator[Row]:
    for trajectory in run.folder.trajectories():
        if not trajectory.dropped:
            n = trajectory.n_cot_tokens
            whole = Pruned(ratio=1.0, text=trajectory.cot, n_tokens=n, n_tokens_pruned=n)
            yield from training_rows(replace(trajectory, pruned=(whole,)), run.prompts)
