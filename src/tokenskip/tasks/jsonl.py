"""Anyone's own problems: one JSON object a line, field names as configured.

Reads `task.train` and `task.test`; the fields are `id` (optional: SPLIT-LINE), `question`, `gold` and `level`
(optional), or what `task.fields` calls them.

    tokenskip run RECIPE.yaml --set task.name=jsonl --set task.train=mine.jsonl --set task.fields.gold=answer

An `answer_fn` of yours finds the answer where ours does not: it is given the part of a completion after the chain of
thought, and returns the answer, or None when there is none.

    tokenskip run RECIPE.yaml --set task.options.answer_fn=my_package.my_module:last_word
"""

from __future__ import annotations

from typing import Any

from tokenskip import plugins
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import ConfigError
from tokenskip.tasks._base import RowsTask


class JsonlTask(RowsTask):
    """Answers of any kind.

    Option `numeric: true` says that they are numbers, so that words around one do not count; option
    `answer_fn: package.module:attr` names a function of yours that finds them.
    """

    options = ("answer_fn", "numeric")

    def __init__(self, config: TaskConfig, prompt: PromptConfig | None = None) -> None:
        """As `RowsTask`; ConfigError also when `numeric` is not a bool or `answer_fn` is no function to be found."""
        super().__init__(config, prompt)
        numeric = config.options.get("numeric", False)
        if not isinstance(numeric, bool):
            raise ConfigError(f"task.options.numeric must be true or false; given: {numeric!r}")
        self.numeric = numeric
        self.answer_fn = _answer_fn(config.options.get("answer_fn"))

    def extract(self, tail: str) -> str | None:
        """The answer by `answer_fn`, or as `RowsTask` finds it. ConfigError when the function raises."""
        if self.answer_fn is None:
            return super().extract(tail)
        try:
            found = self.answer_fn(tail)
        except Exception as error:
            name, why = self.config.options["answer_fn"], f"{type(error).__name__}: {error}"
            raise ConfigError(f"task.options.answer_fn {name} failed on {tail[-80:]!r}: {why}") from error
        return None if found is None else str(found).strip() or None


def _answer_fn(name: Any) -> Any:
    if name is None:
        return None
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(f"task.options.answer_fn must be package.module:attr; given: {name!r}")
    function = plugins.load("answer_fn", name, {})
    if not callable(function):
        raise ConfigError(f"task.options.answer_fn {name}: {type(function).__name__} is no function")
    return function
