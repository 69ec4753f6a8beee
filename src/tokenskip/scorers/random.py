"""`random`: the control that every other scorer has to beat. One value in [0, 1) per unit, needs no model.

The values depend on the trajectory's id and the seed alone, through a hash that is the same on every machine, so the
order of the trajectories and the batches change nothing. The units are the atoms that pruning keeps or drops.

    tokenskip prune FILE.jsonl --scorer random --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any, Literal

from tokenskip.errors import ConfigError, unknown_name
from tokenskip.pruning.atoms import split_units
from tokenskip.types import Scores, Span, Trajectory

UNITS = ("token", "word", "step")


class RandomScorer:
    """Uniform values per unit, seeded by trajectory. `model` and `batch_tokens` are accepted and not used."""

    name = "random"

    def __init__(
        self,
        model: Any = None,
        *,
        batch_tokens: int = 8192,
        seed: int = 0,
        unit: Literal["token", "word", "step"] = "token",
        atoms: bool = True,
    ) -> None:
        if unit not in UNITS:
            raise ConfigError(unknown_name("unit", unit, UNITS))
        self.seed = seed
        self.unit: Literal["token", "word", "step"] = unit
        self.atoms = atoms

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order."""
        return [self._score(trajectory) for trajectory in trajectories]

    def _score(self, trajectory: Trajectory) -> Scores:
        sample = f"\0{trajectory.sample}" if trajectory.sample else ""
        digest = hashlib.sha256(f"{self.seed}\0{trajectory.id}{sample}".encode()).digest()
        draw = random.Random(int.from_bytes(digest[:8], "big"))
        cot = trajectory.cot
        spans = []
        for start, end in split_units(cot, self.unit, self.atoms):
            core = cot[start:end].lstrip()
            if core:
                spans.append(Span(end - len(core), end, draw.random()))
        return Scores(scorer=self.name, spans=tuple(spans))
