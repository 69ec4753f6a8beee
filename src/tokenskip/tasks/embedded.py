"""The problems of the embedded reasoner: running-total stories from `tokenskip.embedded.family`.

Reads and writes nothing: problems are drawn by number, the same ones every time. Option `dev: true` evaluates on the
development split instead of the test split.

    tokenskip run RECIPE.yaml --set task.name=embedded --set task.test_limit=200
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import ConfigError, unknown_name
from tokenskip.generation.answers import compare, extract_answer
from tokenskip.types import Grade, Problem

SIZES = {"train": 2000, "test": 1000}


class EmbeddedTask:
    """Numeric answers of generated problems; there is always one more, so a limit may exceed the default size."""

    def __init__(self, config: TaskConfig, prompt: PromptConfig | None = None) -> None:
        """Checks the configuration.

        Raises:
            ConfigError: files, fields or options that the generated problems do not have.
        """
        for option, value in config.options.items():
            if option != "dev":
                raise ConfigError(f"task.options of embedded: {unknown_name('option', option, ['dev'])}")
            if not isinstance(value, bool):
                raise ConfigError(f"task.options.dev must be true or false; given: {value!r}")
        given = next((key for key in ("train", "test", "fields") if getattr(config, key)), None)
        if given:
            raise ConfigError(f"task.{given} needs a task that reads files, such as task.name=jsonl; given: embedded")
        self.prompt = prompt or PromptConfig()
        self.dev = bool(config.options.get("dev", False))

    def problems(self, split: str, limit: int | None = None) -> Iterable[Problem]:
        """The first `limit` problems of `train` or `test` (default: 2,000 and 1,000)."""
        from tokenskip.embedded import family

        if split not in SIZES:
            raise ConfigError(unknown_name("split", split, SIZES))
        drawn_from = "dev" if split == "test" and self.dev else split
        return family.problems(drawn_from, SIZES[split] if limit is None else limit)

    def development(self, limit: int) -> Iterable[Problem]:
        """The first `limit` problems that are neither trained nor judged on."""
        from tokenskip.embedded import family

        return family.problems("dev", limit)

    def extract(self, tail: str) -> str | None:
        """The number in the part after the CoT."""
        return extract_answer(tail, numeric=True, trigger=self.prompt.trigger, think=self.prompt.think)

    def grade(self, answer: str, gold: str) -> Grade:
        """Compared as numbers."""
        return compare(answer, gold)
