"""A chain of thought as coloured pieces: what each ratio keeps of it, and how important every piece is.

Pure: a sample of `results.json` in, pieces of text out. `report.html` and `example.png` both show these.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from tokenskip.evaluation.comparisons import HEADLINE_RATIO
from tokenskip.evaluation.schema import Sample


class Segment(NamedTuple):
    """A piece of a CoT: bit k of `mask` says whether the k-th ratio keeps it; `level` 0-4 ranks its importance."""

    text: str
    mask: int
    value: float | None
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """A sample as pages show it: its ratios ascending, its CoT in segments, and the number of the ratio shown first."""

    sample: Sample
    ratios: tuple[str, ...]
    shown: int
    segments: list[Segment]


def sample_view(sample: Sample) -> SampleView:
    """How a sample is shown, first at the ratio nearest to the headline's."""
    ratios = tuple(sorted(sample.kept_by_ratio, key=float))
    shown = min(range(len(ratios)), key=lambda k: abs(float(ratios[k]) - HEADLINE_RATIO), default=0)
    return SampleView(sample=sample, ratios=ratios, shown=shown, segments=segments(sample, ratios))


def segments(sample: Sample, ratios: tuple[str, ...]) -> list[Segment]:
    """The CoT cut wherever importance or being kept changes; the texts concatenate to the CoT."""
    cot, spans = sample.cot, sample.importance
    masks, values = [0] * len(cot), [-1] * len(cot)
    for bit, ratio in enumerate(ratios):
        for start, end in sample.kept_by_ratio[ratio]:
            for position in range(max(0, start), min(end, len(cot))):
                masks[position] |= 1 << bit
    for index, (start, end, _) in enumerate(spans):
        for position in range(max(0, start), min(end, len(cot))):
            values[position] = index
    order = sorted(range(len(spans)), key=lambda index: spans[index][2])
    levels = {index: 5 * rank // len(spans) for rank, index in enumerate(order)}
    edges = [i for i in range(len(cot)) if i == 0 or masks[i] != masks[i - 1] or values[i] != values[i - 1]]
    return [
        Segment(cot[i:j], masks[i], spans[values[i]][2] if values[i] >= 0 else None, levels.get(values[i], 0))
        for i, j in pairwise([*edges, len(cot)])
    ]
