"""The words that an equation needs, held together with it. Pure.

"48 = 24" is false, and the text that says it says something else: "half of 48 = 24". So an equation that does not hold
by its numbers alone is kept or dropped with the words of its clause, in whatever language they are: to the left back to
the last punctuation mark, line break or other equation, to the right as far as words follow that may belong to its
right-hand side ("= 5 dozen eggs"). English words that change no number are left out at the edges. An equation that does
hold needs none, but for an operator word that touches it.

    "So she gives away half of 48 = 24 apples."   ->   |So| she| gives away half of 48 = 24 apples|.|
"""

from __future__ import annotations

import re
from functools import lru_cache

from tokenskip.pruning.equations import holds_by_itself, statements
from tokenskip.pruning.expressions import Range
from tokenskip.pruning.notation import RELATIONS
from tokenskip.pruning.vocabulary import (
    EQUALITY_HEADS,
    FILLERS,
    LINKING_VERBS,
    OPERATOR_WORDS,
    SUFFIX_OPERATORS,
    SUFFIX_STOPS,
    UNSPACED_OPERATORS,
)
from tokenskip.sentences import LINE_BREAKS

_RELATION = re.compile(
    rf"(?<![-=])[{RELATIONS}](?!>)|(?<=[\d)%] )~(?= ?[\d$])|<=|>=|=="
    r"|\\(?:approx|sim|equiv|n?eq|[lg]eq?|[lg]t|ne)(?![A-Za-z])"
)
_STATING_WORD = re.compile(rf"(?<!\w)(?:is|gives|makes|{'|'.join(EQUALITY_HEADS)})(?!\w)")
_ANCHOR_WORDS = LINKING_VERBS | frozenset(EQUALITY_HEADS)
_DELIMITED = re.compile(r"(?s)(?:\$.*\$|\\\(.*\\\)|\\\[.*\\\]|\\begin\{.*\}|`.*`|<.*>|&\w+;|https?://.*)[.,;:!?]?")
_BREAK = re.compile(f"[{LINE_BREAKS}]")
_ENDS = frozenset(".;:!?。；：！？…")
_COMMAS = frozenset(",，、")
_MAX_CORES = 60  # of one clause, on either side
_UNIT_WORDS = 4
_LIST_OR_LABEL = re.compile(r"(?:[-*•#]+|\d{1,3}[.)]|(?:\*\*)?[Ss]tep[ \t]+\d+.*)")


def hold_statements(text: str, cores: list[Range]) -> list[Range]:
    """`cores` with every equation joined to the words it needs."""
    clauses = _Clauses(text, cores)
    return clauses.joined() if clauses.anchors else cores


