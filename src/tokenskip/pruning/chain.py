"""A chain of thought + its importances + a ratio -> a shorter chain. Pure: reads and writes no files.

TokenSkip (section 3.2, arXiv 2502.12067) sorts a chain's tokens by importance and keeps those above the γ-th
percentile. What we do otherwise, and why:

- the budget is γ × the chain's tokens in the *target* tokenizer, measured by tokenizing the kept text again (merges
  differ after a cut); the official code counts in another model's tokens;
- what is kept or dropped is a unit (`tokenskip.pruning.atoms`), so equations stay whole; the budget is met within one
  unit, and a chain for which that is impossible (a chain of one unit, say) is not trained on at that ratio;
- the kept text is sliced out of the chain, so spaces and lines survive: between kept text of different lines is
  one newline run of those that lie between (the longest), and the white space at the chain's edges always stays;
- besides the percentile per chain (`cut: chain`), one threshold per ratio for the whole data (`cut: corpus`).

    pruned = prune_chain(cot, scores, 0.6, token_counter(tokenizer), PruneConfig())
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tokenskip.config import PruneConfig
from tokenskip.pruning.atoms import Range, has_unspaced_script, split_units
from tokenskip.pruning.equations import check_pruned
from tokenskip.pruning.notation import RELATIONS
from tokenskip.pruning.vocabulary import OPERATOR_WORDS, SUFFIX_OPERATORS
from tokenskip.types import HasOffsets, Pruned, Scores, TokenCounter

NOTHING_CUT = "nothing cut: no unit can go"
MISSES_RATIO = "misses its ratio by more than one unit"
MAX_MISS = 0.2
"""Of a chain's tokens: how far its cut may be from the ratio that it is trained under."""


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
        self.lines: list[int] = []  # the nearest unit, at or before each, that follows newlines
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
                if new_line:  # at the start of a line only that line's own indentation may come
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

    def pruned(self, ratio: float, n_kept: int, config: PruneConfig, *, by_ratio: bool = True) -> Pruned:
        """The cut to the `n_kept` most important units, with the reason why it must not be trained on.

        `by_ratio`: this chain itself was cut to the ratio; not so where one threshold cuts a whole corpus.
        """
        ranges = self.best(n_kept)
        text = self.text(ranges)
        rejected = self._miss(ratio, n_kept, by_ratio)
        if not rejected and config.verify:
            rejected = check_pruned(self.cot, text)
        return Pruned(
            ratio=ratio,
            text=text,
            n_tokens=self.count(len(self.units)),
            n_tokens_pruned=self.count(n_kept),
            rejected=rejected,
            kept=tuple(ranges),
        )

    def _miss(self, ratio: float, n_kept: int, by_ratio: bool) -> str | None:
        """Why a cut says nothing about its ratio, or None.

        NOTHING_CUT: all is kept. MISSES_RATIO (only `by_ratio`): the budget is not within one unit of this cut, that
        is, it is further away than the cut with a unit more or less. As the cut is the nearest there is, this happens
        only where the single unit that must stay is far over the budget. Where the budget falls inside a large unit (a
        code block), the cut is within one unit and yet misses: more than `MAX_MISS` of the chain is a miss as well.
        """
        n_units = len(self.units)
        if n_kept == n_units:
            return NOTHING_CUT
        if not by_ratio:
            return None
        error = abs(self.count(n_kept) - ratio * self.count(n_units))
        neighbours = [n for n in (n_kept - 1, n_kept + 1) if 1 <= n <= n_units]
        steps = [abs(self.count(n) - self.count(n_kept)) for n in neighbours]
        within = error <= max(steps) and error <= max(1.0, MAX_MISS * self.count(n_units))
        return None if within else MISSES_RATIO


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
    """Raise, in place, what separates an equation from a number or operator word in its line to its importance.

    Cut to "4 3 + 4 = 7", a line that said "4 more. 3 + 4 = 7" states another equation. What stays is the nearest
    punctuation mark between the two, or else the word beside the equation.
    """
    relations = [match.start() for match in _RELATION.finditer(cot)]
    if not relations:
        return
    pieces = [cot[start:end].strip() for start, end in units]
    lines = list(accumulate(_begins_line(cot, units), initial=0))
    starts = [start for start, _ in units]
    for index in sorted({max(0, bisect_right(starts, relation) - 1) for relation in relations}):
        importance = importances[index]
        guard = _guard(pieces, lines, index, -1)
        if guard is not None:
            importances[guard] = max(importances[guard], importance)
        if pieces[index][-1] not in _MARKS and (guard := _guard(pieces, lines, index, 1)) is not None:
            # a hair above: of equals the earlier one is kept, and that would be the equation
            importances[guard] = max(importances[guard], math.nextafter(importance, math.inf))


def _begins_line(cot: str, units: Sequence[Range]) -> list[int]:
    """Whether each unit but the first begins a line."""
    return [int(units[index][1] < units[index + 1][0]) for index in range(len(units) - 1)]


def _guard(pieces: Sequence[str], lines: Sequence[int], equation: int, step: int) -> int | None:
    """The unit that must stay to keep what lies beyond it, in one direction, apart from an equation; None where none.

    None as well where what lies beyond touches the equation: then the two belong together anyway.
    """
    guard = index = equation + step
    while 0 <= index < len(pieces) and lines[index] == lines[equation]:
        piece = pieces[index]
        if piece in _MARKS:
            if pieces[guard] not in _MARKS:
                guard = index
        elif (_has_digit(piece) or piece.lower() in _OPERATORS[step]) and (step > 0 or piece[-1] not in _MARKS):
            if pieces[guard].lower() == "of" and guard > index + 1:  # "15 ... of 2 * 15" would multiply
                guard -= 1
            return guard if guard != index else None
        elif step < 0 and piece[-1] in _MARKS and _has_digit(piece):
            return None
        index += step
    return None


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


_MARKS = frozenset(".,;:!?")
_RELATION = re.compile(f"[{RELATIONS}]|equal")
_OPERATORS = {-1: OPERATOR_WORDS - {"of", "than"}, 1: SUFFIX_OPERATORS}


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
        results.append(chain.pruned(ratio, chain.n_kept(ratio), config))
    return tuple(results)
