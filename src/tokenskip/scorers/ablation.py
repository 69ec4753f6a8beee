"""`ablation`: how much better the model predicts the goal with a unit than without it, the others kept randomly.

    importance(u) = sum_k (m_k(u) - rho_k) (y_k - f(rho_k)) / sum_k (m_k(u) - rho_k)^2,      k = 1 ... subsets

m_k(u): 1 where cut number k keeps the unit, else 0. rho_k: the share of units that cut k keeps, uniform in [0.2, 0.9].
y_k: how many goal tokens the model would get right by sampling, the mean of p(goal token | question, cut chain) times
the whole chain's number of goal tokens (a cut may leave fewer lines to begin).
f: the straight line through the chain's (rho_k, y_k), so that a longer cut's better prediction is no unit's merit.

It is the slope of a linear surrogate over random ablations, as in RISE (arXiv 1806.07421) and ContextCite (2409.00729,
section 3), estimated unit by unit instead of by a sparse regression. `leave_one_out` asks about a unit while all others
are kept; there "take away 3, so the total drops" loses nothing with either half. Here it is asked at the lengths that
pruning will leave. A few dozen subsets rank a chain's units only roughly: the mean over many chains is what is good
(`tokenskip distill`).

`goal` as in `leave_one_out`. Units that hold answers, numbers or operators of the goal stay in every cut and rank
first. Cuts are made by `prune`, so that equations stay apart and lines stay lines.

    tokenskip distill RUN --teacher ablation --option goal=steps --pool -o DIR
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenskip.config import PruneConfig
from tokenskip.errors import ConfigError
from tokenskip.pruning.atoms import has_unspaced_script, split_units
from tokenskip.pruning.corpus import prune_at
from tokenskip.scorers._causal import (
    GOALS,
    CausalScorer,
    Encoded,
    Goal,
    check_choice,
    encode,
    logprobs_in_batches,
    need_answers,
)
from tokenskip.tokens import token_counter
from tokenskip.types import Scores, Span, Trajectory

LEAST, MOST = 0.2, 0.9
_CONFIG = PruneConfig(verify=False)


@dataclass(eq=False, repr=False, kw_only=True)
class Ablation(CausalScorer):
    """The mean effect of a unit on the goal over random cuts of its chain, in goal tokens."""

    name = "ablation"
    needs_answer = True

    goal: Goal = "answer"
    subsets: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goal", self.goal, GOALS)
        if self.subsets < 3:
            raise ConfigError(f"ablation: subsets is a number of at least 3; given: {self.subsets}")
        self._counter = token_counter(self.tokenizer)

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order; the cuts of a few chains are held at a time."""
        results = []
        for at in range(0, len(trajectories), 16):
            results += self._score_group(trajectories[at : at + 16])
        return results

    def _score_group(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        wholes = [encode(trajectory, self.tokenizer, self.render) for trajectory in trajectories]
        need_answers(wholes, trajectories, self.name)
        chains = [self._units(trajectory.cot, whole) for trajectory, whole in zip(trajectories, wholes, strict=True)]
        masks, cuts = [], []
        for trajectory, (units, fixed) in zip(trajectories, chains, strict=True):
            kept, texts = self._cut(trajectory, units, fixed)
            masks.append(kept)
            cuts += [encode(trajectory, self.tokenizer, self.render, text) for text in texts]
        predicted = np.zeros(len(cuts))
        for index, (cut, row) in enumerate(
            zip(cuts, logprobs_in_batches(self.model, cuts, self.batch_tokens), strict=True)
        ):
            goal = cut.goal_positions(self.goal)
            predicted[index] = sum(math.exp(row[position - cut.n_prompt]) for position in goal) / len(goal)
        results = []
        for i, (whole, (units, fixed), kept) in enumerate(zip(wholes, chains, masks, strict=True)):
            n_goal = len(whole.goal_positions(self.goal))
            values = effects(kept, n_goal * predicted[i * self.subsets : (i + 1) * self.subsets])
            values[fixed] = n_goal  # no effect can be larger
            spans = (Span(start, end, float(value)) for (start, end), value in zip(units, values, strict=True))
            results.append(Scores(scorer=self.name, spans=tuple(spans)))
        return results

    def _units(self, cot: str, whole: Encoded) -> tuple[list[tuple[int, int]], Any]:
        """The units without the white space before them, and which of them hold goal tokens, (units,) booleans."""
        offsets = list(whole.offsets[: whole.n_cot_tokens])
        ranges = split_units(cot, "token", True, offsets if has_unspaced_script(cot) else None)
        cores = [(end - len(cot[start:end].lstrip()), end) for start, end in ranges if cot[start:end].strip()]
        held: Goal = "equations" if self.goal == "steps" else self.goal  # the word that begins a line may well go
        goal = [whole.offsets[position - whole.n_prompt] for position in whole.goal_positions(held)]
        fixed = [any(start < high and low < end for low, high in goal) for start, end in cores]
        return cores, np.array(fixed, dtype=bool)

    def _cut(self, trajectory: Trajectory, units: list[tuple[int, int]], fixed: Any) -> tuple[Any, list[str]]:
        """Which units each random cut keeps, (subsets, units), and its text."""
        digest = hashlib.sha256(f"{self.seed}\0{trajectory.id}".encode("utf-8", "surrogatepass")).digest()
        draw = random.Random(int.from_bytes(digest[:8], "big"))
        kept, texts = np.zeros((self.subsets, len(units))), []
        for k in range(self.subsets):
            dropped = 1 - draw.uniform(LEAST, MOST)
            values = [2.0 if stays else draw.random() for stays in fixed]
            spans = tuple(Span(start, end, value) for (start, end), value in zip(units, values, strict=True))
            scores = Scores(scorer=self.name, spans=spans)
            pruned = prune_at(trajectory.cot, scores, 0.5, dropped, self._counter, _CONFIG)
            there = np.zeros(len(trajectory.cot) + 1)
            for start, end in pruned.kept:
                there[start:end] = 1
            kept[k] = [there[start] for start, _ in units]
            texts.append(pruned.text)
        return kept, texts


def effects(kept: Any, predicted: Any) -> Any:
    """Every unit's importance, (units,), from `kept` (subsets, units) and `predicted` (subsets,); 0 if always kept."""
    share = kept.mean(axis=1) if kept.size else np.zeros(len(kept))
    spread = share - share.mean()
    slope = spread @ predicted / max(float(spread @ spread), 1e-12)
    rest = predicted - predicted.mean() - slope * spread
    centred = kept - share[:, None]
    return centred.T @ rest / np.maximum((centred**2).sum(axis=0), 1e-12)
