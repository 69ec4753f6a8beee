"""Every number of an evaluation, from graded trajectories: accuracy, intervals, paired tests, tokens, achieved ratios.

Reads lists of `Trajectory` (one arm each, ungraded rows allowed) and returns plain dicts, ready for `results.json`.
Pure: no file, no model, no random state of its own (bootstraps are seeded). Used by `tokenskip evaluate RUN`.

Several samples of one problem share its id: a problem then counts once, with its mean (pass@1); accuracies
have a Wilson interval with a design effect, differences a bootstrap over problems, not rows. What cannot
be graded counts as not correct, and has a rate of its own.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tokenskip.evaluation.stats import Z95, Array, bootstrap_mean, clustered_wilson, mcnemar_exact, wilson
from tokenskip.types import Trajectory

MARGIN = 0.01
"""Accuracies less than this apart are called equivalent."""
QUANTILES = (5, 10, 25, 50, 75, 90, 95)
"""Percentiles of the achieved ratio over problems."""
MIN_N_EQUIVALENCE = 300
"""Below this, even not one changed answer leaves room for more than `MARGIN` (rule of three: 3/n)."""

WITHIN = "within 1 point with 95% confidence"
DIFFERS = "differs"
UNDECIDED = "n too small to tell"

Arm = Mapping[str, Any]


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


def arm_label(arm: str, ratio: float | None) -> str:
    """What an arm is called in tables and keys: `original`, `prompt_be_concise`, `tokenskip 0.6`."""
    return f"{arm} {float(ratio)}" if ratio is not None and takes_ratio(arm, ratio) else arm


def takes_ratio(arm: str, ratio: float | None) -> bool:
    """Whether the ratio of this arm is a request that it may miss."""
    return ratio is not None and arm != "original" and not (arm.startswith("prompt") and ratio == 1.0)


def has_loop(text: str) -> bool:
    """Whether `text` runs in circles: up to 60 words said at least four times in a row (and 12 words or more)."""
    for word in text.split():
        if len(word) >= 60 and re.search(r"(\w{1,8}?)\1{9,}", word):
            return True
    words = text.split()
    seen = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    if not seen or max(seen.values()) < 3:  # a loop repeats its four-word groups; almost all text ends here
        return False
    codes = {word: number for number, word in enumerate(dict.fromkeys(words))}
    numbers = np.array([codes[word] for word in words])
    for period in range(1, min(60, len(words) // 4) + 1):
        differs = np.flatnonzero(numbers[period:] != numbers[:-period])
        edges = np.concatenate(([-1], differs, [len(words) - period]))
        if int(np.diff(edges).max()) - 1 + period >= max(4 * period, 12):
            return True
    return False


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
    name: str,
    ratio: float | None,
    rows: Sequence[Trajectory],
    original_rows: Sequence[Trajectory],
    timings: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """One row of `results.json`. What cannot be known is None; what compares with the original is None for itself.

    `n` counts completions, `n_problems` problems. `timings` holds `{arm, ratio, batch_size, n, seconds}` of all arms.
    """
    correct = np.array(list(_by_problem(rows, _correct).values()))
    repeated = len(correct) < len(rows)
    low, high = clustered_wilson(correct, len(rows)) if repeated else wilson(int(correct.sum()), len(correct))
    paired = None if name == "original" else paired_difference(original_rows, rows)
    cot = np.array([row.n_cot_tokens for row in rows], dtype=float)
    return {
        "arm": name,
        "ratio": ratio,
        "n": len(rows),
        "n_problems": len(correct),
        "accuracy": _mean(correct),
        "accuracy_low": low if len(rows) else None,
        "accuracy_high": high if len(rows) else None,
        "difference": paired.difference if paired else None,
        "difference_low": paired.low if paired else None,
        "difference_high": paired.high if paired else None,
        "lost": paired.lost if paired else None,
        "gained": paired.gained if paired else None,
        "p_value": paired.p_value if paired else None,
        "equivalence": paired.equivalence if paired else None,
        "cot_tokens_mean": _mean(cot),
        "cot_tokens_median": float(np.median(cot)) if len(cot) else None,
        "cot_tokens_p95": float(np.percentile(cot, 95)) if len(cot) else None,
        "total_tokens_mean": _mean(np.array([row.n_tokens for row in rows], dtype=float)),
        **_ratios(name, ratio, rows, original_rows),
        "cap_hit_rate": _share(rows, lambda row: row.finish == "length"),
        "ungradable_rate": _share(rows, _ungradable),
        "error_rate": _share(rows, lambda row: row.finish == "error"),
        "loop_rate": _share(rows, lambda row: has_loop(row.output)),
        **_latency(name, ratio, timings),
        "by_level": _by_level(rows),
    }


def _ratios(
    name: str, ratio: float | None, rows: Sequence[Trajectory], original_rows: Sequence[Trajectory]
) -> dict[str, Any]:
    """Achieved ratios and tokens saved, on the problems that the original has as well."""
    before = _by_problem(original_rows, lambda row: row.n_cot_tokens)
    after = _by_problem(rows, lambda row: row.n_cot_tokens)
    total_before = _by_problem(original_rows, lambda row: row.n_tokens)
    total_after = _by_problem(rows, lambda row: row.n_tokens)
    shared = [problem for problem in before if problem in after]
    whole = sum(before[problem] for problem in shared)
    achieved = sum(after[problem] for problem in shared) / whole if whole else None
    each = np.array([after[problem] / before[problem] for problem in shared if before[problem]])
    spread = [float(value) for value in np.percentile(each, QUANTILES)] if len(each) else [None] * len(QUANTILES)
    quantiles = dict(zip(QUANTILES, spread, strict=True))
    saved = [total_before[problem] - total_after[problem] for problem in shared]
    error = achieved - ratio if achieved is not None and ratio is not None and takes_ratio(name, ratio) else None
    return {
        "achieved_ratio": achieved,
        "ratio_error": error,
        "achieved_ratio_problem_median": quantiles[50],
        "achieved_ratio_problem_p10": quantiles[10],
        "achieved_ratio_problem_p90": quantiles[90],
        "achieved_ratio_quantiles": {str(share): value for share, value in quantiles.items()},
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


def monotone(arms: Sequence[Arm]) -> dict[str, bool]:
    """Arm with a dial -> whether its chains never get shorter as the ratio asked for grows."""
    dials: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for arm in arms:
        if takes_ratio(arm["arm"], arm["ratio"]) and arm["achieved_ratio"] is not None:
            dials[arm["arm"]].append((arm["ratio"], arm["achieved_ratio"]))
    return {
        name: all(a[1] <= b[1] for a, b in pairwise(sorted(points))) for name, points in dials.items() if points[1:]
    }


def _by_level(rows: Sequence[Trajectory]) -> dict[str, dict[str, float | int]]:
    levels: dict[str, list[Trajectory]] = defaultdict(list)
    for row in rows:
        if row.level is not None:
            levels[row.level].append(row)
    return {
        level: {
            "n": len(levels[level]),
            "accuracy": sum(map(_correct, levels[level])) / len(levels[level]),
            "cot_tokens_mean": sum(row.n_cot_tokens for row in levels[level]) / len(levels[level]),
        }
        for level in sorted(levels, key=lambda level: (len(level), level))  # "10" behind "9"
    }


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def _share(rows: Sequence[Trajectory], holds: Callable[[Trajectory], bool]) -> float | None:
    return sum(map(holds, rows)) / len(rows) if rows else None


def pareto(arms: Sequence[Arm], reference: str = "tokenskip") -> list[dict[str, Any]]:
    """Every arm at equal length: `{arm, ratio, cot_tokens_mean, accuracy, on_front, reference_accuracy, advantage}`.

    `on_front`: no other arm is as accurate with fewer tokens, or more accurate with no more. `reference_accuracy` is
    `reference`'s accuracy interpolated linearly at this arm's mean CoT tokens (None outside the tokens it covers);
    `advantage` is how far this arm is above it.
    """
    known = [arm for arm in arms if arm["accuracy"] is not None and arm["cot_tokens_mean"] is not None]
    points = sorted((arm["cot_tokens_mean"], arm["accuracy"]) for arm in known if arm["arm"] == reference)
    curve = np.array(points, dtype=float).reshape(-1, 2)
    compared = []
    for arm in known:
        tokens, accuracy = arm["cot_tokens_mean"], arm["accuracy"]
        inside = len(curve) > 0 and arm["arm"] != reference and curve[0, 0] <= tokens <= curve[-1, 0]
        at_equal = float(np.interp(tokens, curve[:, 0], curve[:, 1])) if inside else None
        compared.append(
            {
                "arm": arm["arm"],
                "ratio": arm["ratio"],
                "cot_tokens_mean": tokens,
                "accuracy": accuracy,
                "on_front": not any(_dominates(other, arm) for other in known),
                "reference_accuracy": at_equal,
                "advantage": None if at_equal is None else accuracy - at_equal,
            }
        )
    return compared


def _dominates(one: Arm, other: Arm) -> bool:
    """Whether `one` is at least as accurate with no more tokens, and better in one of the two."""
    fewer, better = other["cot_tokens_mean"] - one["cot_tokens_mean"], one["accuracy"] - other["accuracy"]
    return bool(fewer >= 0 and better >= 0 and (fewer > 0 or better > 0))


def prompt_wins(arms: Sequence[Arm], trained: str = "tokenskip") -> list[tuple[Arm, Arm]]:
    """(control, trained arm at a ratio below 1) wherever a control without training is better at no more tokens."""
    known = [arm for arm in arms if arm["accuracy"] is not None and arm["cot_tokens_mean"] is not None]
    controls = [arm for arm in known if arm["arm"].startswith("prompt") or arm["arm"] == "marker_only"]
    compressed = [arm for arm in known if arm["arm"] == trained and (arm["ratio"] or 1.0) < 1.0]
    return [(control, arm) for arm in compressed for control in controls if _dominates(control, arm)]


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing `results`, one sentence each; empty when nothing looks wrong."""
    arms: list[Arm] = [arm for arm in results["arms"] if arm["n"]]
    found: list[str] = []
    smallest = min((arm["n_problems"] if "n_problems" in arm else arm["n"] for arm in arms), default=0)
    if smallest < 100:
        found.append(f"Only {smallest} problems were evaluated: differences of several points may be chance.")
    for name in dict.fromkeys(arm["arm"] for arm in arms if arm["arm"].startswith("tokenskip")):
        dial = sorted((arm for arm in arms if arm["arm"] == name and arm["ratio"]), key=lambda arm: float(arm["ratio"]))
        found += _dial_warnings(name, dial)
    found += _accuracy_warnings(arms)
    # Truncation hits its cap by design.
    free = [arm for arm in arms if not arm["arm"].startswith("truncation")]
    rates = (
        ("cap_hit_rate", 0.05, "Completions were cut off at the token cap, so their length and accuracy are not known"),
        ("loop_rate", 0.01, "Completions repeat themselves in a loop"),
        ("ungradable_rate", 0.05, "Completions without an answer that can be graded count as wrong"),
    )
    for key, limit, text in rates:
        over = [f"{_label(arm)} ({arm[key]:.1%})" for arm in free if (arm.get(key) or 0) > limit]
        if over:
            found.append(f"{text}: {', '.join(over)}.")
    runaway = [
        f"{_label(arm)} (mean {arm['cot_tokens_mean']:.0f}, median {arm['cot_tokens_median']:.0f})"
        for arm in arms
        if arm["cot_tokens_mean"] > 1.5 * arm["cot_tokens_median"] + 10
    ]
    if runaway:
        found.append(f"A few runaway chains make the mean far longer than the median: {', '.join(runaway)}.")
    return found


