"""What the arms of a run say of each other: the headline pair, the Pareto front, and controls that do better. Pure.

No function here knows an arm's name: what an arm is follows from its `role`, `weights` and `shortened_by`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tokenskip.evaluation.schema import ArmResult, Matched

HEADLINE_RATIO = 0.6
"""The ratio that pages speak about and show first: fixed beforehand, so that nobody picks the best one afterwards."""


def original_of(arms: Sequence[ArmResult]) -> ArmResult | None:
    """The untouched model's row, where it has completions."""
    return next((arm for arm in arms if arm.role == "original" and arm.n), None)


def main_arm(arms: Sequence[ArmResult]) -> str | None:
    """The name of the arm that a report is about: the first of the method's whose prompt carries the ratio."""
    return next((arm.arm for arm in arms if _is_method_at_ratio(arm)), None)


def headline(arms: Sequence[ArmResult]) -> tuple[ArmResult, ArmResult] | None:
    """(original, the main arm at the ratio nearest `HEADLINE_RATIO`), where both were evaluated."""
    original, main = original_of(arms), main_arm(arms)
    rows = [arm for arm in arms if arm.arm == main and arm.ratio is not None and arm.n]
    if original is None or not rows:
        return None
    return original, min(rows, key=lambda arm: abs((arm.ratio or 1) - HEADLINE_RATIO))


def headline_rows(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """The rows of a short table: all of the main arm's, and of the others those with no ratio or the headline's."""
    pair, main = headline(arms), main_arm(arms)
    ratio = pair[1].ratio if pair else None
    return [arm for arm in arms if arm.arm == main or arm.ratio in (None, ratio)]


def by_arm(arms: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    """Every arm's rows in order, by its name."""
    rows: dict[str, list[ArmResult]] = defaultdict(list)
    for arm in arms:
        rows[arm.arm].append(arm)
    return dict(rows)


def monotone(arms: Sequence[ArmResult]) -> dict[str, bool]:
    """Arm with several ratios -> whether its chains never get shorter as the ratio asked for grows."""
    points = {
        name: sorted((arm.ratio, arm.achieved_ratio) for arm in rows if arm.ratio and arm.achieved_ratio is not None)
        for name, rows in by_arm(arms).items()
    }
    return {name: all(a[1] <= b[1] for a, b in pairwise(found)) for name, found in points.items() if found[1:]}


def pareto(arms: Sequence[ArmResult]) -> list[Matched]:
    """Every arm at equal length, beside the main arm's accuracy interpolated linearly at its mean CoT tokens."""
    reference = main_arm(arms)
    points = sorted(_point(arm) for arm in arms if arm.arm == reference and _is_known(arm))
    curve = np.array(points, dtype=float).reshape(-1, 2)
    compared = []
    for arm in filter(_is_known, arms):
        tokens, accuracy = _point(arm)
        inside = len(curve) > 0 and arm.arm != reference and curve[0, 0] <= tokens <= curve[-1, 0]
        at_equal = float(np.interp(tokens, curve[:, 0], curve[:, 1])) if inside else None
        compared.append(
            Matched(
                arm=arm.arm,
                ratio=arm.ratio,
                cot_tokens_mean=tokens,
                accuracy=accuracy,
                on_front=not any(_dominates(other, arm) for other in arms if _is_known(other)),
                reference_accuracy=at_equal,
                advantage=None if at_equal is None else accuracy - at_equal,
            )
        )
    return compared


def control_wins(arms: Sequence[ArmResult], method: str | None = None) -> list[tuple[ArmResult, ArmResult]]:
    """(control, method at a ratio below 1) wherever a control is better at no more tokens.

    `method` is the name of one of the method's arms, by default the main one.
    """
    method = method or main_arm(arms)
    known = [arm for arm in arms if _is_known(arm)]
    controls = [arm for arm in known if arm.role == "control"]
    compressed = [arm for arm in known if arm.arm == method and arm.ratio is not None and arm.ratio < 1]
    return [(control, arm) for arm in compressed for control in controls if _dominates(control, arm)]


def best_win(wins: Sequence[tuple[ArmResult, ArmResult]]) -> tuple[ArmResult, ArmResult]:
    """The win with the widest gap in accuracy, one that needs no training first."""
    return max(wins, key=lambda win: (not win[0].trained, (win[0].accuracy or 0) - (win[1].accuracy or 0)))


def match_of(control: ArmResult, arms: Sequence[ArmResult]) -> ArmResult | None:
    """The main arm's most accurate row with as few tokens as a control (within 1%), if it is at least as accurate."""
    main, (tokens, accuracy) = main_arm(arms), _point(control)
    rows = [arm for arm in arms if arm.arm == main and _is_known(arm) and _point(arm)[0] <= 1.01 * tokens]
    best = max(rows, key=lambda arm: _point(arm)[1], default=None)
    return best if best is not None and _point(best)[1] >= accuracy else None


def _is_method_at_ratio(arm: ArmResult) -> bool:
    return arm.role == "method" and arm.shortened_by == "ratio" and arm.ratio is not None


def _is_known(arm: ArmResult) -> bool:
    return arm.accuracy is not None and arm.cot_tokens_mean is not None


def _point(arm: ArmResult) -> tuple[float, float]:
    """(mean CoT tokens, accuracy) of an arm that has both."""
    assert arm.cot_tokens_mean is not None
    assert arm.accuracy is not None
    return arm.cot_tokens_mean, arm.accuracy


def _dominates(arm: ArmResult, other: ArmResult) -> bool:
    """Whether `arm` is at least as accurate as `other` with no more tokens, and better in one of the two."""
    (tokens, accuracy), (other_tokens, other_accuracy) = _point(arm), _point(other)
    fewer, better = other_tokens - tokens, accuracy - other_accuracy
    return fewer >= 0 and better >= 0 and (fewer > 0 or better > 0)
