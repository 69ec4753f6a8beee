"""The problems of the embedded reasoner: running-total stories from `tokenskip.embedded.family`.

Reads and writes nothing: problems are drawn by number, the same ones every time. Option `dev: true` evaluates on the
development split instead of the test split; `owners: 2` or `3` draws stories of two to so many owners and a total,
which the embedded model has never seen (`tokenskip.embedded.owners`).

    tokenskip run RECIPE.yaml --set task.name=embedded --set task.test_limit=200
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenskip.answers.compare import compare, extract_answer
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import ConfigError, unknown_name
from tokenskip.types import Grade, Problem

SIZES = {"train": 2000, "test": 1000}
OPTIONS = {"dev": False, "owners": 1}
"""Option -> what holds without it."""


class EmbeddedTask:
    """Numeric answers of generated problems; there is always one more, so a limit may exceed the default size."""

    def __init__(self, config: TaskConfig, prompt: PromptConfig | None = None) -> None:
        """Checks the configuration.

        Raises:
            ConfigError: files, fields or options that the generated problems do not have.
        """
        for option in config.options:
            if option not in OPTIONS:
                raise ConfigError(f"task.options of embedded: {unknown_name('option', option, OPTIONS)}")
        dev, owners = (config.options.get(option, default) for option, default in OPTIONS.items())
        if not isinstance(dev, bool):
            raise ConfigError(f"task.options.dev must be true or false; given: {dev!r}")
        if isinstance(owners, bool) or owners not in (1, 2, 3):
            raise ConfigError(f"task.options.owners must be 1, 2 or 3; given: {owners!r}")
        given = next((key for key in ("train", "test", "fields") if getattr(config, key)), None)
        if given:
            raise ConfigError(f"task.{given} needs a task that reads files, such as task.name=jsonl; given: embedded")
        self.prompt = prompt or PromptConfig()
        self.dev, self.owners = dev, int(owners)

    def problems(self, split: str, limit: int | None = None) -> Iterable[Problem]:
        """The first `limit` problems of `train` or `test` (default: 2,000 and 1,000)."""
        if split not in SIZES:
            raise ConfigError(unknown_name("split", split, SIZES))
        drawn_from = "dev" if split == "test" and self.dev else split
        return self._drawn(drawn_from, SIZES[split] if limit is None else limit)

    def development(self, limit: int) -> Iterable[Problem]:
        """The first `limit` problems that are neither trained nor judged on."""
        return self._drawn("dev", limit)

    def _drawn(self, split: str, n: int) -> Iterable[Problem]:
        from tokenskip.embedded import family, owners

        return family.problems(split, n) if self.owners == 1 else owners.problems(split, n, self.owners)

    def extract(self, tail: str) -> str | None:
        """The number in the part after the CoT."""
        return extract_answer(tail, numeric=True, trigger=self.prompt.trigger, think=self.prompt.think)

    def grade(self, answer: str, gold: str) -> Grade:
        """Compared as numbers."""
        return compare(answer, gold)
