"""Trackers: checked before anything loads, given the training's curve and the evaluation's numbers, for real."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe
from synthetic_results import arm_result, results_of

from tokenskip import cli, tracking
from tokenskip.config import load_recipe
from tokenskip.errors import ConfigError
from tokenskip.evaluation.schema import load_results
from tokenskip.pipeline import Run, report, run


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.report_to\.0: .*'tensorboard', 'trackio' or 'wandb'.*given: \"tensorbord\""
    ):
        load_recipe(None, ["train.report_to=[tensorbord]"])


def test_one_name_or_several_or_none() -> None:
    assert load_recipe(None, []).train.report_to == ()
    assert load_recipe(None, ["train.report_to=none"]).train.report_to == ()
    assert load_recipe(None, ["train.report_to=wandb"]).train.report_to == ("wandb",)
    assert load_recipe(None, ["train.report_to=[trackio,wandb]"]).train.report_to == ("trackio", "wandb")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_package_that_is_missing_is_told_before_a_model_loads(
    dry: list[str],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    file = recipe(tmp_path, model_folder, train={"report_to": ["tensorboard"]})
    monkeypatch.setattr(sys, "argv", ["tokenskip", "run", str(file), "--out", str(tmp_path / "run"), *dry])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said == "tokenskip: train.report_to: tensorboard is not installed: pip install tensorboard"
    assert not (tmp_path / "run").exists()


def test_numbers_stand_at_their_ratio_and_nothing_else_is_sent() -> None:
    arms = [
        arm_result("tokenskip", 0.6, accuracy=0.5),
        arm_result("original", None, accuracy=1.0),
        arm_result("tokenskip", 0.07, accuracy=0.25, lost=3),
    ]
    nothing = {"n": 0.0, "n_problems": 0.0}
    assert tracking._by_step(arms) == {
        7: {f"tokenskip/{key}": value for key, value in {**nothing, "accuracy": 0.25, "lost": 3.0}.items()},
        60: {f"tokenskip/{key}": value for key, value in {**nothing, "accuracy": 0.5}.items()},
        100: {f"original/{key}": value for key, value in {**nothing, "accuracy": 1.0}.items()},
    }


def test_trackers_get_the_results_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[Any] = []

    class Wandb:
        """What is used of the package."""

        def init(self, **given: Any) -> Wandb:
            sent.append(given)
            return self

        def __enter__(self) -> Wandb:
            return self

        def __exit__(self, *exception: object) -> None:
            sent.append("finished")

        def log(self, numbers: dict[str, float], step: int) -> None:
            sent.append((step, numbers))

        def finish(self) -> None:
            sent.append("finished")

    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    results = results_of([arm_result("tokenskip", ratio, accuracy=ratio) for ratio in (0.9, 0.5)], run="mine")
    for name in ("wandb", "trackio"):
        sent.clear()
        monkeypatch.setitem(sys.modules, name, Wandb())  # type: ignore[arg-type]
        tracking.log_results([name], tmp_path, results)
        assert (sent[0]["project"], sent[0]["name"]) == ("tokenskip", "mine-results")
        assert [(step, numbers["tokenskip/accuracy"]) for step, numbers in sent[1:3]] == [(50, 0.5), (90, 0.9)]
        assert sent[3:] == ["finished"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the tensorboard extra")
def test_tensorboard_has_the_training_and_the_results(model_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = load_recipe(
        recipe(tmp_path, model_folder), ["train.report_to=tensorboard", "train.trainer.logging_steps=1"]
    )
    folder = tmp_path / "run"
    with Run(folder, config) as a_run:
        run(a_run)
        report(a_run)  # a second report does not double the numbers
    training = EventAccumulator(str(folder / "tracking" / "train")).Reload()
    losses = training.Scalars("train/loss")
    assert len(losses) >= 2
    assert [event.step for event in losses] == list(range(1, len(losses) + 1))
    results = EventAccumulator(str(folder / "tracking" / "results")).Reload()
    arms = load_results(folder).arms
    for name in ("tokenskip", "original"):
        logged = {event.step: event.value for event in results.Scalars(f"{name}/accuracy")}
        expected = {round(100 * (arm.ratio or 1)): arm.accuracy for arm in arms if arm.arm == name}
        assert logged == pytest.approx(expected)
        assert len(results.Scalars(f"{name}/accuracy")) == len(expected)
