"""What the settings of a recipe are made of: the base of all sections, and the types of ratios. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapSerializer, WrapValidator

from tokenskip.prompting.effort import check_effort
from tokenskip.ratio import Ratio, RatioRange

PAPER_RATIOS: tuple[float, ...] = tuple(map(Ratio, (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)))
"""The ratios the paper trains on (section 4.1)."""


def _distinct(ratios: tuple[float, ...]) -> tuple[float, ...]:
    twice = next((ratio for ratio in ratios if ratios.count(ratio) > 1), None)
    if twice is not None:
        raise ValueError(f"the ratio {twice} is given twice: leave one out")
    return ratios


Distinct = Annotated[tuple[Annotated[float, AfterValidator(Ratio)], ...], AfterValidator(_distinct)]
"""Ratios, each once."""
Ratios = Annotated[Distinct, Field(min_length=1)]
"""At least one ratio, each once."""


def _range_or_list(given: Any, read: Callable[[Any], tuple[float, ...]]) -> tuple[float, ...]:
    if isinstance(given, RatioRange):
        return given
    return RatioRange.read(given) if isinstance(given, Mapping) else read(given)


def _dump_ratios(ratios: tuple[float, ...], dump: Callable[[Any], Any]) -> Any:
    return ratios.dump() if isinstance(ratios, RatioRange) else dump(ratios)


RatiosOrRange = Annotated[Ratios, WrapValidator(_range_or_list), WrapSerializer(_dump_ratios)]
"""Ratios as a list, or all of a range, as `{from: 0.3, to: 1.0}`."""


def _draws(given: Any) -> Any:
    if given in ("one", "all") or (isinstance(given, int) and not isinstance(given, bool) and given > 0):
        return given
    raise ValueError("one, all, or how many ratios a chain is cut to, such as 6")


Draws = Annotated[str | int, BeforeValidator(_draws)]
"""`one`, `all`, or how many."""


Effort = Annotated[dict[str, float], AfterValidator(check_effort)]
"""Words of `reasoning_effort`, each with its ratio."""


class Section(BaseModel):
    """Base of all sections: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
