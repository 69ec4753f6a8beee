"""`rewrite`: another model, behind an OpenAI-compatible server, is asked to rewrite the chain at every ratio.

As C3oT (arXiv 2412.11664) and EasyDistill's `cot_long2short` do, but for each ratio, and the answer that the rewritten
chain comes to is graded like any other.

    candidates:
      sources:
        prune: {}
        rewrite: {server: {url: "http://localhost:8000", served: Qwen/Qwen2.5-7B-Instruct}}

`server` are options of the openai backend. A server that fails half way ends the run with one line; what it answered is
kept, and the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenskip.errors import ConfigError
from tokenskip.types import Ask, Completion, Pruned, Request, Trajectory

TEXT = """Below are a question and a solution to it. Rewrite the solution so that it uses about {budget} tokens ({p}% \
fewer than now): keep every number, every equation and the order of the steps, and leave out what is not needed to \
follow them. Do not solve the question in another way. Reply with the rewritten solution only, and end it exactly as \
the solution ends.

Question:
{question}

Solution:
{solution}"""


class Rewrite:
    """`samples` rewritten chains a ratio. `instruction` may say it otherwise, with the same fields in braces."""

    name = "rewrite"

    def __init__(
        self,
        ask: Ask,
        ratios: Sequence[float],
        *,
        instruction: str = TEXT,
        temperature: float = 0.0,
        samples: int = 1,
    ) -> None:
        if "{solution}" not in instruction:
            raise ConfigError(f"source rewrite: instruction must contain {{solution}}; given: {instruction!r}")
        if samples > 1 and temperature == 0:
            raise ConfigError(f"source rewrite: samples={samples} needs a temperature above 0")
        self.ask, self.ratios, self.instruction = ask, ratios, instruction
        self.temperature, self.samples = temperature, samples

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [list(completions) for completions in self.ask([list(self._requests(chain)) for chain in chains])]

    def _requests(self, chain: Trajectory) -> Iterator[Request]:
        if chain.dropped:  # a wrong chain would be rewritten into another wrong one
            return
        asked = [ratio for ratio in self.ratios for _ in range(self.samples)]
        for number, ratio in enumerate(asked, start=1):
            fields = {
                "{budget}": str(max(1, round(ratio * chain.n_cot_tokens))),
                "{p}": f"{100 * (1 - ratio):.4g}",
                "{question}": chain.question,
                "{solution}": chain.cot + chain.tail,
            }
            content = self.instruction
            for field, value in fields.items():  # the texts last: braces in them mean nothing
                content = content.replace(field, value)
            yield Request(chain=chain, content=content, temperature=self.temperature, sample=number)
