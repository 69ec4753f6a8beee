"""`on_policy`: the tuned model's own chains at every ratio, asked for again after each round of training.

Pruned text is off-policy: the model would not have written it. So after the first fine-tuning the tuned model answers
the training problems at the ratios that it was trained on, the base is fine-tuned on the pool with these in it, and so
on: expert iteration, as in STaR (arXiv 2203.14465) and ReST (2308.08998).

    candidates: {sources: {prune: {}, on_policy: {rounds: 2, temperature: 0.7, samples: 2}}}
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenskip.errors import ConfigError
from tokenskip.types import Ask, Completion, Pruned, Request, Trajectory


class OnPolicy:
    """`samples` answers at every ratio below 1, whole chains being the model's own already. `rounds` is the stage's."""

    name = "on_policy"

    def __init__(
        self,
        ask: Ask,
        ratios: Sequence[float],
        *,
        rounds: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        samples: int = 1,
    ) -> None:
        if rounds < 1 or samples < 1:
            raise ConfigError(f"source on_policy: rounds and samples are at least 1; given: {rounds}, {samples}")
        if samples > 1 and temperature == 0:
            raise ConfigError(f"source on_policy: samples={samples} needs a temperature above 0")
        self.ask, self.ratios, self.samples = ask, ratios, samples
        self.temperature, self.top_p = temperature, top_p

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [list(completions) for completions in self.ask([self._requests(chain) for chain in chains])]

    def _requests(self, chain: Trajectory) -> list[Request]:
        asked = [ratio for ratio in self.ratios for _ in range(self.samples)]
        return [
            Request(chain=chain, ratio=ratio, temperature=self.temperature, top_p=self.top_p, sample=number)
            for number, ratio in enumerate(asked, start=1)
        ]
