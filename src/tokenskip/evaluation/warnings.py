"""What a reader must know before believing a run's numbers, one sentence each. Pure: rows in, sentences out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from tokenskip.evaluation.comparisons import best_win, by_arm, control_wins, original_of
from tokenskip.evaluation.schema import ArmResult

FEW_PROBLEMS = 100
LEAST_REACH, IGNORED = 0.19, 0.15  # 0.19: 0.2 apart, but for rounding
"""Where ratios this far apart were asked for, and what was achieved spans less than this share, they were ignored."""
OFF_BY = 0.05
"""A ratio missed by more than this is named."""

RATES: tuple[tuple[Callable[[ArmResult], float | None], float, str], ...] = (
    (
        lambda arm: arm.cap_hit_rate,
        0.05,
        "Completions were cut off at the token cap, so their length and accuracy are not known",
    ),
    (lambda arm: arm.loop_rate, 0.01, "Completions repeat themselves in a loop"),
    (lambda arm: arm.unclosed_rate, 0.05, "Completions never close their thinking"),
    (
        lambda arm: arm.ungradable_rate,
        0.05,
        "Completions without an answer that can be graded count as wrong",
    ),
    (lambda arm: arm.error_rate, 0.0, "Completions failed in the backend and count as wrong"),
)
"""(a share of completions, how much of it is worth a warning, what it means)."""


def warnings(arms: Sequence[ArmResult]) -> list[str]:
    """All that `arms` give reason to warn of; empty when nothing looks wrong."""
    evaluated = [arm for arm in arms if arm.n]
    smallest = min((arm.n_problems for arm in evaluated), default=0)
    found: list[str] = []
    if smallest < FEW_PROBLEMS:
        found.append(f"Only {smallest} problems were evaluated: differences of several points may be chance.")
    for name, rows in by_arm([arm for arm in evaluated if arm.role == "method"]).items():
        found += _ratio_warnings(name, rows)
    found += _accuracy_warnings(evaluated)
    # Truncation hits its cap by design.
    free = [arm for arm in evaluated if arm.shortened_by != "truncation"]
    for share, limit, text in RATES:
        over = [f"{arm.label} ({value:.1%})" for arm in free if (value := share(arm) or 0) > limit]
        if over:
            found.append(f"{text}: {', '.join(over)}.")
    runaway = [
        f"{arm.label} (mean {arm.cot_tokens_mean:.0f}, median {arm.cot_tokens_median:.0f})"
        for arm in evaluated
        if arm.cot_tokens_mean is not None
        and arm.cot_tokens_median is not None
        and arm.cot_tokens_mean > 1.5 * arm.cot_tokens_median + 10
    ]
    if runaway:
        found.append(f"A few runaway chains make the mean far longer than the median: {', '.join(runaway)}.")
    return found + _length_warnings(evaluated)


def _ratio_warnings(name: str, rows: Sequence[ArmResult]) -> list[str]:
    """Does the ratio asked for decide the length? `rows`: one trained arm at its ratios."""
    points = sorted((arm.ratio, arm.achieved_ratio) for arm in rows if arm.ratio and arm.achieved_ratio is not None)
    for part in (points, [point for point in points if point[0] < 1]):  # a whole chain at 1 may be all that is obeyed
        achieved = [achieved for _, achieved in part]
        reach = part[-1][0] - part[0][0] if part else 0.0
        if reach >= LEAST_REACH and max(achieved) - min(achieved) <= IGNORED * reach:
            return [
                f"The ratio is ignored: {name} uses {min(achieved):.2f} to {max(achieved):.2f} of the original's "
                f"tokens whatever is asked from {part[0][0]} to {part[-1][0]}."
            ]
    found = []
    drops = [f"{a[0]} to {b[0]}" for a, b in pairwise(points) if b[1] < a[1]]
    if drops:
        found.append(f"{name} is not monotone: the chain gets shorter although more is asked for ({', '.join(drops)}).")
    off = [f"{asked} gave {achieved:.2f}" for asked, achieved in points if abs(achieved - asked) > OFF_BY]
    if off:
        found.append(f"{name} misses the ratio by more than {OFF_BY}: {', '.join(off)}.")
    return found


def _accuracy_warnings(arms: Sequence[ArmResult]) -> list[str]:
    """Collapsed accuracy, and controls that do better than the method."""
    found = []
    methods = [arm for arm in arms if arm.role == "method"]
    original = original_of(arms)
    reached = (original.accuracy if original else None) or 0.0
    collapsed = [arm for arm in methods if (arm.accuracy or 0.0) < reached / 2]
    if collapsed:
        which = ", ".join(f"{arm.label} ({arm.accuracy:.1%})" for arm in collapsed)
        broken = " At every ratio: the adapter looks broken." if len(collapsed) == len(methods) else ""
        found.append(f"Accuracy collapsed to less than half of the original's {reached:.1%}: {which}.{broken}")
    for name in by_arm(methods):
        if wins := control_wins(arms, name):
            control, arm = best_win(wins)
            kind = "A control that was trained too" if control.trained else "A control without training"
            found.append(
                f"{kind} beats {name} at equal or fewer tokens: {control.label} reaches {control.accuracy:.1%} with "
                f"{control.cot_tokens_mean:.0f} tokens, {arm.label} {arm.accuracy:.1%} with "
                f"{arm.cot_tokens_mean:.0f} ({len(wins)} such pairs)."
            )
    return found


def _length_warnings(arms: Sequence[ArmResult]) -> list[str]:
    shortened = [arm.arm for arm in arms if arm.length == "paper" and arm.shortened_by != "truncation"]
    if not shortened:
        return []
    names = ", ".join(dict.fromkeys(shortened))
    return [
        f"The token cap of {names} shrinks with the ratio (the paper's protocol on MATH), so what they save is partly "
        "truncation: evaluate.length=full separates the two."
    ]
