"""Multiple choice, in the formats of CommonsenseQA and MMLU: the gold answer is a letter.

Reads rows whose choices are a list of texts (MMLU: `choices`, with `answer` a number from 0), or texts with labels
(CommonsenseQA: `choices` is `{"label": [...], "text": [...]}`, with `answerKey` a letter). The question that the model
sees has the choices under it, one `(A) text` a line; labels that the texts bring along ("A) town") are taken off first.

    tokenskip run RECIPE.yaml --set task.name=choice --set task.train=train.jsonl --set task.test=test.jsonl \
        --set task.fields.gold=answerKey

A gold answer is looked for among the labels, then among the texts, then as a number from `task.options.first` (0 or 1;
unset: 0, where the data does not speak against it).

On the hub the test problems of CommonsenseQA have no answers, so its validation split is the test; MMLU's training
problems are called auxiliary_train:

    --set task.train=tau/commonsense_qa --set task.test=tau/commonsense_qa@validation --set task.fields.gold=answerKey
    --set task.train=cais/mmlu:all@auxiliary_train --set task.test=cais/mmlu:all
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar

from tokenskip.answers.labels import extract_label, read_label
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import ConfigError, DataError
from tokenskip.storage.jsonl import text_field
from tokenskip.tasks._base import RowsTask, is_local, read_rows
from tokenskip.types import Grade, Problem

_OWN_LABEL = re.compile(r"\s*[(\[]?([A-Za-z]|\d{1,2})[).\]:]\s*(?=\S)")
COUNTED_ROWS = 30
"""So many golds that are numbers, and none of them 0: they are counted from 1."""


class Choice(RowsTask):
    """Letters; option `choices` is the field that holds the choices, `first` the number of the first one in the
    golds.
    """

    name = "choice"
    columns: ClassVar[Mapping[str, str]] = {**RowsTask.columns, "gold": "answer", "level": "subject"}
    options = ("choices", "first")

    def __init__(self, config: TaskConfig, prompt: PromptConfig | None = None) -> None:
        """As `RowsTask`; ConfigError also when `choices` is no name or `first` is neither 0 nor 1."""
        super().__init__(config, prompt)
        self.choices = config.options.get("choices", "choices")
        if not isinstance(self.choices, str):
            raise ConfigError(f"task.options.choices must be the name of a field; given: {self.choices!r}")
        self.first: int | None = config.options.get("first")
        if self.first not in (None, 0, 1) or isinstance(self.first, bool):
            raise ConfigError(f"task.options.first must be 0 or 1; given: {self.first!r}")

    def _problems(self, source: str, split: str, limit: int | None) -> Iterator[Problem]:
        if self.first is None and is_local(source):
            self._check_counting(source, split)
        return super()._problems(source, split, limit)

    def _check_counting(self, source: str, split: str) -> None:
        """DataError when the golds are numbers that seem to be counted from 1, also beyond a limit on the rows."""
        numbers = []
        for _, row in read_rows(source, split):
            gold, choices = row.get(self.fields["gold"]), row.get(self.choices)
            if type(gold) is int and isinstance(choices, Sequence) and not isinstance(choices, str):
                numbers.append((gold, len(choices)))
        golds = [gold for gold, _ in numbers]
        if golds and 0 not in golds and (any(gold == n for gold, n in numbers) or len(golds) >= COUNTED_ROWS):
            raise DataError(
                f"{source}: the gold answers are the numbers {min(golds)} to {max(golds)}, never 0: "
                "set task.options.first=1 if 1 is the first choice, or 0"
            )

    def problem(self, row: dict[str, Any], where: str, split: str, number: int) -> Problem:
        """The question with its choices under it, and the letter of the right one.

        Raises:
            DataError: no choices, or a gold answer that is none of them.
        """
        labels, texts = self._choices(row, where)
        question = text_field(row, self.fields["question"], where)
        lines = "\n".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))
        id_field, level = self.fields["id"], row.get(self.fields["level"])
        text_field(row, self.fields["gold"], where)
        return Problem(
            id=text_field(row, id_field, where) if id_field in row else f"{split}-{number}",
            question=f"{question.strip()}\n{lines}",
            gold=self._letter(row[self.fields["gold"]], labels, texts, where),
            level=None if level is None else str(level),
            solution=self.solution(row),
        )

    def extract(self, tail: str) -> str | None:
        """The letter that is stated as the answer; see `labels.extract_label`."""
        return extract_label(tail, trigger=self.prompt.trigger, think=self.prompt.think)

    def grade(self, answer: str, gold: str) -> Grade:
        """The same letter, in any case."""
        right, letter = read_label(gold), read_label(answer)
        if right is None:
            return Grade(correct=None, reason="gold cannot be read", extracted=answer)
        if letter is None:
            return Grade(correct=None, reason="not a letter", extracted=answer)
        same = letter == right
        return Grade(correct=same, reason="equal text" if same else "differs", extracted=letter)

    def _choices(self, row: Mapping[str, Any], where: str) -> tuple[Sequence[str], Sequence[str]]:
        choices = row.get(self.choices)
        if isinstance(choices, Mapping) and isinstance(choices.get("text"), Sequence):
            texts = [str(text) for text in choices["text"]]
            labels = [str(label).strip() for label in choices.get("label") or ascii_uppercase[: len(texts)]]
        elif isinstance(choices, Sequence) and not isinstance(choices, str):
            texts = [str(text) for text in choices]
            labels = list(ascii_uppercase[: len(texts)])
        else:
            raise DataError(
                f"{where}: field {self.choices!r} must be a list of choices, or {{label, text}} lists; "
                f"fields present: {', '.join(row)}"
            )
        if not 2 <= len(texts) <= len(ascii_uppercase) or len(labels) != len(texts):
            raise DataError(f"{where}: field {self.choices!r} must hold 2 to 26 choices, a label for each")
        own_labels = [_OWN_LABEL.match(text) for text in texts]
        if all(own_labels) and [match[1].upper() for match in own_labels if match] == [
            label.upper() for label in labels
        ]:
            texts = [text[match.end() :] for text, match in zip(texts, own_labels, strict=True) if match]
        return labels, texts

    def _letter(self, gold: Any, labels: Sequence[str], texts: Sequence[str], where: str) -> str:
        """The letter of a gold answer: a JSON number is a number of a choice, a text is a label or a choice's text
        first.
        """
        first = self.first or 0
        numbers = [str(i + first) for i in range(len(texts))]
        spelled = str(gold).strip()
        known = [labels, texts, numbers] if isinstance(gold, str) else [labels, numbers, texts]
        for names in known:
            names = [str(name).strip() for name in names]
            if names.count(spelled) > 1:
                raise DataError(f"{where}: gold answer {spelled!r} is the text of several choices")
            if spelled in names:
                return ascii_uppercase[names.index(spelled)]
        for names in (labels, texts):
            folded = [name.strip().casefold() for name in names]
            bare = spelled.casefold() if names is texts else spelled.casefold().strip("().:")
            if folded.count(bare) == 1:
                return ascii_uppercase[folded.index(bare)]
        raise DataError(
            f"{where}: gold answer {spelled!r} is none of {', '.join(labels)}, no choice, no number from {first}"
        )
