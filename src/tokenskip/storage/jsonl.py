"""JSON Lines files of users, read one line at a time with errors that name the line.

Reads any `.jsonl` file; writes nothing. `tokenskip grade FILE.jsonl --task gsm8k -o OUT.jsonl` reads through here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenskip.errors import DataError


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank.

    Raises:
        DataError: no such file, not text, a line that is not a JSON object or holds half a character (a surrogate
            without its other half), or no line at all.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    empty = True
    line = 0
    check_is_text(path)
    try:
        # utf-8-sig: a byte order mark, as some editors write it, is not part of the first line
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for line, text in enumerate(lines, start=1):
                if text.strip():
                    empty = False
                    yield line, parse_object(text, f"{path} line {line}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line {line + 1} or after: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if empty:
        raise DataError(f"{path} is empty: one JSON object a line is needed")


def check_is_text(path: Path) -> None:
    """DataError for a file that begins as archives, compressed files or tables do."""
    try:
        with path.open("rb") as handle:
            begin = handle.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    for mark, what in _BINARY.items():
        if begin.startswith(mark):
            raise DataError(f"{path} is {what}, not JSON text: unpack or convert it first")


_BINARY = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a parquet table",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


class Spelled(float):
    """A JSON number that knows the digits it was written in, so that 0.10, 1e-7 and 5.0 stay as they are as golds."""

    spelling: str

    def __new__(cls, spelling: str) -> Spelled:
        """The number that `spelling` denotes."""
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number

    def __str__(self) -> str:
        """As it was written."""
        return self.spelling


def parse_json(text: str) -> Any:
    """Any JSON value. Numbers with a point or exponent keep their spelling; NaN and infinities are plain floats.

    Raises:
        ValueError: malformed JSON (`json.JSONDecodeError` says where), or an object with the same key twice.
        RecursionError: nested thousands deep.
    """
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} occurs twice in one object")
    return made


_DECODER = json.JSONDecoder(parse_float=Spelled, object_pairs_hook=_object)


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`; DataError that begins with `where` otherwise."""
    try:
        value = parse_json(text)
        if "\\u" in text:  # the only way to half a character, which no file and no tokenizer takes
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half of a character, {error.object[error.start]!a}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: malformed JSON at column {error.colno} ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested thousands deep; a number of more than 4,300 digits
        raise DataError(f"{where}: malformed JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object is needed, not {type(value).__name__}: {text.strip()[:40]}")
    return value


def text_field(row: dict[str, Any], field: str, where: str) -> str:
    """The text (or number, as it is spelled) of a field that must be there and not be empty; DataError otherwise."""
    if field not in row:
        present = ", ".join(row) or "none"
        raise DataError(f"{where}: field {field!r} is missing; fields present: {present}")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: field {field!r} must be text or a number, not {json.dumps(value, default=str)[:40]}")
    if is_no_number(value):
        raise DataError(f"{where}: field {field!r} is {value}, no number: give the value, or leave the row out")
    text = str(value)
    if not text.strip():
        raise DataError(f"{where}: field {field!r} is empty")
    return text


def optional_text(row: dict[str, Any], field: str, where: str) -> str | None:
    """The text of a field that may be left out, null, empty or NaN: None then; DataError for lists and objects."""
    value = row.get(field)
    return None if value is None or value == "" or is_no_number(value) else text_field(row, field, where)


def is_no_number(value: Any) -> bool:
    """Whether a value is a NaN or an infinity, which JSON knows not and tables use for what is missing.

    1e999 in a file is a number: its spelling is kept, and only as a float is it too large.
    """
    return isinstance(value, float) and not isinstance(value, Spelled) and not math.isfinite(value)


class UniqueIds:
    """Remembers ids and the place of each; a second use of one is an error that names both places."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def add(self, id: str, place: str, source: str) -> None:
        """Note an id seen at `place` (such as `line 17`) of `source`.

        Raises:
            DataError: the id was there before.
        """
        first = self._seen.setdefault(id, place)
        if first != place:
            raise DataError(f"{source} {place}: duplicate id {id!r}, used before on {first}")
