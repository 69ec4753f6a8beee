"""A backend without a model, for tests and dry runs: answers come from a function or a table of yours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tokenskip.types import Completion, Prompt, Sampling


class ScriptedBackend:
    """Answers each prompt by `script`: a function of the prompt, or a mapping from the last turn's content to text."""

    def __init__(self, script: Callable[[Prompt], str] | Mapping[str, str]) -> None:
        self.script = script

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`; a prompt that the mapping lacks becomes an error record. Tokens are words here."""
        return [self._complete(prompt, sampling) for prompt in prompts]

    def close(self) -> None:
        """Nothing to free."""

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if callable(self.script):
            text = self.script(prompt)
        else:
            question = str(prompt.messages[-1]["content"])
            if question not in self.script:
                return Completion(text="", n_tokens=0, finish="error", error=f"no script for {question[:40]!r}")
            text = self.script[question]
        n_tokens = len(text.split())
        cap = prompt.max_new_tokens or sampling.max_new_tokens
        return Completion(text=text, n_tokens=n_tokens, finish="length" if n_tokens > cap else "stop")
