"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called with the number of rows that are done now; `total` corrects the length of the bar."""

    def __call__(self, n: int, *, total: int | None = None) -> None: ...


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


def _ignore(n: int, *, total: int | None = None) -> None:
    """An `Advance` that nobody sees."""
