"""Fault cases of local files: name of a case folder -> whether its input is handled as wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tokenskip.commands.files import grade_file
from tokenskip.config import TaskConfig
from tokenskip.errors import DataError
from tokenskip.storage.jsonl import read_jsonl, text_field
from tokenskip.tasks.jsonl import JsonlTask


def nan_gold(folder: Path) -> bool:
    """A gold of NaN is graded null, never true or false."""
    with tempfile.TemporaryDirectory() as scratch:
        counts = grade_file(folder / "input.jsonl", "jsonl", Path(scratch) / "out.jsonl")
    return counts == {"correct": 0, "incorrect": 0, "ungradable": 1}


def nan_question(folder: Path) -> bool:
    """A question of NaN is refused by its line."""
    task = JsonlTask(TaskConfig(name="jsonl", train=str(folder / "nan.jsonl"), fields={"gold": "answer"}))
    try:
        list(task.problems("train"))
    except DataError as error:
        return "line 1" in str(error)
    return False


def spelled_golds(folder: Path) -> bool:
    """Golds that are numbers arrive as they are spelled."""
    golds = [text_field(row, "gold", "x") for _, row in read_jsonl(folder / "input.jsonl")]
    return golds == ["5e-05", "1e+16", "6.02e+23"]


FAULTS: dict[str, Callable[[Path], bool]] = {
    "20-nan": nan_gold,
    "24-nan-question": nan_question,
    "13-json-floats": spelled_golds,
}
