"""Which ratio to write into the prompt so that the chain comes out at the ratio that was asked for. Pure.

A tuned model drifts from the ratio (the paper, table 1: asked .5, got .58 on MATH). `fit` takes what was measured at
some prompted ratios, makes it monotone by isotonic regression (pool adjacent violators; Barlow et al., 1972) and
inverts it: piecewise linear between the measured points. Nothing is extrapolated: a ratio that no prompt reached is
refused, or gets the nearest one that was (`clamp`).

    RatioMap(((0.55, 0.4), (0.9, 0.95))).prompted(0.6)      # 0.48
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tokenskip.errors import ConfigError

DIGITS = 2
"""Decimals of a prompted ratio: models are trained on one or two."""


@dataclass(frozen=True, slots=True)
class RatioMap:
    """Knots (ratio asked for, ratio to prompt with), strictly increasing in both; straight lines between them."""

    knots: tuple[tuple[float, float], ...]
    clamp: bool = False

    @property
    def low(self) -> float:
        """The lowest ratio that a prompt reached."""
        return self.knots[0][0]

    @property
    def high(self) -> float:
        """The highest ratio below the whole chain that a prompt reached."""
        return self.knots[-1][0]

    def reaches(self, ratio: float) -> bool:
        """Whether `ratio` lies between measured ones; the whole chain needs no prompt."""
        return ratio == 1 or self.low <= ratio <= self.high

    def prompted(self, ratio: float) -> float:
        """The ratio to prompt with; 1 for 1.

        Raises:
            ConfigError: no prompt reached `ratio`, and `clamp` is off.
        """
        if ratio == 1:
            return 1.0
        if not self.clamp and not self.reaches(ratio):
            raise ConfigError(
                f"ratio {ratio:g} is outside of what calibration reached ({self.low:g} to {self.high:g}): ask for one "
                "inside, or calibrate with --clamp"
            )
        before = self.knots[0]
        if ratio <= before[0]:
            return before[1]
        for knot in self.knots[1:]:
            if ratio <= knot[0]:
                return round(before[1] + (ratio - before[0]) * _slope(before, knot), DIGITS)
            before = knot
        return before[1]

    def jinja(self) -> str:
        """The same as a piece of the ratio control's template: it sets `tsk.ratio`. Reads back by `read`."""
        lines = [f"{{#- {_MARK}{json.dumps({'clamp': self.clamp, 'knots': self.knots})} -#}}"]
        if not self.clamp:
            text = f" is outside of what calibration reached: {self.low:g} to {self.high:g}"
            lines += [
                f"{{%- if tsk.ratio < {self.low!r} or tsk.ratio > {self.high!r} -%}}",
                f"{{{{- raise_exception('compression_ratio ' + (tsk.ratio | string) + '{text}') -}}}}",
                "{%- endif -%}",
            ]
        before = self.knots[0]
        lines.append(f"{{%- if tsk.ratio <= {before[0]!r} -%}}{{%- set tsk.ratio = {before[1]!r} -%}}")
        for knot in self.knots[1:]:
            line = f"({before[1]!r} + (tsk.ratio - {before[0]!r}) * {_slope(before, knot)!r}) | round({DIGITS})"
            lines.append(f"{{%- elif tsk.ratio <= {knot[0]!r} -%}}{{%- set tsk.ratio = {line} -%}}")
            before = knot
        lines.append(f"{{%- else -%}}{{%- set tsk.ratio = {before[1]!r} -%}}{{%- endif -%}}")
        return "\n".join(lines) + "\n"


_MARK = "tokenskip: ratio map "


def read(template: str) -> RatioMap | None:
    """The map inside a chat template; None when it has none."""
    _, found, rest = template.partition(_MARK)
    if not found:
        return None
    values = json.loads(rest.partition(" -#}")[0])
    return RatioMap(tuple((knot[0], knot[1]) for knot in values["knots"]), values["clamp"])


def fit(points: Sequence[tuple[float, float]], *, clamp: bool = False) -> RatioMap | None:
    """The map from measured points (prompted ratio, achieved ratio); None when the prompt does not move the length.

    Prompts that achieve the same, or that isotonic regression pools, become one knot at the middle of their range.
    """
    ordered = sorted(point for point in points if point[0] < 1)
    achieved = isotonic([point[1] for point in ordered])
    ranges: dict[float, list[float]] = {}
    for (prompted, _), value in zip(ordered, achieved, strict=True):
        ranges.setdefault(round(value, 4), []).append(prompted)
    knots = tuple((value, round((some[0] + some[-1]) / 2, 4)) for value, some in ranges.items() if 0 < value < 1)
    return RatioMap(knots, clamp) if len(knots) > 1 else None


def isotonic(values: Sequence[float]) -> list[float]:
    """The increasing sequence nearest to `values` in the sum of squares (pool adjacent violators)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, size = value, 1
        while blocks and blocks[-1][0] >= mean:
            other, n = blocks.pop()
            mean, size = (mean * size + other * n) / (size + n), size + n
        blocks.append((mean, size))
    return [mean for mean, size in blocks for _ in range(size)]


def _slope(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[1] - before[1]) / (after[0] - before[0])
