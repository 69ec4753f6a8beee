"""A file of a run folder grown as the stages grow theirs, in the tests of the folder itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenskip.config import RunConfig
from tokenskip.progress import Progress, Silent
from tokenskip.run import Run
from tokenskip.storage.store import RunFolder


class Stage(Run):
    """A run that knows its folder and nothing else."""

    def __init__(self, folder: RunFolder, progress: Progress | None = None) -> None:
        self.config, self.folder, self.progress, self._pool = RunConfig(), folder, progress or Silent(), None


def grow(
    folder: RunFolder,
    name: str,
    inputs: Iterable[Any],
    work: Callable[[Sequence[Any]], Any],
    window: int,
    progress: Progress | None = None,
) -> None:
    """Append the rows that `work` makes of the inputs that have none."""
    for rows in Stage(folder, progress).map(lambda _: work, folder.pending(name, inputs, window), "t"):
        folder.append(name, rows)
