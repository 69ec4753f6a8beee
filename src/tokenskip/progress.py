"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called with the number of rows done since the last call.

    `total` corrects the length of the stage; `note` is what else is known at this moment, such as `loss 0.41`.
    """

    def __call__(self, n: int, *, total: int | None = None, note: str = "") -> None: ...


class Progress(Protocol):
    """Opens one bar per stage."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A bar of `total` rows (None: unknown) for the time of the `with` block."""
        ...


class Silent:
    """Shows nothing: the default of the Python API and of the tests."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`."""
        yield _ignore


def _ignore(n: int, *, total: int | None = None, note: str = "") -> None:
    """An `Advance` that nobody sees."""


class Lines:
    """Plain lines for logs (nohup, Slurm, CI): one every `every_s` seconds and one at the end.

        generate: 1,200 of 7,473 (16%), 3.41/s, 0:30:39 left
        generate: done, 7,473 in 0:36:31

    `write` gets each line; `clock` counts seconds.
    """

    def __init__(
        self, write: Callable[[str], None], *, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.write, self.every_s, self.clock = write, every_s, clock

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`. A stage that ends in an error has no last line: the error's says it."""
        stage = _Stage(name, total, self.clock)
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(self.every_s):
                self.write(stage.line())

        thread = threading.Thread(target=repeat, name=f"progress of {name}", daemon=True)
        thread.start()
        try:
            yield stage.advance
        finally:
            ended.set()
            thread.join()
        self.write(stage.last_line())


class _Stage:
    """How far one stage is. Rows that an earlier process left come in the first moment and do not count as speed."""

    def __init__(self, name: str, total: int | None, clock: Callable[[], float]) -> None:
        self.name, self.total, self.clock = name, total, clock
        self.start = clock()
        self.done, self.note = 0, ""
        self._first: tuple[float, int] | None = None  # when rows were first reported, and how many there were then

    def advance(self, n: int, *, total: int | None = None, note: str = "") -> None:
        """See `Advance`."""
        self.total = self.total if total is None else total
        self.note = note or self.note
        self.done += n
        now = self.clock()
        if self._first is None or now - self._first[0] < 0.5:
            self._first = (now if self._first is None else self._first[0], self.done)

    def line(self) -> str:
        """Rows done, rate, time left, and the note."""
        parts = [f"{self.done:,}"]
        if self.total:
            parts = [f"{self.done:,} of {self.total:,} ({self.done / self.total:.0%})"]
        rate = self._rate()
        parts.append(f"{rate:.3g}/s" if rate else f"after {_spell(self.clock() - self.start)}")
        if rate and self.total:
            parts.append(f"{_spell((self.total - self.done) / rate)} left")
        return f"{self.name}: {', '.join([*parts, self.note] if self.note else parts)}"

    def last_line(self) -> str:
        """Rows done and the time they took."""
        note = f", {self.note}" if self.note else ""
        return f"{self.name}: done, {self.done:,} in {_spell(self.clock() - self.start)}{note}"

    def _rate(self) -> float | None:
        """Rows a second; None before there is any to tell from."""
        if self._first is None:
            return None
        seconds, rows = self.clock() - self._first[0], self.done - self._first[1]
        return rows / seconds if rows and seconds > 0 else None


def _spell(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
