"""`leave_one_out`: how much the goal's log-likelihood falls when a unit is really taken out. Exact and slow.

    importance(u) = log p(goal | question, chain) - log p(goal | question, chain without u)

The yardstick that the cheap scorers are compared with: one forward pass per unit. (The first step of greedy pruning,
arXiv 2601.03066, asks the same question; it then deletes a unit and asks again.) The unit goes with the white space
before it and the rest is tokenized again, so this is the text that pruning would give. `goal`:

- "answer": the answer's tokens.
- "numbers": the answer and every token of the chain after the unit that has a digit in it.
- "equations": those, and the operators after the unit. "steps": those, and what each later line begins with.
- "chain": the answer and every token of the chain after the unit.

    tokenskip prune FILE.jsonl --scorer leave_one_out --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenskip.pruning.atoms import has_unspaced_script, split_units
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
from tokenskip.types import Scores, Span, Trajectory

UNITS = ("token", "word", "step")


@dataclass(eq=False, repr=False, kw_only=True)
class LeaveOneOut(CausalScorer):
    """The exact drop of the goal's log-likelihood per unit removed, in nats."""

    name = "leave_one_out"
    needs_answer = True

    goal: Goal = "answer"
    unit: Literal["token", "word", "step"] = "token"
    atoms: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goal", self.goal, GOALS)
        check_choice("unit", self.unit, UNITS)

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order; the variants of a few chains are held at a time."""
        results = []
        for at in range(0, len(trajectories), 16):
            results += self._score_group(trajectories[at : at + 16])
        return results

    def _score_group(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        wholes = [encode(trajectory, self.tokenizer, self.render) for trajectory in trajectories]
        need_answers(wholes, trajectories, self.name)
        units = [self._units(trajectory.cot, whole) for trajectory, whole in zip(trajectories, wholes, strict=True)]
        variants = list(wholes)
        for trajectory, ranges in zip(trajectories, units, strict=True):
            cot = trajectory.cot
            variants += [
                encode(trajectory, self.tokenizer, self.render, cot[:start] + cot[end:]) for start, end in ranges
            ]
        rows = logprobs_in_batches(self.model, variants, self.batch_tokens)
        results, at = [], len(wholes)
        for index, (trajectory, ranges) in enumerate(zip(trajectories, units, strict=True)):
            spans = []
            for start, end in ranges:
                whole = self._goal_sum(wholes[index], rows[index], end)
                without = self._goal_sum(variants[at], rows[at], start)
                core = end - len(trajectory.cot[start:end].lstrip())
                spans.append(Span(core, end, whole - without))
                at += 1
            results.append(Scores(scorer=self.name, spans=tuple(spans)))
        return results

    def _units(self, cot: str, whole: Encoded) -> list[tuple[int, int]]:
        """The units with something in them, each with the white space before it."""
        offsets = list(whole.offsets[: whole.n_cot_tokens])
        needed = not self.atoms or has_unspaced_script(cot)
        ranges = split_units(cot, self.unit, self.atoms, offsets if needed else None)
        return [(start, end) for start, end in ranges if cot[start:end].strip()]

    def _goal_sum(self, item: Encoded, logprobs: Sequence[float], after: int) -> float:
        return sum(logprobs[position - item.n_prompt] for position in item.goal_positions(self.goal, after))
