"""What varies from one training to the next: which runs belong together, and the four numbers by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from synthetic_results import arm_result, results_of

from tokenskip.evaluation.schema import Results
from tokenskip.evaluation.spread import spread


def run(accuracy: float, achieved: float | None, **config: Any) -> Results:
    values = {"n": 100, "n_problems": 100, "accuracy": accuracy, "achieved_ratio": achieved, "cot_tokens_mean": 50.0}
    arms = [
        arm_result("original", None, n=100, n_problems=100, accuracy=0.9, achieved_ratio=1.0),
        arm_result("prompt_be_concise", None, n=100, n_problems=100, accuracy=0.5),
        arm_result("tokenskip", 0.6, **values),
    ]
    return results_of(arms, config={"name": "x", "seed": 0, "train": {"epochs": 3.0}, **config})


def test_by_hand() -> None:
    accuracies, achieved = (0.8, 0.9, 0.82, 0.88), (0.6, 0.61, 0.59, 0.64)
    runs = [(f"r{i}", run(a, g, seed=i)) for i, (a, g) in enumerate(zip(accuracies, achieved, strict=True))]
    (row,) = spread(runs)
    assert (row.arm, row.ratio, row.label, row.n_trainings, row.n_problems) == (
        "tokenskip", 0.6, "tokenskip 0.6", 4, 100,
    )  # fmt: skip
    assert row.runs == ("r0", "r1", "r2", "r3")
    for values, found in ((accuracies, row.accuracy), (achieved, row.achieved_ratio)):
        assert found is not None
        assert found.mean == pytest.approx(statistics.mean(values))
        assert (found.least, found.greatest) == (min(values), max(values))
        assert found.deviation == pytest.approx(statistics.stdev(values))
    assert row.problems_low < row.accuracy.mean < row.problems_high
    assert row.problems_high - row.problems_low == pytest.approx(0.14, abs=0.01), "of 100 problems, not of 400"


def test_seeds_in_any_section_are_seeds() -> None:
    runs = [
        ("a", run(0.8, 0.6, train={"epochs": 3.0, "seed": 1})),
        ("b", run(0.9, 0.6, train={"epochs": 3.0, "seed": 2})),
    ]
    assert [row.n_trainings for row in spread(runs)] == [2]


def test_another_setting_is_another_recipe() -> None:
    runs = [("a", run(0.8, 0.6)), ("b", run(0.9, 0.6, seed=1, train={"epochs": 4.0}))]
    assert spread(runs) == []
    runs += [("c", run(0.7, 0.6, seed=2)), ("d", run(0.6, 0.6, seed=5, train={"epochs": 4.0}))]
    assert [row.runs for row in spread(runs)] == [("a", "c"), ("b", "d")]


def test_the_same_training_twice_is_one() -> None:
    assert spread([("a", run(0.8, 0.6)), ("a 2", run(0.8, 0.6))]) == []
    again = [("a", run(0.8, 0.6)), ("a 2", run(0.8, 0.6)), ("b", run(0.9, 0.6, seed=1))]
    assert [row.runs for row in spread(again)] == [("a", "b")]
    assert spread([]) == []


def test_names_and_engines_may_differ_and_missing_ratios_are_said() -> None:
    runs = [("a", run(0.8, None, name="one", engine={"name": "local"}))]
    runs += [("b", run(0.9, 0.6, name="two", seed=1, engine={"name": "ray"}))]
    (row,) = spread(runs)
    assert row.achieved_ratio is None
