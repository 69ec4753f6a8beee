"""Stage 4, pure: a chain of thought + its importances + a ratio -> a shorter chain. Reads and writes no files.

TokenSkip (section 3.2, arXiv 2502.12067) sorts a chain's tokens by importance and keeps those above the γ-th
percentile. What we do otherwise, and why:

- the budget is γ × the chain's tokens in the *target* tokenizer, measured by tokenizing the kept text again (merges
  differ after a cut); the official code counts in another model's tokens;
- what is kept or dropped is a unit (`tokenskip.atoms`), so equations stay whole; the budget is met within one unit;
- the kept text is sliced out of the chain, so spaces and lines survive: between kept text of different lines stands
  one newline run of those that lie between (the longest), and the white space at the chain's edges always stays;
- besides the percentile per chain (`cut: chain`), one threshold per ratio for the whole data (`cut: corpus`).

    pruned = prune_chain(cot, scores, 0.6, token_counter(tokenizer), PruneConfig())
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Protocol, cast

from tokenskip.atoms import Range, has_unspaced_script, split_units
from tokenskip.config import PruneConfig
from tokenskip.equations import check_pruned
from tokenskip.errors import StageError
from tokenskip.types import Pruned, Scores, Trajectory

MAX_CORPUS_UNITS = 2_000_000
"""Units that the corpus cut remembers (16 bytes each); of a larger corpus a fixed pseudo-random part of the chains."""
MAX_CORPUS_CHAINS = 1_000
"""Chains on which the corpus cut measures what its thresholds really keep."""


class TokenCounter(Protocol):
    """How many of the target model's tokens a text has.

    A counter may also have `offsets(text) -> list[tuple[int, int]]`, the character range of every token: without
    it, `atoms: false` falls back to words.
    """

    def __call__(self, text: str) -> int:
        """The number of tokens, special tokens excluded."""
        ...


class _FastCounter:
    """Counts with the Rust tokenizer itself, without offsets: the rest would take most of the time."""

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        self._tokenizer = type(backend).from_str(backend.to_str())  # padding and truncation set elsewhere stay there
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, text: str) -> int:
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def offsets(self, text: str) -> list[Range]:
        return cast("list[Range]", self._tokenizer.encode(text, add_special_tokens=False).offsets)


def token_counter(tokenizer: Any) -> TokenCounter:
    """A counter for a transformers tokenizer; a slow (Python) tokenizer counts but knows no offsets."""
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        return _FastCounter(tokenizer)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


class _Chain:
    """One CoT divided into units, each with its importance, and the rule that puts kept units together again."""

    def __init__(self, cot: str, scores: Scores, counter: TokenCounter, config: PruneConfig) -> None:
        self.cot = cot
        offsets: Callable[[str], list[Range]] | None = getattr(counter, "offsets", None)
        needed = not config.atoms or has_unspaced_script(cot)
        units = split_units(cot, config.unit, config.atoms, offsets(cot) if needed and offsets else None)
        self.edges = (len(cot) - len(cot.lstrip()), len(cot.rstrip()))
        self.units: list[Range] = []  # with the white space before them
        self.cores: list[int] = []  # where the text of each unit begins
        self.breaks: list[Range | None] = []  # the newlines before each unit
        self.owners: list[int] = []  # the nearest unit, at or before each, that begins with white space
        self.lines: list[int] = []  # the nearest unit, at or before each, that newlines stand before
        pending: Range | None = None
        for start, end in units:
            piece = cot[start:end]
            inked = len(piece.lstrip())
            if not inked:
                pending = (start, end) if self.units else None
                continue
            core = end - inked
            index = len(self.units)
            own = core > start or pending or not index or piece in _MARKS  # a closing mark clings to what is kept
            self.owners.append(index if own else self.owners[-1])
            self.units.append((start, end))
            self.cores.append(core)
            self.breaks.append(pending)
            self.lines.append(index if pending else self.lines[-1] if index else -1)
            pending = None
        self.importances = _importances(cot, self.units, scores)
        if config.atoms:
            _keep_apart(cot, self.units, self.importances)
        # Most important first; of equals the earlier one, so that the same input always gives the same text.
        self.ranking = sorted(range(len(self.units)), key=lambda index: (-self.importances[index], index))
        self._counter = counter
        self._counts: dict[int, int] = {}

    def assemble(self, kept: Sequence[int]) -> list[Range]:
        """The character ranges of the kept units (indices in reading order) with the white space that joins them."""
        ranges: list[Range] = []

        def emit(start: int, end: int) -> None:
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            elif end > start:
                ranges.append((start, end))

        emit(0, self.edges[0])
        previous = -1
        for index in kept:
            start, end = self.units[index]
            if index == previous + 1 and ranges:  # with what lies between: units and breaks leave nothing out
                ranges[-1] = (ranges[-1][0], end)
            elif index == previous + 1:
                ranges.append((start, end))
            else:
                owner = self.owners[index]
                new_line = self.lines[index] > previous >= 0
                if new_line:  # at the start of a line only that line's own indentation may stand
                    newlines = filter(None, self.breaks[previous + 1 : index + 1])
                    emit(*max(newlines, key=lambda gap: gap[1] - gap[0]))
                if owner > previous >= 0 and new_line == bool(self.breaks[owner]):
                    emit(self.units[owner][0], self.cores[owner])
                emit(self.cores[index], end)
            previous = index
        emit(max(self.edges), len(self.cot))
        return ranges

    def best(self, n_kept: int) -> list[Range]:
        """The ranges of the `n_kept` most important units."""
        return self.assemble(sorted(self.ranking[:n_kept]))

    def text(self, ranges: Iterable[Range]) -> str:
        return "".join([self.cot[start:end] for start, end in ranges])

    def count(self, n_kept: int) -> int:
        """Tokens of the text of the `n_kept` most important units."""
        if n_kept not in self._counts:
            whole = n_kept == len(self.units)
            self._counts[n_kept] = self._counter(self.cot if whole else self.text(self.best(n_kept)))
        return self._counts[n_kept]

    def n_kept(self, ratio: float) -> int:
        """How many units to keep: the number whose tokens come nearest to the budget, of equals the smaller.

        At least one unit stays. Bisection always visits the same numbers until a larger budget turns to the larger
        side, so kept units grow with the ratio even where merges make the counts uneven.
        """
        budget = ratio * self.count(len(self.units))
        low, high = 1, len(self.units)
        while low < high:
            middle = (low + high + 1) // 2
            if self.count(middle) <= budget:
                low = middle
            else:
                high = middle - 1
        if low < len(self.units) and abs(self.count(low + 1) - budget) < abs(budget - self.count(low)):
            low += 1
        return low

    def pruned(self, ratio: float, ranges: list[Range], n_tokens: int, config: PruneConfig) -> Pruned:
        text = self.text(ranges)
        return Pruned(
            ratio=ratio,
            text=text,
            n_tokens=self.count(len(self.units)),
            n_tokens_pruned=n_tokens,
            rejected=check_pruned(self.cot, text) if config.verify else None,
            kept=tuple(ranges),
        )


def _importances(cot: str, units: Sequence[Range], scores: Scores) -> list[float]:
    """Per unit the mean value of the spans over it, weighted by the characters they share that are no white space.

    A unit that no span touches, or one with a value that is not a number, ranks last.
    """
    blank = [0, *accumulate(map(str.isspace, cot))]
    spans = scores.spans
    importances: list[float] = []
    first = 0
    for start, end in units:
        while first < len(spans) and spans[first].end <= start:
            first += 1
        weight, total = 0, 0.0
        index = first
        while index < len(spans) and spans[index].start < end:
            span = spans[index]
            first_shared, last_shared = max(start, span.start), min(end, span.end)
            shared = last_shared - first_shared - (blank[last_shared] - blank[first_shared])
            if shared > 0:
                weight += shared
                total += shared * span.value
            index += 1
        mean = total / weight if weight else -math.inf
        importances.append(-math.inf if math.isnan(mean) else mean)
    return importances


def _keep_apart(cot: str, units: Sequence[Range], importances: list[float]) -> None:
    """Raise, in place, what separates an equation from a number before it in its line to the equation's importance.

    Cut to "4 3 + 4 = 7", a line that said "4 more. 3 + 4 = 7" states another equation. What stays is the last
    punctuation mark between the two, or else the word before the equation.
    """
    if "=" not in cot:
        return
    pieces = [cot[start:end].strip() for start, end in units]
    for index, piece in enumerate(pieces):
        if "=" not in piece or not _has_digit(piece):
            continue
        guard = index - 1
        for before in range(index - 1, -1, -1):
            if "\n" in cot[units[before][1] : units[before + 1][0]]:
                break
            if pieces[before] in _MARKS:
                guard = before if pieces[guard] not in _MARKS else guard
            elif _has_digit(pieces[before]) and pieces[before][-1] not in _MARKS:
                if guard > before:
                    importances[guard] = max(importances[guard], importances[index])
                break


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


_MARKS = frozenset(".,;:!?")


def _whole(cot: str, ratio: float, counter: TokenCounter) -> Pruned:
    n_tokens = counter(cot)
    kept = ((0, len(cot)),) if cot else ()
    return Pruned(ratio=ratio, text=cot, n_tokens=n_tokens, n_tokens_pruned=n_tokens, kept=kept)


def prune_chain(cot: str, scores: Scores, ratio: float, counter: TokenCounter, config: PruneConfig) -> Pruned:
    """`cot` cut to `ratio` of its tokens: the most important units whose tokens come nearest to the budget.

    The paper's cut (section 3.2), with the deviations that the module names. Ratio 1 gives the CoT byte for byte.
    """
    return prune_chain_many(cot, scores, (ratio,), counter, config)[0]


def prune_chain_many(
    cot: str, scores: Scores, ratios: Sequence[float], counter: TokenCounter, config: PruneConfig
) -> tuple[Pruned, ...]:
    """`prune_chain` at several ratios, with one ranking; the kept units of a ratio contain those of a smaller one."""
    chain: _Chain | None = None
    results: list[Pruned] = []
    for ratio in ratios:
        if ratio >= 1 or not cot.strip():
            results.append(_whole(cot, ratio, counter))
            continue
        chain = chain or _Chain(cot, scores, counter, config)
        n_kept = chain.n_kept(ratio)
        results.append(chain.pruned(ratio, chain.best(n_kept), chain.count(n_kept), config))
    return tuple(results)


def prune_at(
    cot: str, scores: Scores, ratio: float, threshold: float, counter: TokenCounter, config: PruneConfig
) -> Pruned:
    """`cot` with the units whose importance is at least `threshold` (cut `corpus`); `ratio` is only recorded.

    The most important unit always stays. Ratio 1 gives the CoT byte for byte.
    """
    if ratio >= 1 or not cot.strip():
        return _whole(cot, ratio, counter)
    chain = _Chain(cot, scores, counter, config)
    n_kept = _n_above(chain, threshold)
    return chain.pruned(ratio, chain.best(n_kept), chain.count(n_kept), config)


def _n_above(chain: _Chain, threshold: float) -> int:
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
        chain = _Chain(cot, scores, counter, config)
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
    chains = [_Chain(cot, scores, counter, config) for _, cot, scores in measured]
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


def _unit_tokens(chain: _Chain, counter: TokenCounter) -> array[float]:
    """Tokens of each unit; without the tokenizer's offsets, its share of the characters."""
    offsets: Callable[[str], list[Range]] | None = getattr(counter, "offsets", None)
    if offsets is None:
        return array("d", [float(end - start) for start, end in chain.units])
    weights = array("d", [0.0]) * len(chain.units)
    index = 0
    for start, end in offsets(chain.cot):
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


def draw_ratio(trajectory_id: str, ratios: Sequence[float], seed: int) -> float:
    """The ratio that a trajectory is trained on: uniform, by a stable hash (the paper draws one per trajectory)."""
    digest = blake2b(f"{seed}:{trajectory_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ratios[int.from_bytes(digest, "big") % len(ratios)]
