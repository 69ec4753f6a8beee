"""`skip_steps`: the chain with whole steps left out, after LM_skip (arXiv 2411.01855).

A step is a line, or a sentence where the chain is a single line. Those that calculate least go first: the share of a
step's characters that are digits or operators is its importance. Every number of steps from one to all but one is a
candidate, so that each ratio finds the cut that is nearest to it.

    candidates: {sources: {prune: {}, skip_steps: {}}}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tokenskip.config import PruneConfig
from tokenskip.errors import ConfigError
from tokenskip.pruning.atoms import split_units
from tokenskip.pruning.chain import Chain
from tokenskip.types import Completion, Pruned, Scores, Span, TokenCounter, Trajectory

_CALCULATES = re.compile(r"[\d+\-*/×÷=<>^%]")
_STEPS = PruneConfig(unit="step")


class SkipSteps:
    """At most `most` cuts of a chain, evenly over the numbers of steps that may stay."""

    name = "skip_steps"

    def __init__(self, count: TokenCounter, *, most: int = 16) -> None:
        if most < 1:
            raise ConfigError(f"source skip_steps: most is at least 1; given: {most}")
        self.count, self.most = count, most

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [[] if chain.dropped else list(self._cuts(chain.cot)) for chain in chains]

    def _cuts(self, cot: str) -> list[Pruned]:
        chain = Chain(cot, _shares(cot), self.count, _STEPS)
        numbers = range(len(chain.units) - 1, 0, -1)
        stride = -(-len(numbers) // self.most) or 1
        whole = chain.count(len(chain.units)) or 1
        return [
            chain.pruned(round(chain.count(n_kept) / whole, 4), n_kept, _STEPS, by_ratio=False)
            for n_kept in numbers[::stride]
        ]


def _shares(cot: str) -> Scores:
    """Per step the share of its characters that calculate; a step that repeats the result of another has as many."""
    edges = [0, *(end for _, end in split_units(cot, "step", atoms=True))]
    spans = []
    for start, end in pairwise(edges):
        inked = len("".join(cot[start:end].split()))
        if inked:
            spans.append(Span(start, end, len(_CALCULATES.findall(cot, start, end)) / inked))
    return Scores(scorer="skip_steps", spans=tuple(spans))
