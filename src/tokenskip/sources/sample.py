"""`sample`: the untouched model's own answers, drawn at several temperatures; the short ones among them are wanted.

On models that think, their own shorter right answers train better than pruned ones (TokenSqueeze, arXiv 2511.13223).

    candidates: {sources: {prune: {}, sample: {temperatures: [0.7, 1.0], samples: 4}}}
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenskip.errors import ConfigError
from tokenskip.types import Ask, Completion, Pruned, Request, Trajectory


class Sample:
    """`samples` answers at each of `temperatures`."""

    name = "sample"

    def __init__(
        self, ask: Ask, *, temperatures: Sequence[float] = (0.7, 1.0), samples: int = 2, top_p: float = 1.0
    ) -> None:
        if not temperatures or min(temperatures) <= 0 or samples < 1:
            raise ConfigError(
                "source sample: temperatures are above 0 and samples at least 1; given: "
                f"temperatures={list(temperatures)}, samples={samples}"
            )
        self.ask, self.temperatures, self.top_p = ask, temperatures, top_p
        self.samples = samples

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [list(completions) for completions in self.ask([self._requests(chain) for chain in chains])]

    def _requests(self, chain: Trajectory) -> list[Request]:
        drawn = [temperature for temperature in self.temperatures for _ in range(self.samples)]
        return [
            Request(chain=chain, temperature=temperature, top_p=self.top_p, sample=number)
            for number, temperature in enumerate(drawn, start=1)
        ]
