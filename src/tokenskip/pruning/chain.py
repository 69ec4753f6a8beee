"""A chain of thought + its importances + a ratio -> a shorter chain. Pure: reads and writes no files.

TokenSkip (section 3.2, arXiv 2502.12067) sorts a chain's tokens by importance and keeps those above the γ-th
percentile. What we do otherwise, and why:

- the budget is γ × the chain's tokens in the *target* tokenizer, measured by tokenizing the kept text again (merges
  differ after a cut); the official code counts in another model's tokens;
- what is kept or dropped is a unit (`tokenskip.pruning.atoms`), so equations stay whole; the budget is met within one
  unit;
- the kept text is sliced out of the chain, so spaces and lines survive: between kept text of different lines stands
  one newline run of those that lie between (the longest), and the white space at the chain's edges always stays;
- besides the percentile per chain (`cut: chain`), one threshold per ratio for the whole data (`cut: corpus`).

    pruned = prune_chain(cot, scores, 0.6, token_counter(tokenizer), PruneConfig())
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tokenskip.config import PruneConfig
from tokenskip.pruning.atoms import Range, has_unspaced_script, split_units
from tokenskip.pruning.equations import check_pruned
from tokenskip.types import HasOffsets, Pruned, Scores, TokenCounter


class Chain:
    """One CoT divided into units, each with its importance, and the rule that puts kept units together again."""

    def __init__(self, cot: str, scores: Scores, counter: TokenCounter, config: PruneConfig) -> None:
        self.cot = cot
        offsets = counter.offsets if isinstance(counter, HasOffsets) else None
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


def whole(cot: str, ratio: float, counter: TokenCounter) -> Pruned:
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
    chain: Chain | None = None
    results: list[Pruned] = []
    for ratio in ratios:
        if ratio >= 1 or not cot.strip():
            results.append(whole(cot, ratio, counter))
            continue
        chain = chain or Chain(cot, scores, counter, config)
        n_kept = chain.n_kept(ratio)
        results.append(chain.pruned(ratio, chain.best(n_kept), chain.count(n_kept), config))
    return tuple(results)
