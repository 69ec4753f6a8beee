"""`prompt`: the untouched model under terse instructions, so that whatever a prompt can do is in the data.

    candidates: {sources: {prune: {}, prompt: {instructions: [be_concise, draft, budget]}}}

`instructions` are names of `tokenskip.prompting.terse`, or texts of the user's own, in which `{p}` is the percentage of
words to leave out and `{budget}` the number of tokens; such a one is asked once for every ratio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenskip.errors import ConfigError, unknown_name
from tokenskip.prompting.terse import TERSE, Terse, spelled
from tokenskip.types import Ask, Completion, Pruned, Request, Trajectory

DEFAULT = ("be_concise", "only_numbers", "abbreviate", "lc", "draft", "budget")


class Prompt:
    """`samples` answers under each instruction; greedy ones unless a temperature is given."""

    name = "prompt"

    def __init__(
        self,
        ask: Ask,
        ratios: Sequence[float],
        *,
        instructions: Sequence[str] = DEFAULT,
        temperature: float = 0.0,
        samples: int = 1,
    ) -> None:
        if isinstance(instructions, str) or not instructions:
            raise ConfigError(f"source prompt: instructions is a list of names or texts; given: {instructions!r}")
        if samples > 1 and temperature == 0:
            raise ConfigError(f"source prompt: samples={samples} needs a temperature above 0")
        self.ask, self.ratios, self.temperature, self.samples = ask, ratios, temperature, samples
        self.ways = [_way(instruction) for instruction in instructions]

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [list(completions) for completions in self.ask([list(self._requests(chain)) for chain in chains])]

    def _requests(self, chain: Trajectory) -> Iterator[Request]:
        number = 0
        for way in self.ways:
            for ratio in self.ratios if way.per_ratio else (1.0,):
                for _ in range(self.samples):
                    number += 1
                    yield Request(
                        chain=chain,
                        instruction=spelled(way.instruction, ratio, chain.n_cot_tokens),
                        system=way.system,
                        shots=way.shots,
                        prefill=way.prefill,
                        temperature=self.temperature,
                        sample=number,
                    )


def _way(instruction: str) -> Terse:
    """What a name or a text of the user's own means."""
    if instruction in TERSE:
        return TERSE[instruction]
    if not any(character.isspace() for character in instruction.strip()):
        raise ConfigError(f"source prompt: {unknown_name('instruction', instruction, TERSE)}, or a text of your own")
    return Terse(about=instruction, instruction=instruction)
