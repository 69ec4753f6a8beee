"""Answers of windows that are not written yet, kept on disk as they come: a killed run asks for none of them again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tokenskip.storage.store import dump_row, read_rows, repair
from tokenskip.types import Completion


class Journal:
    """Key -> completion of one window, in a separate file in `folder`; nowhere without a `folder`."""

    def __init__(self, folder: Path | None, keys: Sequence[str]) -> None:
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:32]
        self.file = folder / f"{name}.jsonl" if folder else None

    def read(self) -> dict[str, Completion]:
        """What is known already; a torn last line is not, nor a row that is no answer."""
        if self.file is None or not repair(self.file):
            return {}
        known = {}
        for row in read_rows(self.file):
            with suppress(KeyError, TypeError):
                known[row["key"]] = Completion(**{**row["completion"], "token_ids": (), "resumed": True})
        return known

    def note(self, key: str, completion: Completion) -> None:
        """Keep one answer."""
        if self.file is None:
            return
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a", encoding="utf-8") as out:
            out.write(dump_row({"key": key, "completion": asdict(completion)}))

    def clear(self) -> None:
        """Forget: the window is complete."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
