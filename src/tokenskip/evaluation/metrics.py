"""The numbers of one arm, from graded trajectories: accuracy, interval, paired test, tokens, achieved ratios, times.

Reads lists of `Trajectory` (one arm each, ungraded rows allowed) and returns an `ArmResult`. Pure: no file, no model,
no random state (bootstraps are seeded). What arms say of each other is in `comparisons` and `warnings`.

Several samples of one problem share its id: a problem then counts once, with its mean (pass@1); accuracies
have a Wilson interval with a design effect, differences a bootstrap over problems, not rows. What cannot
be graded counts as not correct, and has a separate rate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tokenskip.arms import Arm
from tokenskip.evaluation.loops import has_loop
from tokenskip.evaluation.schema import ArmResult, LevelRow
from tokenskip.evaluation.stats import Z95, Array, bootstrap_mean, clustered_wilson, mcnemar_exact
from tokenskip.types import Trajectory

MARGIN = 0.01
"""Accuracies less than this apart are called equivalent."""
QUANTILES = (5, 10, 25, 50, 75, 90, 95)
"""Percentiles of the achieved ratio over problems."""
MOST_REASONS = 5
MIN_N_EQUIVALENCE = 300
"""Below this, even not one changed answer leaves room for more than `MARGIN` (rule of three: 3/n)."""

WITHIN = "within 1 point with 95% confidence"
DIFFERS = "differs"
UNDECIDED = "n too small to tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Another arm minus the original, on the problems that both have. `lost` and `gained` count problems."""

    n: int
    difference: float
    low: float
    high: float
    lost: int
    gained: int
    p_value: float
    equivalence: str


def paired_difference(original: Sequence[Trajectory], other: Sequence[Trajectory], seed: int = 0) -> Paired | None:
    """The accuracy of `other` minus that of `original`, paired by problem; None when they share no problem.

    With one sample a problem the test is McNemar's exact one; with several it is the sign test on the problems' means,
    which is the same thing there.
    """
    before, after = _by_problem(original, _correct), _by_problem(other, _correct)
    shared = [problem for problem in before if problem in after]
    if not shared:
        return None
    change = np.array([after[problem] - before[problem] for problem in shared])
    lost, gained = int((change < 0).sum()), int((change > 0).sum())
    low, high = bootstrap_mean(change, seed)
    p_value = mcnemar_exact(lost, gained)
    return Paired(
        n=len(shared),
        difference=float(change.mean()),
        low=low,
        high=high,
        lost=lost,
        gained=gained,
        p_value=p_value,
        equivalence=_equivalence(change, low, high, p_value),
    )


def _equivalence(change: Array, low: float, high: float, p_value: float) -> str:
    """Which of the three statements the data allows."""
    # The bootstrap sees no uncertainty where nothing changed, so the interval of Agresti and Min (2005), which adds
    # half a problem to every cell, has to agree.
    n = len(change) + 2
    fell, rose = float(-change[change < 0].sum()) + 0.5, float(change[change > 0].sum()) + 0.5
    centre = (rose - fell) / n
    half = Z95 * (fell + rose - (rose - fell) ** 2 / n) ** 0.5 / n
    low, high = min(low, centre - half), max(high, centre + half)
    if len(change) >= MIN_N_EQUIVALENCE and low >= -MARGIN and high <= MARGIN:
        return WITHIN
    return DIFFERS if p_value < 0.05 else UNDECIDED


def _correct(row: Trajectory) -> float:
    return float(row.grade is not None and row.grade.correct is True)


def _ungradable(row: Trajectory) -> bool:
    return row.grade is None or row.grade.correct is None