def _label(arm: Arm) -> str:
    return arm_label(arm["arm"], arm["ratio"])


LEAST_REACH, DEAF = 0.19, 0.15  # 0.19: 0.2 apart, but for rounding
"""Where ratios this far apart were asked for, and what was achieved spans less than this share, they were ignored."""


def _dial_warnings(name: str, dial: Sequence[Arm]) -> list[str]:
    """Does the requested ratio decide the length? `dial`: one trained arm at its ratios, ascending."""
    dial = [arm for arm in dial if arm["achieved_ratio"] is not None]
    if not dial:
        return []
    for part in (dial, [arm for arm in dial if arm["ratio"] < 1]):  # a whole chain at 1 may be all that is obeyed
        achieved = [arm["achieved_ratio"] for arm in part]
        reach = part[-1]["ratio"] - part[0]["ratio"] if part else 0.0
        if reach >= LEAST_REACH and max(achieved) - min(achieved) <= DEAF * reach:
            return [
                f"The ratio is ignored: {name} uses {min(achieved):.2f} to {max(achieved):.2f} of the original's "
                f"tokens whatever is asked from {part[0]['ratio']} to {part[-1]['ratio']}."
            ]
    found = []
    drops = [f"{a['ratio']} to {b['ratio']}" for a, b in pairwise(dial) if b["achieved_ratio"] < a["achieved_ratio"]]
    if drops:
        found.append(f"{name} is not monotone: the chain gets shorter although more is asked for ({', '.join(drops)}).")
    off = [f"{arm['ratio']} gave {arm['achieved_ratio']:.2f}" for arm in dial if abs(arm["ratio_error"] or 0) > 0.05]
    if off:
        found.append(f"{name} misses the ratio by more than 0.05: {', '.join(off)}.")
    return found


