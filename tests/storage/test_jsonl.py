"""Other people's JSONL: every odd file is read as it is meant, or refused by its line."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tokenskip.commands.files import grade_file, read_chains
from tokenskip.config import TaskConfig
from tokenskip.errors import DataError
from tokenskip.storage.jsonl import Spelled, parse_json, read_jsonl, text_field
from tokenskip.tasks.jsonl import JsonlTask


@pytest.mark.parametrize(
    "spelling", ["5.0", "5", "1e-7", "5e-05", "12345678901234567890", "0.1", "0.10", "-0.0", "6.02e+23", "1E5", "1e999"]
)
def test_a_number_keeps_its_spelling(spelling: str) -> None:
    row = parse_json(f'{{"gold": {spelling}, "list": [{spelling}]}}')
    assert text_field(row, "gold", "x") == str(row["list"][0]) == spelling
    assert json.loads(json.dumps(row))["gold"] == json.loads(spelling)
    assert str(pickle.loads(pickle.dumps(row))["gold"]) == spelling


def test_numbers_are_numbers() -> None:
    assert Spelled("0.10") == 0.1
    assert isinstance(parse_json("3"), int)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r"])
def test_only_a_newline_ends_a_line(separator: str, tmp_path: Path) -> None:
    text = f"one{separator}two"
    rows = [{"id": "a", "cot": text}, {"id": "b", "cot": "x"}]
    raw = "\n".join(json.dumps(row, ensure_ascii=separator < " ") for row in rows)
    (tmp_path / "f.jsonl").write_bytes(raw.encode())
    assert [chain.cot for chain in read_chains(tmp_path / "f.jsonl")] == [text, "x"]


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_marks_and_line_ends_of_other_systems(begin: bytes, end: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(begin + b'{"id":"a"}' + end + end + b'{"id":"b"}')
    assert list(read_jsonl(tmp_path / "f.jsonl")) == [(1, {"id": "a"}), (3, {"id": "b"})]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b'{"id":"a"}\n', mtime=0), "is a gzip file"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"PAR1rest", "is a parquet table"),
        ('{"id":"a"}'.encode("utf-16"), "is UTF-16 text"),
        (b'{"id":"a"}\n{"id":"\xff"}', "line 1 or after: not UTF-8"),
        (b'{"id":"a"}\n{"id":"b","id":"c"}', "line 2: .*'id' occurs twice"),
        (b'{"x":{"k":1,"k":1}}', "line 1: .*'k' occurs twice"),
        (b'{"id":' + b"[" * 100_000, "line 1: malformed"),
        (b'{"id":' + b'{"a":' * 100_000, "line 1: malformed"),
        (b'{"id":"\\ud800"}', "line 1: half of a character"),
        (b'{"id":1}{"id":2}', "line 1: malformed JSON at column 9"),
        (b'{"id":' + b"9" * 5000 + b"}", "line 1: malformed"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x00\x00", "line 1: malformed"),
    ],
)
def test_what_is_no_jsonl_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=words) as refused:
        list(read_jsonl(tmp_path / "f.jsonl"))
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_is_no_answer_and_no_question(value: str, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text(f'{{"id": 0, "gold": {value}, "output": "nan"}}\n{{"id": 1, "gold": 3, "output": {value}}}\n')
    assert grade_file(file, "jsonl", tmp_path / "out.jsonl") == {"correct": 0, "incorrect": 0, "ungradable": 2}
    for row in (f'{{"question": {value}, "gold": 1}}', f'{{"question": "1+1?", "gold": {value}}}'):
        file.write_text(f'{{"question": "a", "gold": 1}}\n{row}\n')
        task = JsonlTask(TaskConfig(name="jsonl", train=str(file)))
        with pytest.raises(DataError, match=r"line 2: field .* no number"):
            list(task.problems("train"))


def test_an_answer_of_zero_is_one(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"id": "a", "cot": "x", "answer": 0, "question": null}')
    (chain,) = read_chains(tmp_path / "f.jsonl")
    assert (chain.gold, chain.question, chain.tail) == ("0", "", "\n\n0")


def test_a_json_file_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('[{"question": "q", "gold": 1e-7, "level": NaN}]')
    (problem,) = JsonlTask(TaskConfig(name="jsonl", train=str(tmp_path / "f.json"))).problems("train")
    found: Any = (problem.gold, problem.level)
    assert found == ("1e-7", None)
