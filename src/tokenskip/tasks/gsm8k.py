"""GSM8K (Cobbe et al. 2021): grade-school word problems whose answers are numbers.

Reads `question` and `answer` (a solution, then `#### 72`) from a local file or from openai/gsm8k on the hub.

    tokenskip run RECIPE.yaml --set task.name=gsm8k --set task.train=train.jsonl --set task.test=test.jsonl
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from tokenskip.answers.compare import parse_number
from tokenskip.answers.latex import mend_backslashes
from tokenskip.errors import DataError
from tokenskip.tasks._base import RowsTask

_CALCULATOR = re.compile(r"<<[^<>]*>>")


class Gsm8k(RowsTask):
    """Numeric answers; the gold one comes after `####`."""

    name = "gsm8k"
    numeric = True
    sources: ClassVar[Mapping[str, str]] = {"train": "openai/gsm8k:main", "test": "openai/gsm8k:main"}
    columns: ClassVar[Mapping[str, str]] = {**RowsTask.columns, "gold": "answer", "solution": "answer"}

    def solution(self, row: dict[str, Any]) -> str | None:
        """The solution without its calculator notes (`<<48/2=24>>`), up to the `####`; None for a bare number."""
        text, marked, _ = str(super().solution(row) or "").rpartition("####")
        return _CALCULATOR.sub("", text).strip() if marked else None

    def gold(self, text: str, where: str) -> str:
        """What follows the last `####`; a bare number is taken as it is."""
        gold = mend_backslashes(text).rsplit("####", 1)[-1].strip()
        if parse_number(gold) is None:
            raise DataError(f"{where}: field {self.fields['gold']!r} holds no number after '#### '")
        return gold
