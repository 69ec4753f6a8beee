"""A ratio as a value, and which ratio to prompt with so that the chain comes out at the ratio asked for. Pure.

`Ratio` is checked once and spelled once; `RatioRange` is all ratios between two, for a training on any of them.

A tuned model drifts from the ratio (the paper, table 1: asked .5, got .58 on MATH). `fit` takes what was measured at
some prompted ratios, makes it monotone by isotonic regression (Barlow et al., 1972) and inverts it: piecewise linear
between the measured points, or, for a model that cannot read between the ratios it was trained on (`steps`), the point
that came nearest. Nothing is extrapolated: a ratio that no prompt reached is refused, or gets the nearest one that was
(`clamp`).

    RatioMap(((0.55, 0.4), (0.9, 0.95))).prompted(0.6)      # 0.48
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tokenskip.errors import ConfigError

DIGITS = 2
"""Decimals of a prompted ratio: models are trained on one or two."""
SLACK = 0.02
"""How uncertain a measured ratio is."""
REACH = 0.03
"""A ratio that no prompt reached, but one missed by no more than this, is not refused: it gets that prompt."""


Spelling = Literal["short", "decimals", "scale"]
"""How a prompt writes a ratio: 0.6 as in the paper, 0.60, or as ten digits, `Ratio.written`."""
TENTHS = "0123456789X"
"""What a scale writes for 0 to 10 tenths."""


class Ratio(float):
    """The share of a chain's tokens to keep: above 0, at most 1, rounded to four decimals.

    `str` of it is its one spelling in labels and file names: `0.6`, never `0.60000000001`.

    Raises:
        ValueError: anything else; `Ratio.parse` says the same as a `ConfigError`.
    """

    def __new__(cls, given: float | str) -> Ratio:
        try:
            number = float(given)
            rounded = round(number, 4)
            if rounded > 0 and number <= 1:
                return super().__new__(cls, rounded)
        except (TypeError, ValueError, OverflowError):
            pass
        spelled = f"{given:g}" if isinstance(given, float) else repr(given)
        raise ValueError(f"a ratio is a number above 0 and at most 1, such as 0.6; given: {spelled}")

    @classmethod
    def parse(cls, given: float | str) -> Ratio:
        """The ratio that a user typed; ConfigError where it is none."""
        try:
            return cls(given)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def written(self, spelling: Spelling) -> str:
        """The ratio as prompts of that spelling write it; all but `short` have two decimals.

        `scale` is ten digits with the ratio as their mean in tenths: 0.87 is 8889999999, 0.97 is 999XXXXXXX (X for 10).
        For models so small that they take 0.87 and 0.78 for the same: they average the digits wherever these stand, and
        of a scale that is the ratio.
        """
        if spelling == "short":
            return str(self)
        if spelling == "decimals":
            return f"{self:.2f}"
        tenths, more = divmod(round(self * 100), 10)
        return TENTHS[tenths] * (10 - more) + TENTHS[tenths + 1 : tenths + 2] * more


class RatioRange(tuple[float, ...]):
    """The ratios from `low` to `high` in steps of .01, ascending, those of `without` left out.

    A model that is trained on many of them reads the ratio as a quantity; `without` keeps some back to test that.

    Raises:
        ValueError: not two ratios in ascending order.
    """

    low: float
    high: float
    without: tuple[float, ...]

    def __new__(cls, low: float | str, high: float | str, without: Sequence[float | str] = ()) -> RatioRange:
        first, last = Ratio(low), Ratio(high)
        if not first < last or any(round(end, DIGITS) != end for end in (first, last)):
            raise ValueError(
                f"a range goes from a lower to a higher ratio of two decimals; given: from {first} to {last}"
            )
        left_out = tuple(map(Ratio, without))
        steps = range(round(first * 100), round(last * 100) + 1)
        ratios = super().__new__(cls, (Ratio(step / 100) for step in steps if step / 100 not in left_out))
        ratios.low, ratios.high, ratios.without = first, last, left_out
        return ratios

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> RatioRange:
        """The range of a recipe's `{from: 0.3, to: 1.0}`, or of a template's settings."""
        if not {"from", "to"} <= set(given) <= {"from", "to", "without"}:
            raise ValueError("a range is {from: 0.3, to: 1.0}, and may have `without`, a list of ratios to leave out")
        return cls(given["from"], given["to"], given.get("without") or ())

    def dump(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"from": self.low, "to": self.high, **({"without": list(self.without)} if self.without else {})}


def spell(ratios: Sequence[float]) -> str:
    """Ratios for people: `0.5, 0.8, 1.0`, or `0.3 to 1.0`."""
    if isinstance(ratios, RatioRange):
        return f"{ratios.low} to {ratios.high}"
    return ", ".join(str(Ratio(ratio)) for ratio in sorted(ratios))


def covers(ratios: Sequence[float], ratio: float) -> bool:
    """Whether a model that was trained on `ratios` is asked for nothing new by `ratio`."""
    return ratios.low <= ratio <= ratios.high if isinstance(ratios, RatioRange) else ratio in ratios


def spaced(ratios: Sequence[float]) -> tuple[float, ...]:
    """A few ratios that stand for all: a list itself, of a range its ends and the tenths between."""
    if not isinstance(ratios, RatioRange):
        return tuple(ratios)
    tenths = (Ratio(step / 10) for step in range(1, 11))
    return tuple(sorted({ratios.low, *(ratio for ratio in tenths if ratios.low < ratio < ratios.high), ratios.high}))


@dataclass(frozen=True, slots=True)
class RatioMap:
    """Knots (ratio asked for, ratio to prompt with), strictly increasing in both.

    Between them straight lines, or with `steps` no other prompt than the knots' own.
    """

    knots: tuple[tuple[float, float], ...]
    clamp: bool = False
    steps: bool = False

    @property
    def low(self) -> float:
        """The lowest ratio that a prompt reached."""
        return self.knots[0][0]

    @property
    def high(self) -> float:
        """The highest ratio below the whole chain that a prompt reached."""
        return self.knots[-1][0]

    @property
    def _bounds(self) -> tuple[float, float]:
        return round(self.low - REACH, 4), round(self.high + REACH, 4)

    def reaches(self, ratio: float) -> bool:
        """Whether `ratio` lies between measured ones, give or take `REACH`; the whole chain needs no prompt."""
        low, high = self._bounds
        return ratio == 1 or low <= ratio <= high

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
        import numpy as np  # a third of what the command line takes to start

        achieved = [knot[0] for knot in self.knots]
        prompted = [knot[1] for knot in self.knots]
        if self.steps:
            middles = [(lower + upper) / 2 for lower, upper in pairwise(achieved)]
            return prompted[int(np.searchsorted(middles, ratio))]
        if not self.low < ratio <= self.high:
            return prompted[0] if ratio <= self.low else prompted[-1]
        return round(float(np.interp(ratio, achieved, prompted)), DIGITS)

    def _pieces(self) -> list[tuple[float, float, float, float]]:
        """(up to this ratio, prompt with this, plus the distance from this ratio, times this), ascending."""
        if self.steps:
            return [((left[0] + right[0]) / 2, left[1], left[0], 0.0) for left, right in pairwise(self.knots)]
        first = (self.low, self.knots[0][1], self.low, 0.0)
        return [first, *((right[0], left[1], left[0], _slope(left, right)) for left, right in pairwise(self.knots))]

    def jinja(self) -> str:
        """The same as a piece of the ratio control's template: it sets `tsk.ratio`. Reads back by `read`.

        With the template argument `UNMAPPED` it leaves the ratio alone: what it is given has been mapped already.
        """
        values = {"clamp": self.clamp, "steps": self.steps, "knots": self.knots}
        lines = [
            f"{{#- {_MARK}{json.dumps(values)} -#}}",
            f"{{%- if {UNMAPPED} is not defined or not {UNMAPPED} -%}}",
        ]
        if not self.clamp:
            low, high = self._bounds
            text = f" is outside of what calibration reached: {self.low:g} to {self.high:g}"
            lines += [
                f"{{%- if tsk.ratio < {low!r} or tsk.ratio > {high!r} -%}}",
                f"{{{{- raise_exception('compression_ratio ' + (tsk.ratio | string) + '{text}') -}}}}",
                "{%- endif -%}",
            ]
        word, scale = "if", 10**DIGITS
        for upper, prompted, start, slope in self._pieces():
            # as `round`, a filter that llama.cpp's engine does not have
            line = f"((({prompted!r} + (tsk.ratio - {start!r}) * {slope!r}) * {scale} + 0.5) | int) / {scale}"
            value = line if slope else repr(prompted)
            lines.append(f"{{%- {word} tsk.ratio <= {upper!r} -%}}{{%- set tsk.ratio = {value} -%}}")
            word = "elif"
        lines.append(f"{{%- else -%}}{{%- set tsk.ratio = {self.knots[-1][1]!r} -%}}{{%- endif -%}}{{%- endif -%}}")
        return "\n".join(lines) + "\n"


_MARK = "tokenskip: ratio map "
UNMAPPED = "compression_ratio_unmapped"
"""Template argument that switches the map in a chat template off: the ratio is then written as it was given."""


def read(template: str) -> RatioMap | None:
    """The map inside a chat template; None when it has none.

    Raises:
        ConfigError: it is damaged.
    """
    _, found, rest = template.partition(_MARK)
    if not found:
        return None
    try:
        values = json.loads(rest.partition(" -#}")[0])
        knots = tuple((float(asked), float(prompted)) for asked, prompted in values["knots"])
        return RatioMap(knots, bool(values["clamp"]), bool(values.get("steps", False)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError("the ratio map in the chat template is damaged: run `tokenskip calibrate` again") from None


def fit(points: Sequence[tuple[float, float]], *, clamp: bool = False, steps: bool = False) -> RatioMap | None:
    """The map from measured points (prompted ratio, achieved ratio); None when the prompt does not move the length.

    Prompts that achieve the same, or that isotonic regression pools, become one knot: the middle one of them.
    """
    from scipy.optimize import isotonic_regression

    ordered = sorted(point for point in points if point[0] < 1)
    if len(ordered) < 2:
        return None
    achieved = isotonic_regression([point[1] for point in ordered]).x.tolist()
    ranges: dict[float, list[float]] = {}
    for (prompted, _), value in zip(ordered, achieved, strict=True):
        # pooled values are equal up to float error; four digits make them one key
        ranges.setdefault(round(value, 4), []).append(prompted)
    knots = tuple((value, some[len(some) // 2]) for value, some in ranges.items() if 0 < value < 1)
    return RatioMap(knots, clamp, steps) if len(knots) > 1 else None


def understood(points: Sequence[tuple[float, float]], trained: Sequence[float]) -> list[tuple[float, float]]:
    """The measured points, ascending, without those of untrained ratios that the model takes for something else.

    Between two trained ratios an untrained one should achieve about what the line between theirs says (within a quarter
    of their distance, and `SLACK`), below all of them no more than the lowest, above no less than the highest. Some
    models see "0.65" as tokens that they only know from elsewhere, and then achieve anything.
    """
    known = sorted(point for point in points if point[0] in trained and point[0] < 1)

    def fits(prompted: float, achieved: float) -> bool:
        for left, right in pairwise(known):
            if left[0] < prompted < right[0]:
                line = left[1] + (prompted - left[0]) * _slope(left, right)
                return abs(achieved - line) <= abs(right[1] - left[1]) / 4 + SLACK
        if prompted < known[0][0]:
            return achieved <= known[0][1] + SLACK
        return achieved >= known[-1][1] - SLACK

    return sorted(point for point in points if point[0] in trained or not known or fits(*point))


def _slope(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[1] - before[1]) / (after[0] - before[0])
