"""Filtering the prompt by information: the scorers of chains, on the question that an untouched model then reads.

Selective Context (Li et al. 2023, arXiv 2310.06201) drops what a causal model finds likely, LLMLingua-2 (Pan et al.
2024, arXiv 2403.12968) what a token classifier would drop. Both are scorers of this package, and a question is cut as
a chain is: the most important units whose tokens come nearest to the ratio, sliced out of the text. Nothing is
trained.

The answer comes from a model that has seen whole questions only, as in both papers. Deviation: units are ours (numbers,
words), not noun phrases; a cut may drop a number, which no check can call wrong in a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenskip.config import PruneConfig
from tokenskip.pruning.chain import prune_chain_many
from tokenskip.types import Problem, Scorer, TokenCounter, Trajectory

UNCHECKED = PruneConfig(verify=False)


def as_chain(problem: Problem) -> Trajectory:
    """The question where scorers look for a chain, with nothing before it."""
    return Trajectory(id=problem.id, question="", gold=problem.gold, cot=problem.question)


def filtered(
    problems: Sequence[Problem], scorer: Scorer, ratios: Sequence[float], count: TokenCounter
) -> dict[float, list[Problem]]:
    """Ratio -> the problems, each question cut to that share of its tokens; ids and gold answers stay."""
    cuts = [
        prune_chain_many(problem.question, scores, ratios, count, UNCHECKED)
        for problem, scores in zip(problems, scorer.score([as_chain(problem) for problem in problems]), strict=True)
    ]
    return {
        ratio: [replace(problem, question=cut[at].text) for problem, cut in zip(problems, cuts, strict=True)]
        for at, ratio in enumerate(ratios)
    }
