"""Experiment trackers: where `train.report_to` sends the training's curve, and the results of the evaluation.

Nothing else is reported to anybody: the usage reports of the libraries underneath are switched off.

    pip install tensorboard
    tokenskip run mine.yaml --set train.report_to=[tensorboard]      # then: tensorboard --logdir runs/mine/tracking

The trainer's own callbacks log the training. The results are a separate run, `NAME-results`: one step for each
ratio, 100 γ, with every number of every arm as `ARM/NUMBER`. TensorBoard writes into the run folder (`tracking/`);
trackio and wandb log to a project `tokenskip`, as their own variables and settings say (TRACKIO_DIR, WANDB_MODE, …).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenskip.errors import ConfigError
from tokenskip.evaluation.schema import ArmResult, Results

FOLDER = "tracking"
PROJECT = "tokenskip"
_DIRECTORY = "TENSORBOARD_LOGGING_DIR"  # where transformers' callback writes

TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it TRL's trainers and datasets
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variable -> the value that switches usage reports off. A library reads its own when it is imported."""


def switch_telemetry_off() -> None:
    """Switch the libraries' usage reports off for this process and those it starts; a variable that is set stays."""
    chosen = TELEMETRY.keys() & os.environ.keys()
    for name, value in TELEMETRY.items():
        os.environ.setdefault(name, value)
    if not chosen:  # the general switch, which would overrule a library's own that the user has set
        os.environ.setdefault("DO_NOT_TRACK", "1")
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and "HF_HUB_DISABLE_TELEMETRY" not in chosen:  # imported earlier: it has read its variable
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


def check_trackers(names: Sequence[str]) -> None:
    """ConfigError when the package of a tracker is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"train.report_to: {name} is not installed: pip install {name}")


def trainer_options(names: Sequence[str], run: str) -> dict[str, Any]:
    """What the trainer's arguments say about tracking."""
    return {"report_to": list(names) or "none", "run_name": run, "project": PROJECT}


@contextmanager
def tracked(folder: Path) -> Iterator[None]:
    """The environment of a training whose trackers write under `folder`, unless the user set another place."""
    ours = {_DIRECTORY: str(folder / FOLDER / "train"), "WANDB_PROJECT": PROJECT}
    ours = {key: value for key, value in ours.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def log_results(names: Sequence[str], folder: Path, results: Results) -> None:
    """Send every number of `results` to the trackers; a second time, TensorBoard's are written anew."""
    steps = _by_step(results.arms)
    for name in names:
        _LOGGERS[name](f"{results.run}-results", folder / FOLDER / "results", steps)


def _by_step(arms: Sequence[ArmResult]) -> dict[int, dict[str, float]]:
    """100 γ -> `ARM/NUMBER` -> value, ascending; an arm without a ratio is at 100."""
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    for arm in arms:
        step = round(100 * (1.0 if arm.ratio is None else arm.ratio))
        for field, value in arm:
            if field != "ratio" and isinstance(value, int | float) and not isinstance(value, bool):
                steps[step][f"{arm.arm}/{field}"] = float(value)
    return dict(sorted(steps.items()))


def _tensorboard(run: str, folder: Path, steps: Mapping[int, Mapping[str, float]]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for step, numbers in steps.items():
            for key, value in numbers.items():
                writer.add_scalar(key, value, step)


def _trackio(run: str, folder: Path, steps: Mapping[int, Mapping[str, float]]) -> None:
    import trackio

    trackio.init(project=PROJECT, name=run, resume="never")
    for step, numbers in steps.items():
        trackio.log(dict(numbers), step=step)
    trackio.finish()


def _wandb(run: str, folder: Path, steps: Mapping[int, Mapping[str, float]]) -> None:
    import wandb

    with wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=run) as logged:
        for step, numbers in steps.items():
            logged.log(dict(numbers), step=step)


_LOGGERS = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}
