"""MATH-500 (Lightman et al. 2023, out of MATH by Hendrycks et al. 2021): competition problems with LaTeX answers.

Reads `problem`, `answer`, `level` and `unique_id` from a local file or from HuggingFaceH4/MATH-500 on the hub, which
has the test problems only.

    tokenskip run RECIPE.yaml --set task.name=math500 --set task.train=train.jsonl --set task.test=test.jsonl

A gold field may also hold a whole solution, as the MATH training data does: its last box is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tokenskip.answers.compare import extract_boxed
from tokenskip.answers.latex import mend_backslashes
from tokenskip.tasks._base import RowsTask


class Math500(RowsTask):
    """LaTeX answers in a box."""

    name = "math500"
    sources: ClassVar[Mapping[str, str]] = {"test": "HuggingFaceH4/MATH-500"}
    columns: ClassVar[Mapping[str, str]] = {
        "id": "unique_id",
        "question": "problem",
        "gold": "answer",
        "level": "level",
        "solution": "solution",
    }

    def gold(self, text: str, where: str) -> str:
        """The answer, or what the last box of a whole solution holds."""
        text = mend_backslashes(text)
        return extract_boxed(text) or text.strip()