class _Clauses:
    """The cores of a text, and which of them are joined."""

    def __init__(self, text: str, cores: list[Range]) -> None:
        self.text = text
        self.cores = cores
        self.relations: set[int] = set()  # cores with a sign or word that states something
        core = 0
        for match in _RELATION.finditer(text):
            while core < len(cores) and cores[core][1] <= match.start():
                core += 1
            if core < len(cores):
                self.relations.add(core)
        self.pieces = [text[start:end] for start, end in cores]
        words = [index for index, piece in enumerate(self.pieces) if piece in _ANCHOR_WORDS]
        self.relations.update(index for index in words if self.pieces[index] not in LINKING_VERBS)
        self.relations.update(
            # "12 plus 5 is 17" is one core by now
            index
            for index, piece in enumerate(self.pieces)
            if " " in piece and _STATING_WORD.search(piece)
        )
        self.anchors = sorted(self.relations.union(words))

    def joined(self) -> list[Range]:
        spans: list[Range] = []  # of core indices, both inclusive
        for anchor in self.anchors:
            span = self._statement(anchor)
            if span:
                low, high = span
                while spans and spans[-1][1] >= low:  # two statements that need the same words are one
                    joined = spans.pop()
                    low, high = min(low, joined[0]), max(high, joined[1])
                spans.append((low, high))
        result: list[Range] = []
        position = 0
        for low, high in spans:
            result += self.cores[position:low]
            result.append((self.cores[low][0], self.cores[high][1]))
            position = high + 1
        return result + self.cores[position:]

    def _statement(self, index: int) -> Range | None:
        """The cores that the statement with its relation at `index` needs; None where it needs no other."""
        piece = self.pieces[index]
        if index in self.relations:
            if _holds(piece):
                return self._with_operators(index, index)
            delimited = _DELIMITED.fullmatch(piece)
            if delimited and _holds_if_read(piece):
                return None
            return self._clause(index, index)
        return self._linked(index)

    def _with_operators(self, low: int, high: int) -> Range | None:
        """An equation that holds needs its clause only if an operator word touches it: "1/2 of 12 = 11 + 1"."""
        touched = low > 0 and self._same_clause(low - 1) and self._is_operator(low - 1)
        follows = high + 1 < len(self.cores) and self._same_clause(high) and self._is_suffix(high + 1)
        return self._clause(low, high) if touched or follows else None

    def _clause(self, low: int, high: int) -> Range:
        """The cores `low` to `high` with the words of their clause."""
        false = True
        first = low
        while first and low - first < _MAX_CORES and self._same_clause(first - 1, self._is_list(first, false)):
            if first - 1 in self.relations:
                break
            first -= 1
        while first < low and (self.pieces[first].lower() in FILLERS or _LIST_OR_LABEL.fullmatch(self.pieces[first])):
            first += 1
        last = high
        open_ended = self._wants_more(high)
        while last + 1 < len(self.cores) and last - high < _MAX_CORES and self._same_clause(last, open_ended):
            following = self.pieces[last + 1]
            if last + 1 in self.relations and not open_ended:
                break
            if following[0] in _ENDS or following[0] in _COMMAS:
                break
            if not open_ended and following.lower() in SUFFIX_STOPS:
                break
            last += 1
        return first, last

    def _wants_more(self, index: int) -> bool:
        """Whether a statement has no number after its last relation: "= half of 48"."""
        relations = list(_RELATION.finditer(self.pieces[index]))
        return not relations or not any(map(str.isalnum, self.pieces[index][relations[-1].end() :]))

    def _linked(self, verb: int) -> Range | None:
        """The statement that a linking verb makes: "half of 48 is 24"; None where it is not between numbers."""
        before, after = self._number(verb, -1), self._number(verb, 1)
        if before is None or after is None:
            return None
        if before == verb - 1 and after == verb + 1 and _holds(" ".join(self.pieces[before : after + 1])):
            return self._with_operators(before, after) or (before, after)
        span = self._clause(before, after)
        touches = before == verb - 1 and after == verb + 1
        if (
            touches
            or (after in self.relations and not _holds(self.pieces[after]))
            or any(self._is_operator(index) or self._is_suffix(index) for index in range(span[0], span[1] + 1))
        ):
            return span
        # "the cost of 3 apples is 5": cut to "3 is 5" it would say something else, so that its name stays with it
        return (verb - 1, after) if after == verb + 1 else None

    def _number(self, verb: int, step: int) -> int | None:
        """The nearest core with a number in the same clause, at most `_UNIT_WORDS` cores from the verb."""
        index = verb
        for _ in range(_UNIT_WORDS + 1):
            if not self._same_clause(index - 1 if step < 0 else index):
                return None
            index += step
            if any(map(str.isdigit, self.pieces[index])):
                return index
        return None

    def _is_list(self, first: int, false: bool) -> bool:
        """Whether a comma directly before core `first` divides a list of numbers: "the sum of 3, 4 and 5 = 12"."""
        comma = first - 1
        if self.pieces[comma][-1] not in _COMMAS:
            return True
        before = self.pieces[comma][:-1] or (self.pieces[comma - 1] if comma else "")
        return bool(before) and (before[-1].isdigit() or len(before) == 1)

    def _same_clause(self, index: int, over_commas: bool = False) -> bool:
        """Whether the cores `index` and `index + 1` are in the same clause."""
        if index < 0 or index + 1 >= len(self.cores):
            return False
        last = self.pieces[index][-1]
        if last in _ENDS and not self._is_part_of_number(index):
            return False
        if last in _COMMAS and not over_commas:
            return False
        gap = self.text[self.cores[index][1] : self.cores[index + 1][0]]
        return gap in ("", " ") or not _BREAK.search(gap)

    def _is_part_of_number(self, index: int) -> bool:
        """Whether a mark divides no clause, because no white space follows it ("|-5|", "3:4")."""
        return self.cores[index][1] == self.cores[index + 1][0]

    def _is_operator(self, index: int) -> bool:
        piece = self.pieces[index].lower()
        if piece == "and":  # "the sum of 4 and"
            return index > 0 and self.pieces[index - 1][-1].isdigit()
        if piece == "of":  # "half of", "25% of"; but "the cost of" calculates nothing
            return index > 0 and (self.pieces[index - 1][-1] in "0123456789%" or self._is_operator(index - 1))
        return piece in OPERATOR_WORDS or piece in "√∛%!" or piece in UNSPACED_OPERATORS

    def _is_suffix(self, index: int) -> bool:
        piece = self.pieces[index].lower()
        return piece in SUFFIX_OPERATORS or piece in "%!" or piece in UNSPACED_OPERATORS


@lru_cache(maxsize=4096)  # a chain is divided once for its scores and once for its cut
def _holds(piece: str) -> bool:
    return holds_by_itself(piece)


def _holds_if_read(piece: str) -> bool:
    """Whether a delimited formula can be a statement by itself: it is not plainly false ("$48 = 24$")."""
    return not any(statement.equation.holds is False for statement in statements(piece))
