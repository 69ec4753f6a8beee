"""Multiple choice, in the formats of CommonsenseQA and MMLU: the gold answer is a letter.

Reads rows whose choices are a list of texts (MMLU: `choices`, with `answer` a number from 0), or texts with labels
(CommonsenseQA: `choices` is `{"label": [...], "text": [...]}`, with `answerKey` a letter). The question that the model
sees has the choices under it, one `(A) text` a line.

    tokenskip run RECIPE.yaml --set task.name=choice --set task.train=train.jsonl --set task.test=test.jsonl \
        --set task.fields.gold=answerKey

On the hub the test problems of CommonsenseQA have no answers, so its validation split is the test; MMLU's training
problems are called auxiliary_train:

    --set task.train=tau/commonsense_qa --set task.test=tau/commonsense_qa@validation --set task.fields.gold=answerKey
    --set task.train=cais/mmlu:all@auxiliary_train --set task.test=cais/mmlu:all
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar

from tokenskip.config import TaskConfig
from tokenskip.errors import ConfigError, DataError
from tokenskip.generation.answers import extract_boxed
from tokenskip.jsonl import text_field
from tokenskip.tasks._base import RowsTask
from tokenskip.types import Grade, Problem

_MARKED = re.compile(r"(?i:answer|choice|option)\b[^A-Za-z0-9]*(?i:is\b)?[^A-Za-z0-9]*([A-Z])\b(?!['’])")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_FIRST = re.compile(r"^[^A-Za-z0-9]*([A-Z])(?=[).:,*$]|$)")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\{(.*)\}", re.DOTALL)


class Choice(RowsTask):
    """Letters; option `choices` is the field that holds the choices."""

    name = "choice"
    columns: ClassVar[Mapping[str, str]] = {"id": "id", "question": "question", "gold": "answer", "level": "subject"}
    options = ("choices",)

    def __init__(self, config: TaskConfig) -> None:
        """As `RowsTask`; ConfigError also when `choices` is no name."""
        super().__init__(config)
        self.choices = config.options.get("choices", "choices")
        if not isinstance(self.choices, str):
            raise ConfigError(f"task.options.choices must be the name of a field; given: {self.choices!r}")

    def problem(self, row: dict[str, Any], where: str, split: str, number: int) -> Problem:
        """The question with its choices under it, and the letter of the right one.

        Raises:
            DataError: no choices, or a gold answer that is none of them.
        """
        labels, texts = self._choices(row, where)
        asked = text_field(row, self.fields["question"], where)
        lines = "\n".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))
        id_field, level = self.fields["id"], row.get(self.fields["level"])
        return Problem(
            id=text_field(row, id_field, where) if id_field in row else f"{split}-{number}",
            question=f"{asked.strip()}\n{lines}",
            gold=self._letter(text_field(row, self.fields["gold"], where), labels, texts, where),
            level=None if level is None else str(level),
        )

    def extract(self, tail: str) -> str | None:
        """The letter in a box, behind "answer", in brackets, or at the beginning; the last one that is so marked."""
        tail = tail.rpartition("</think>")[2]
        boxed = extract_boxed(tail)
        if boxed is not None:
            while wrapped := _WRAPPED.fullmatch(boxed.strip()):
                boxed = wrapped.group(1)
            found = _FIRST.match(boxed) or _BRACKETED.search(boxed)
            return found.group(1) if found else boxed.strip() or None
        for pattern in (_MARKED, _BRACKETED):
            if marked := pattern.findall(tail):
                return str(marked[-1]).upper()
        first = _FIRST.match(tail.strip())
        return first.group(1) if first else None

    def grade(self, answer: str, gold: str) -> Grade:
        """The same letter, in any case."""
        letter = answer.strip().strip("().").upper()
        if len(letter) != 1:
            return Grade(correct=None, reason="not a letter", extracted=answer)
        same = letter == gold.upper()
        return Grade(correct=same, reason="equal text" if same else "differs", extracted=letter)

    def _choices(self, row: Mapping[str, Any], where: str) -> tuple[Sequence[str], Sequence[str]]:
        given = row.get(self.choices)
        if isinstance(given, Mapping) and isinstance(given.get("text"), Sequence):
            texts = [str(text) for text in given["text"]]
            labels = [str(label).strip() for label in given.get("label") or ascii_uppercase[: len(texts)]]
        elif isinstance(given, Sequence) and not isinstance(given, str):
            texts = [str(text) for text in given]
            labels = list(ascii_uppercase[: len(texts)])
        else:
            raise DataError(
                f"{where}: field {self.choices!r} must be a list of choices, or {{label, text}} lists; "
                f"fields present: {', '.join(row)}"
            )
        if not 2 <= len(texts) <= len(ascii_uppercase) or len(labels) != len(texts):
            raise DataError(f"{where}: field {self.choices!r} must hold 2 to 26 choices, a label for each")
        return labels, texts

    def _letter(self, gold: str, labels: Sequence[str], texts: Sequence[str], where: str) -> str:
        gold = gold.strip()
        for known in (labels, [str(i) for i in range(len(texts))], texts):
            if gold in known:
                return ascii_uppercase[list(known).index(gold)]
        raise DataError(f"{where}: gold answer {gold!r} is none of {', '.join(labels)}, no number from 0, no choice")
