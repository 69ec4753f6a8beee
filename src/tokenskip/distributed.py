"""Which of several training processes this is, as torchrun and `accelerate launch` say by environment.

Accelerate's `PartialState` knows as much, but importing it imports torch, and joins the other processes: every command
asks before it knows whether it will need either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def world() -> int:
    """How many processes were launched together; 1 without a launcher."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def rank() -> int:
    """This process's number among them; only number 0 writes and talks."""
    return int(os.environ.get("RANK") or 0) if world() > 1 else 0


def local_rank() -> int:
    """This process's number on its machine: the accelerator it uses."""
    return int(os.environ.get("LOCAL_RANK") or 0)


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process counts as one without a launcher: for what the first does while the others wait."""
    before = os.environ.pop("WORLD_SIZE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["WORLD_SIZE"] = before


def batch_split(batch_size: int, accumulation: int, processes: int) -> tuple[int, int] | None:
    """(sequences a micro-batch, micro-batches a step) of each of `processes`, so that a step still sees `batch_size`.

    A micro-batch is never larger than in one process (`batch_size / accumulation`); None where it does not divide.
    """
    if batch_size % processes:
        return None
    share, largest = batch_size // processes, max(1, batch_size // accumulation)
    steps = next(steps for steps in range(1, share + 1) if share % steps == 0 and share // steps <= largest)
    return share // steps, steps
