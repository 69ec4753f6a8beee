"""What the tasks that read rows share: a local file or a hub dataset as numbered rows, and rows as problems.

Reads `.jsonl`, `.json` (a list of objects) and `.parquet` files, and datasets on the hub; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from tokenskip.answers.compare import compare, extract_answer, extract_boxed, unreadable, with_percent_sign
from tokenskip.answers.latex import mend_backslashes
from tokenskip.answers.statements import last_trigger
from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import ConfigError, DataError, unknown_name
from tokenskip.storage.jsonl import UniqueIds, check_is_text, is_no_number, parse_json, read_jsonl, text_field
from tokenskip.types import Grade, Problem

ROLES = ("id", "question", "gold", "level", "solution")
SUFFIXES = (".jsonl", ".json", ".parquet")


class RowsTask:
    """Problems out of rows. A task says its own sources, fields, and whether its answers are numbers."""

    name = "jsonl"
    numeric = False
    sources: ClassVar[Mapping[str, str]] = {}  # split -> hub id, as `read_rows` takes it
    columns: ClassVar[Mapping[str, str]] = {role: role for role in ROLES}  # role -> the field that holds it
    options: tuple[str, ...] = ()

    def __init__(self, config: TaskConfig, prompt: PromptConfig | None = None) -> None:
        """Checks the configuration; nothing is read before `problems`. `prompt` says how the answer is marked.

        Raises:
            ConfigError: an unknown field role or option.
            DataError: a local file that is not there.
        """
        self.config = config
        self.prompt = prompt or PromptConfig()
        for role in config.fields:
            if role not in ROLES:
                raise ConfigError(f"task.fields: {unknown_name('field', role, ROLES)}")
        for option in config.options:
            if option not in self.options:
                allowed = unknown_name("option", option, self.options) if self.options else f"{option!r}: it has none"
                raise ConfigError(f"task.options of {self.name}: {allowed}")
        self.fields = {**self.columns, **config.fields}
        for source in (config.train, config.test):
            if source is not None:
                is_local(source)

    def problems(self, split: str, limit: int | None = None) -> Iterator[Problem]:
        """The problems of `train` or `test` in the order of their source.

        Raises:
            ConfigError: the task has no such split of its own and none is configured.
            DataError: the source is missing, empty, malformed, or repeats an id.
        """
        source = {"train": self.config.train, "test": self.config.test}.get(split) or self.sources.get(split)
        if source is None:
            raise ConfigError(f"task {self.name} has no {split} problems of its own: set task.{split} to a .jsonl file")
        return self._problems(source, split, limit)

    def _problems(self, source: str, split: str, limit: int | None) -> Iterator[Problem]:
        ids = UniqueIds()
        for number, row in islice(read_rows(source, split), limit):
            place = f"line {number}" if is_local(source) else f"row {number}"
            problem = self.problem(row, f"{source} {place}", split, number)
            ids.add(problem.id, place, source)
            yield problem

    def problem(self, row: dict[str, Any], where: str, split: str, number: int) -> Problem:
        """One row as a problem; DataError that begins with `where` for a field that is missing or cannot be read."""
        id_field, level_field = self.fields["id"], self.fields["level"]
        wanted_id = id_field in row or "id" in self.config.fields
        id = text_field(row, id_field, where) if wanted_id else f"{split}-{number}"
        question = text_field(row, self.fields["question"], where)
        solution = self.solution(row)
        if solution and self.fields["gold"] not in row and "gold" not in self.config.fields:
            gold = self._stated(solution, where)
        else:
            gold = self.gold(text_field(row, self.fields["gold"], where), where)
        if reason := unreadable(gold):
            raise DataError(f"{where}: the gold answer of {id!r} cannot be read ({reason}): {gold[:60]!r}")
        return Problem(
            id=id,
            question=question,
            gold=gold if self.numeric else with_percent_sign(gold, question),
            level=None if row.get(level_field) is None or is_no_number(row[level_field]) else str(row[level_field]),
            solution=solution,
        )

    def solution(self, row: dict[str, Any]) -> str | None:
        """The whole solution that a row brings, if it does: a chain, mostly with its answer."""
        text = row.get(self.fields["solution"])
        return text if isinstance(text, str) and text.strip() else None

    def _stated(self, solution: str, where: str) -> str:
        """The answer that a solution states, which is the gold one where a row has no other."""
        marked = extract_boxed(solution) or last_trigger(solution, self.prompt.trigger) is not None
        stated = self.extract(solution) if marked else None
        if stated is None:
            raise DataError(f"{where}: no field {self.fields['gold']!r}, and its solution states no answer")
        return stated

    def gold(self, text: str, where: str) -> str:
        """The gold answer inside its field."""
        return mend_backslashes(text).strip()

    def extract(self, tail: str) -> str | None:
        """The answer in the part after the CoT; see `statements.extract_answer`."""
        return extract_answer(tail, numeric=self.numeric, trigger=self.prompt.trigger, think=self.prompt.think)

    def grade(self, answer: str, gold: str) -> Grade:
        """Compared by `answers.compare`; a whole GSM8K solution as gold counts as what follows its `####`."""
        return compare(answer, gold.rsplit("####", 1)[-1].strip() or gold, percent=self.numeric)


def is_local(source: str) -> bool:
    """Whether a source is a file here rather than a hub id; DataError when it can only be a file and is not there."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"{source}: a problem file ends in {', '.join(SUFFIXES)}")
        return True
    if path.is_dir():
        raise DataError(f"{source} is a folder: name the {', '.join(SUFFIXES)} file in it")
    if path.suffix in SUFFIXES or source.startswith((".", "/", "~", "\\")) or source.count("/") > 1:
        raise DataError(f"{source}: no such file; give a local .jsonl file, or a hub id such as openai/gsm8k")
    return False


def read_rows(source: str, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows (from 1; the line for .jsonl) of a local file, or of a hub dataset.

    A hub dataset is OWNER/NAME, then :CONFIGURATION where it has several, then @SPLIT where the data's split is called
    otherwise than `split`: `cais/mmlu:all@auxiliary_train`.

    Raises:
        DataError: missing, unreachable, malformed or empty.
    """
    if not is_local(source):
        rows = _hub_rows(source, split)
    elif (path := Path(source).expanduser()).suffix == ".jsonl":
        rows = read_jsonl(path)
    else:
        rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    empty = True
    for number, row in rows:
        empty = False
        yield number, row
    if empty:
        raise DataError(f"{source} is empty: it holds no problems")


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        check_is_text(path)
        rows = parse_json(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: malformed JSON ({error.msg}); is it a .jsonl file?") from None
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} must hold a list of objects")
    yield from enumerate(rows, start=1)


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from datasets import load_dataset

    try:
        rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        yield from enumerate((dict(row) for row in rows), start=1)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from None


def _hub_rows(source: str, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    from datasets import load_dataset

    named, _, own_split = source.partition("@")
    hub_id, _, configuration = named.partition(":")
    try:
        rows = load_dataset(hub_id, configuration or None, split=own_split or split)
    except (OSError, ValueError) as error:  # not found, offline, no such split or configuration
        detail = " ".join(str(error).split())[:160]
        raise DataError(
            f"{source}: no local file, and not to be had from the hub ({detail}); give a local .jsonl file, "
            "or unset HF_HUB_OFFLINE"
        ) from None
    yield from enumerate((dict(row) for row in rows), start=1)
