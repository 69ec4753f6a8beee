"""The corpus cut: one importance threshold per ratio for the whole data. Pure; our addition to the paper."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise

from tokenskip.config import PruneConfig, RunConfig
from tokenskip.errors import StageError
from tokenskip.pruning.chain import Chain, prune_chain_many, whole
from tokenskip.types import HasOffsets, Pruned, Scores, TokenCounter, Trajectory

MAX_CORPUS_UNITS = 2_000_000
"""Units that the corpus cut remembers (16 bytes each); of a larger corpus a fixed pseudo-random part of the chains."""
MAX_CORPUS_CHAINS = 1_000
"""Chains on which the corpus cut measures what its thresholds really keep."""


def prune_at(
    cot: str, scores: Scores, ratio: float, threshold: float, counter: TokenCounter, config: PruneConfig
) -> Pruned:
    """`cot` with the units whose importance is at least `threshold` (cut `corpus`); `ratio` is only recorded.

    The most important unit always stays. Ratio 1 gives the CoT byte for byte.
    """
    if ratio >= 1 or not cot.strip():
        return whole(cot, ratio, counter)
    chain = Chain(cot, scores, counter, config)
    return chain.pruned(ratio, _n_above(chain, threshold), config, by_ratio=False)


def _n_above(chain: Chain, threshold: float) -> int:
    return max(1, sum(importance >= threshold for importance in chain.importances))


def corpus_thresholds(
    items: Iterable[tuple[str, Scores]], ratios: Sequence[float], counter: TokenCounter, config: PruneConfig
) -> dict[float, float]:
    """Per ratio the importance from which units are kept, such that all kept tokens are `ratio` of all tokens.

    Our addition to the paper: chains with much filler lose more, dense ones less. First the quantile of importance
    over units weighted by their tokens, then one correction by what such thresholds really keep (a cut changes
    merges). Reads `items` once; memory does not grow with them. Where many units are equally important, no threshold
    can meet the ratio and more is kept.
    """
    sample: list[tuple[int, array[float], array[float]]] = []
    measured: list[tuple[int, str, Scores]] = []
    limit = chain_limit = 1 << 64
    n_units = 0
    for cot, scores in items:
        key = int.from_bytes(blake2b(cot.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        if key >= limit or not cot.strip():
            continue
        chain = Chain(cot, scores, counter, config)
        sample.append((key, array("d", chain.importances), _unit_tokens(chain, counter)))
        n_units += len(chain.units)
        while n_units > MAX_CORPUS_UNITS and len(sample) > 1:
            limit //= 2
            sample = [entry for entry in sample if entry[0] < limit]
            n_units = sum(len(values) for _, values, _ in sample)
        if key < chain_limit:
            measured.append((key, cot, scores))
            while len(measured) > MAX_CORPUS_CHAINS:
                chain_limit //= 2
                measured = [entry for entry in measured if entry[0] < chain_limit]
    ordered = sorted((value, weight) for _, values, weights in sample for value, weight in zip(values, weights))  # noqa: B905
    chains = [Chain(cot, scores, counter, config) for _, cot, scores in measured]
    total = sum(chain.count(len(chain.units)) for chain in chains)
    thresholds: dict[float, float] = {}
    for ratio in ratios:
        if ratio >= 1:
            thresholds[ratio] = -math.inf
            continue
        threshold = _quantile(ordered, ratio)
        kept = sum(chain.count(_n_above(chain, threshold)) for chain in chains)
        thresholds[ratio] = _quantile(ordered, ratio + (ratio - kept / total)) if total else threshold
    floor = -math.inf
    for ratio in sorted(thresholds, reverse=True):  # nested in the ratio whatever the correction did
        floor = thresholds[ratio] = max(floor, thresholds[ratio])
    return thresholds


def _unit_tokens(chain: Chain, counter: TokenCounter) -> array[float]:
    """Tokens of each unit; without the tokenizer's offsets, its share of the characters."""
    if not isinstance(counter, HasOffsets):
        return array("d", [float(end - start) for start, end in chain.units])
    weights = array("d", [0.0]) * len(chain.units)
    index = 0
    for start, end in counter.offsets(chain.cot):
        middle = max(start, end - 1)
        while index + 1 < len(chain.units) and chain.units[index][1] <= middle:
            index += 1
        weights[index] += 1
    return weights


def _quantile(ordered: Sequence[tuple[float, float]], ratio: float) -> float:
    """The value from which upwards `ratio` of the weight lies."""
    budget = min(1.0, max(0.0, ratio)) * sum(weight for _, weight in ordered)
    for value, weight in reversed(ordered):
        budget -= weight
        if budget <= 0:
            return value
    return -math.inf


def prune_trajectory(
    trajectory: Trajectory,
    ratios: Sequence[float],
    counter: TokenCounter,
    config: PruneConfig,
    thresholds: Mapping[float, float] | None = None,
) -> Trajectory:
    """The trajectory with its CoT at every one of `ratios`; `thresholds` (of `corpus_thresholds`) for cut `corpus`.

    Raises:
        StageError: a ratio below 1 for a trajectory without scores.
    """
    scores = trajectory.scores
    if scores is None:
        if any(ratio < 1 for ratio in ratios) and trajectory.cot.strip():
            raise StageError(f"trajectory {trajectory.id!r} has no scores: run `tokenskip score` first")
        scores = Scores(scorer="", spans=())
    if config.cut == "chain":
        return replace(trajectory, pruned=prune_chain_many(trajectory.cot, scores, ratios, counter, config))
    assert thresholds is not None, "cut 'corpus' needs the thresholds of corpus_thresholds"
    cuts = [prune_at(trajectory.cot, scores, ratio, thresholds[ratio], counter, config) for ratio in ratios]
    return replace(trajectory, pruned=tuple(cuts))


def ratios_of(trajectory: Trajectory, config: RunConfig) -> tuple[float, ...]:
    """The ratios that a chain is trained on: all, or those that are drawn for it."""
    settings, ratios = config.prune, config.prune.ratios
    if settings.per_trajectory == "all":
        return ratios
    key = trajectory.id if not trajectory.sample else f"{trajectory.id}\0{trajectory.sample}"
    if settings.per_trajectory == "one":
        return (draw_ratio(key, ratios, config.seed),)
    return draw_ratios(key, ratios, config.seed, settings.rows_per_chain)


def draw_ratio(trajectory_id: str, ratios: Sequence[float], seed: int) -> float:
    """The ratio that a trajectory is trained on: uniform, by a stable hash (the paper draws one per trajectory)."""
    digest = blake2b(f"{seed}:{trajectory_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ratios[int.from_bytes(digest, "big") % len(ratios)]


def draw_ratios(trajectory_id: str, ratios: Sequence[float], seed: int, n: int) -> tuple[float, ...]:
    """`n` ratios of a trajectory, ascending: one from each of n - 1 equal parts of `ratios`, and the greatest.

    So the cuts of a trajectory span the range, and a batch of whole trajectories shows what the ratio means.
    """
    ordered = sorted(ratios)
    if n >= len(ordered):
        return tuple(ordered)
    below, parts = ordered[:-1], n - 1
    bounds = [len(below) * part // parts for part in range(parts + 1)] if parts else []
    drawn = [
        draw_ratio(f"{trajectory_id}\0{part}", below[first:last], seed)
        for part, (first, last) in enumerate(pairwise(bounds))
    ]
    return (*drawn, ordered[-1])