def _by_problem(rows: Iterable[Trajectory], value: Callable[[Trajectory], float]) -> dict[str, float]:
    """The mean of `value` over the samples of each problem, in the order problems first occur."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[row.id].append(value(row))
    return {problem: sum(values) / len(values) for problem, values in found.items()}


def summarise_arm(
    arm: Arm,
    ratio: float | None,
    rows: Sequence[Trajectory],
    original_rows: Sequence[Trajectory],
    timings: Sequence[Mapping[str, Any]] = (),
    *,
    length: Literal["full", "paper"] | None = None,
    token_cap: int | None = None,
    is_closed: Callable[[str], bool] | None = None,
) -> ArmResult:
    """Every number of one arm, against the original model's rows on the same problems.

    `ratio` is None where the arm has one row only. `timings` are `{arm, ratio, batch_size, n, seconds}`, and may be of
    other arms too; `is_closed` says whether the thinking in an output came to an end, where a model has tags for it.
    """
    is_original = arm.role == "original"
    paired = None if is_original else paired_difference(original_rows, rows)
    accuracies = np.array(list(_by_problem(rows, _correct).values()))
    low, high = clustered_wilson(accuracies, len(rows))
    looping = [has_loop(row.output) for row in rows]
    closed = [is_closed is None or is_closed(row.output) for row in rows]
    finished = [row.finish == "stop" for row in rows]
    return ArmResult(
        arm=arm.name,
        about=arm.about,
        ratio=ratio,
        weights=arm.weights,
        role=arm.role,
        shortened_by=arm.shortened_by,
        n=len(rows),
        n_problems=len(accuracies),
        accuracy=_mean(accuracies),
        accuracy_low=low if rows else None,
        accuracy_high=high if rows else None,
        difference=paired.difference if paired else None,
        difference_low=paired.low if paired else None,
        difference_high=paired.high if paired else None,
        lost=paired.lost if paired else None,
        gained=paired.gained if paired else None,
        p_value=paired.p_value if paired else None,
        equivalence=paired.equivalence if paired else None,
        **_tokens(rows),
        **_ratios(ratio, rows, original_rows),
        finished_rate=_share([all(states) for states in zip(finished, closed, map(_not, looping), strict=True)]),
        cap_hit_rate=_share([row.finish == "length" for row in rows]),
        loop_rate=_share(looping),
        unclosed_rate=None if is_closed is None else _share(map(_not, closed)),
        error_rate=_share([row.finish == "error" for row in rows]),
        ungradable_rate=_share(map(_ungradable, rows)),
        ungradable_reasons=_reasons(rows),
        **_latency(arm.name, ratio, timings),
        length=length,
        token_cap=token_cap,
        by_level=_by_level(rows),
    )


def _tokens(rows: Sequence[Trajectory]) -> dict[str, Any]:
    """Tokens of the chains, of chains and answers, and of everything that was written for one right answer."""
    cot = np.array([row.n_cot_tokens for row in rows], dtype=float)
    total = np.array([row.n_tokens for row in rows], dtype=float)
    right = sum(map(_correct, rows))
    return {
        "cot_tokens_mean": _mean(cot),
        "cot_tokens_median": _percentile(cot, 50),
        "cot_tokens_p95": _percentile(cot, 95),
        "total_tokens_mean": _mean(total),
        "total_tokens_p95": _percentile(total, 95),
        "tokens_per_right_answer": float(total.sum()) / right if right else None,
    }


def _ratios(ratio: float | None, rows: Sequence[Trajectory], original_rows: Sequence[Trajectory]) -> dict[str, Any]:
    """Achieved ratios and tokens saved, on the problems that the original has as well."""
    before = _by_problem(original_rows, lambda row: row.n_cot_tokens)
    after = _by_problem(rows, lambda row: row.n_cot_tokens)
    total_before = _by_problem(original_rows, lambda row: row.n_tokens)
    total_after = _by_problem(rows, lambda row: row.n_tokens)
    shared = [problem for problem in before if problem in after]
    whole = sum(before[problem] for problem in shared)
    achieved = sum(after[problem] for problem in shared) / whole if whole else None
    each = np.array([after[problem] / before[problem] for problem in shared if before[problem]])
    quantiles = {percent: _percentile(each, percent) for percent in QUANTILES}
    saved = [total_before[problem] - total_after[problem] for problem in shared]
    return {
        "achieved_ratio": achieved,
        "ratio_error": achieved - ratio if achieved is not None and ratio is not None else None,
        "achieved_ratio_problem_median": quantiles[50],
        "achieved_ratio_problem_p10": quantiles[10],
        "achieved_ratio_problem_p90": quantiles[90],
        "achieved_ratio_quantiles": {str(percent): value for percent, value in quantiles.items()},
        "tokens_saved_per_1000": 1000 * sum(saved) / len(saved) if saved else None,
    }


def _latency(name: str, ratio: float | None, timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds a sample in the largest batch, and the median of one by one; the first of several windows warms up.

    `latency_warm` is False where there was one window only, whose time then includes the warm-up.
    """
    mine = [row for row in timings if row["arm"] == name and row["ratio"] == ratio and row["n"]]
    largest = max((row["batch_size"] for row in mine), default=None)
    batched = [row for row in mine if row["batch_size"] == largest]
    single = [row["seconds"] / row["n"] for row in mine if row["batch_size"] == 1]
    warm = len(batched) > 1
    batched = batched[1:] or batched
    samples, seconds = sum(row["n"] for row in batched), sum(row["seconds"] for row in batched)
    return {
        "latency_s": seconds / samples if samples else None,
        "throughput_per_s": samples / seconds if seconds else None,
        "latency_device": mine[-1].get("device") if mine else None,
        "latency_batch_size": largest,
        "latency_warm": warm if samples else None,
        "latency_b1_s": float(np.median(single)) if single else None,
    }


def _by_level(rows: Sequence[Trajectory]) -> dict[str, LevelRow]:
    levels: dict[str, list[Trajectory]] = defaultdict(list)
    for row in rows:
        if row.level is not None:
            levels[row.level].append(row)
    return {
        level: LevelRow(
            n=len(levels[level]),
            accuracy=sum(map(_correct, levels[level])) / len(levels[level]),
            cot_tokens_mean=sum(row.n_cot_tokens for row in levels[level]) / len(levels[level]),
        )
        for level in sorted(levels, key=lambda level: (len(level), level))  # "10" after "9"
    }


def _reasons(rows: Sequence[Trajectory]) -> dict[str, int]:
    """Why answers could not be graded, the most frequent reasons first."""
    reasons = Counter(row.grade.reason if row.grade else "not graded" for row in rows if _ungradable(row))
    return dict(reasons.most_common(MOST_REASONS))


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def _percentile(values: Array, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _share(states: Iterable[bool]) -> float | None:
    counted = list(states)
    return sum(counted) / len(counted) if counted else None


def _not(state: bool) -> bool:
    return not state
