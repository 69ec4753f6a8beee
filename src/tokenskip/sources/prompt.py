"""`prompt`: the untouched model under terse instructions, so that whatever a prompt can do is in the data.

    candidates: {sources: {prune: {}, prompt: {instructions: [be_concise, draft, budget]}}}

`instructions` are names of `tokenskip.prompting.terse`, or texts of the user's own, in which `{p}` is the percentage of
words to leave out and `{budget}` the number of tokens; such a one is asked once for every ratio. With `splice: true`
there are also chains that begin as the whole one and go on as such an answer (`tokenskip.sources._splice`), which reach
the lengths that no instruction does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenskip.errors import ConfigError, unknown_name
from tokenskip.prompting.terse import TERSE, Terse, spelled
from tokenskip.sources._splice import splices
from tokenskip.types import Ask, Completion, Pruned, Request, TokenCounter, Trajectory

DEFAULT = ("be_concise", "only_numbers", "abbreviate", "lc", "draft", "budget")


class Prompt:
    """`samples` answers under each instruction; greedy ones unless a temperature is given."""

    name = "prompt"

    def __init__(
        self,
        ask: Ask,
        ratios: Sequence[float],
        count: TokenCounter,
        *,
        instructions: Sequence[str] = DEFAULT,
        temperature: float = 0.0,
        samples: int = 1,
        splice: bool = False,
    ) -> None:
        if isinstance(instructions, str) or not instructions:
            raise ConfigError(f"source prompt: instructions is a list of names or texts; given: {instructions!r}")
        if samples > 1 and temperature == 0:
            raise ConfigError(f"source prompt: samples={samples} needs a temperature above 0")
        self.ask, self.ratios, self.temperature, self.samples = ask, ratios, temperature, samples
        self.count, self.splice = count, splice
        self.ways = [_way(instruction) for instruction in instructions]

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        answers = self.ask([list(self._requests(chain)) for chain in chains])
        return [[*written, *self._splices(chain, written)] for chain, written in zip(chains, answers, strict=True)]

    def _splices(self, chain: Trajectory, written: Sequence[Completion]) -> Iterator[Completion]:
        if not self.splice or chain.dropped:
            return
        for text in splices(chain.head + chain.cot, [one.text for one in written if one.finish == "stop"]):
            yield Completion(text=text, n_tokens=self.count(text), finish="stop")

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
