"""A backend whose lengths do not follow the ratio it is prompted with: `bent_ratio:BentRatio`, for recipes of tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenskip.types import Completion, Prompt, Sampling


class BentRatio:
    """Writes 100 words without a ratio and 30 + 65 × ratio with one: .5 gives .625, .9 gives .885.

    With `last_digit` it writes 100 × ratio, but reads nothing but the last decimal, so that .55 and .65 are .5 to it;
    with `ignores_ratio` it always writes 100.
    """

    def __init__(self, tokenizer: Any, *, ignores_ratio: bool = False, last_digit: bool = False) -> None:
        self.tokenizer, self.ignores_ratio, self.last_digit = tokenizer, ignores_ratio, last_digit

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`."""
        return [self._complete(prompt) for prompt in prompts]

    def close(self) -> None:
        """Nothing to free."""

    def _complete(self, prompt: Prompt) -> Completion:
        share = 1.0 if prompt.ratio == 1 or self.ignores_ratio else 0.3 + 0.65 * prompt.ratio
        if self.last_digit and prompt.ratio < 1:
            share = int(f"{prompt.ratio:g}"[-1]) / 10
        text = "So" * round(100 * share) + "\nThe final answer is 3."
        return Completion(text=text, n_tokens=len(self.tokenizer(text)["input_ids"]))
