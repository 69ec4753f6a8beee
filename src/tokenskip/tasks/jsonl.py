"""Anyone's own problems: one JSON object a line, field names as configured.

Reads `task.train` and `task.test`; the fields are `id` (optional: SPLIT-LINE), `question`, `gold` and `level`
(optional), or what `task.fields` calls them.

    tokenskip run RECIPE.yaml --set task.name=jsonl --set task.train=mine.jsonl --set task.fields.gold=answer
"""

from __future__ import annotations

from tokenskip.config import TaskConfig
from tokenskip.errors import ConfigError
from tokenskip.tasks._base import RowsTask


class JsonlTask(RowsTask):
    """Answers of any kind; option `numeric: true` says that they are numbers, so that words around one do not count."""

    options = ("numeric",)

    def __init__(self, config: TaskConfig) -> None:
        """As `RowsTask`; ConfigError also when `numeric` is neither true nor false."""
        super().__init__(config)
        numeric = config.options.get("numeric", False)
        if not isinstance(numeric, bool):
            raise ConfigError(f"task.options.numeric must be true or false; given: {numeric!r}")
        self.numeric = numeric
