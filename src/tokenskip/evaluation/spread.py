"""How much results vary from one training to the next: runs that differ only in their seed, arm by arm. Pure.

An interval over problems says what other problems would give; it knows nothing of the training, which another seed, or
another machine's rounding, makes anew. Runs count as trainings of one recipe where their configurations are equal but
for their names, engines and seeds; two runs with the same seeds are one training.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenskip.evaluation.schema import ArmResult, Results
from tokenskip.evaluation.stats import wilson

SEEDS = ("seed", "seeds")
"""Keys of a configuration, in any section, that may differ."""
FREE = ("name", "engine")
"""Keys at the top that may: what a run is called, and where its stages run, which changes no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One number over trainings; `deviation` is the sample standard deviation."""

    mean: float
    least: float
    greatest: float
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpread:
    """A trained arm at one ratio, over the trainings of a recipe.

    `problems_low` and `problems_high` are the 95% Wilson interval of the mean accuracy on `n_problems`: what problems
    leave open, which stays however many trainings there are.
    """

    label: str
    arm: str
    ratio: float | None
    runs: tuple[str, ...]
    n_trainings: int
    n_problems: int
    accuracy: Spread
    problems_low: float
    problems_high: float
    achieved_ratio: Spread | None


def spread(runs: Sequence[tuple[str, Results]]) -> list[ArmSpread]:
    """Every trained arm of (name, results) over trainings, where at least two runs differ only in their seeds."""
    found = []
    for trainings in _trainings(runs):
        rows: dict[str, list[tuple[str, ArmResult]]] = defaultdict(list)
        for name, results in trainings:
            for arm in results.arms:
                if arm.trained and arm.accuracy is not None:
                    rows[arm.label].append((name, arm))
        found += [_over(of_label) for of_label in rows.values() if len(of_label) > 1]
    return found


def _trainings(runs: Sequence[tuple[str, Results]]) -> list[list[tuple[str, Results]]]:
    """The runs in groups of one recipe, each seed once, groups of one left out."""
    groups: dict[str, dict[str, tuple[str, Results]]] = defaultdict(dict)
    for name, results in runs:
        recipe, seeds = _without_seeds(results.config)
        for key in FREE:
            recipe.pop(key, None)
        groups[_key(recipe)].setdefault(_key(seeds), (name, results))
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _without_seeds(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(`config` without its seeds, in all sections; the seeds)."""
    rest: dict[str, Any] = {}
    seeds: dict[str, Any] = {}
    for key, value in config.items():
        if key in SEEDS:
            seeds[key] = value
        elif isinstance(value, Mapping):
            rest[key], inner = _without_seeds(value)
            seeds |= {f"{key}.{name}": seed for name, seed in inner.items()}
        else:
            rest[key] = value
    return rest, seeds


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _over(rows: Sequence[tuple[str, ArmResult]]) -> ArmSpread:
    arms = [arm for _, arm in rows]
    accuracies = [arm.accuracy for arm in arms if arm.accuracy is not None]
    achieved = [arm.achieved_ratio for arm in arms if arm.achieved_ratio is not None]
    n_problems = min(arm.n_problems for arm in arms)
    accuracy = _spread(accuracies)
    low, high = wilson(round(accuracy.mean * n_problems), n_problems)
    return ArmSpread(
        label=arms[0].label,
        arm=arms[0].arm,
        ratio=arms[0].ratio,
        runs=tuple(name for name, _ in rows),
        n_trainings=len(rows),
        n_problems=n_problems,
        accuracy=accuracy,
        problems_low=low,
        problems_high=high,
        achieved_ratio=_spread(achieved) if len(achieved) == len(arms) else None,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        mean=float(np.mean(values)),
        least=min(values),
        greatest=max(values),
        deviation=float(np.std(values, ddof=1)),
    )