def _accuracy_warnings(arms: Sequence[Arm]) -> list[str]:
    """Collapsed accuracy, and prompts that do better than training."""
    found = []
    trained = [arm for arm in arms if arm["arm"].startswith("tokenskip")]
    original = next((arm["accuracy"] for arm in arms if arm["arm"] == "original"), 0.0)
    collapsed = [arm for arm in trained if arm["accuracy"] < original / 2]
    if collapsed:
        which = ", ".join(f"{_label(arm)} ({arm['accuracy']:.1%})" for arm in collapsed)
        broken = " At every ratio: the adapter looks broken." if len(collapsed) == len(trained) else ""
        found.append(f"Accuracy collapsed to less than half of the original's {original:.1%}: {which}.{broken}")
    for name in dict.fromkeys(arm["arm"] for arm in trained):
        wins = prompt_wins(arms, name)
        if wins:
            control, arm = max(wins, key=lambda pair: float(pair[0]["accuracy"] - pair[1]["accuracy"]))
            found.append(
                f"A control without training beats {name} at equal or fewer tokens: {_label(control)} reaches "
                f"{control['accuracy']:.1%} with {control['cot_tokens_mean']:.0f} tokens, {_label(arm)} "
                f"{arm['accuracy']:.1%} with {arm['cot_tokens_mean']:.0f} ({len(wins)} such pairs)."
            )
    return found
