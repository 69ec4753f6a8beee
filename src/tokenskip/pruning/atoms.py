"""Where a chain of thought may be cut. Pure; reads and writes only text.

TokenSkip (section 3.2, arXiv 2502.12067) drops single tokens. We deviate: what only makes sense as a whole is one
*atom*, because the official data lost operators, operands and fractions ("8 4 = 32"). An atom is an equation or
arithmetic expression (`12 + 5 = 17`), an equation with the words that it needs (`half of 48 = 24`), a number, an
operator run, a LaTeX formula, a code token, a code block or table, a word, a step label ("Step 1:", "- "), or a piece
of punctuation. Words that punctuation joins without a space ("and/or") are one atom, since dropping the joint would
glue them together. No unit of any kind divides a grapheme cluster.

    split_units("So 2 + 3 = 5 apples.", "token", atoms=True)   # |So| 2 + 3 = 5| apples|.|

White space belongs to the unit that follows it, with two exceptions that are separate units and hold nothing else:
white space at either edge of the text, and what lies between two lines up to the last line break (so indentation goes
with its line). `prune` emits these only between kept text, which is how line structure survives.

`tokenskip.pruning.lexemes` reads the pieces, `expressions` joins those that calculate, `statements` adds the words that
an equation needs; `equations` is the other half, the equation check, whose names are importable from here as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from tokenskip.pruning.equations import Equation, check_pruned, equations
from tokenskip.pruning.expressions import Range, expressions
from tokenskip.pruning.lexemes import UNSPACED, grapheme_edges, lexemes
from tokenskip.pruning.statements import hold_statements
from tokenskip.sentences import LINE_BREAKS, ends_sentence

__all__ = ["Equation", "Range", "check_pruned", "equations", "has_unspaced_script", "split_units"]

_UNSPACED = re.compile(f"[{UNSPACED}]")
_BREAK = re.compile(f"[{LINE_BREAKS}]")


def has_unspaced_script(text: str) -> bool:
    """Whether `text` holds a script without word spaces, whose atoms need the tokenizer's offsets."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def split_units(
    text: str,
    unit: Literal["token", "word", "step"],
    atoms: bool,
    token_offsets: Sequence[Range] | None = None,
) -> list[Range]:
    """Consecutive character ranges that together are `text`; units of only white space are glue between the others.

    unit `token`: atoms; with `atoms` off the target tokenizer's own tokens (`token_offsets`; without them, words).
    `word`: between white space. `step`: lines, or sentences where the text is a single line. In `word` and `step` too,
    `atoms` keeps an expression with spaces in one unit. With `atoms`, `token_offsets` only divide scripts that have no
    word spaces (without them: character by character).
    """
    if atoms:
        cores = _atoms(text) if token_offsets is None else _divide(text, {start for start, _ in token_offsets})
    elif unit == "token" and token_offsets is not None:
        cores = _tokens(text, token_offsets)
    else:
        cores = [match.span() for match in re.finditer(r"\S+", text)]
    if not text.isascii():
        cores = _whole_graphemes(text, cores)
    if unit == "word":
        cores = _words(cores)
    elif unit == "step":
        cores = _steps(text, cores)
    return _cover(text, cores)


def _divide(text: str, token_starts: set[int] | None) -> list[Range]:
    return hold_statements(text, expressions(text, lexemes(text, token_starts)))


@lru_cache(maxsize=256)  # what `random` draws values for is divided again when it is cut, a window of chains later
def _atoms(text: str) -> list[Range]:
    return _divide(text, None)


def _cover(text: str, cores: list[Range]) -> list[Range]:
    """The cores with white space handed out as the module's docstring says."""
    units: list[Range] = []
    position = 0
    for start, end in cores:
        begin = position or start
        if position and start > position and text[position:start] != " ":
            begin = position
            for line_break in _BREAK.finditer(text, position, start):
                begin = line_break.end()
        if begin > position:
            units.append((position, begin))
        units.append((begin, end))
        position = end
    if position < len(text):
        units.append((position, len(text)))
    return units


def _tokens(text: str, offsets: Sequence[Range]) -> list[Range]:
    """The tokenizer's tokens without their white space; pieces of one character are one, gaps become units."""
    cores: list[Range] = []
    position = 0

    def fill(until: int) -> None:
        for match in re.compile(r"\S+").finditer(text, position, until):
            cores.append(match.span())

    for start, end in offsets:
        start = max(start, position)
        if end <= start:
            continue
        piece = text[start:end]
        core = piece.strip()
        if core:
            fill(start)
            start += len(piece) - len(piece.lstrip())
            cores.append((start, start + len(core)))
            position = start + len(core)
    fill(len(text))
    return cores


def _whole_graphemes(text: str, cores: list[Range]) -> list[Range]:
    """Cores joined wherever two meet inside a grapheme cluster: a letter and its vowel sign, the halves of a flag."""
    edges = grapheme_edges(text)
    joined: list[Range] = []
    for start, end in cores:
        if joined and start not in edges:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _words(cores: list[Range]) -> list[Range]:
    """Cores with nothing between them, joined."""
    words: list[Range] = []
    for start, end in cores:
        if words and words[-1][1] == start:
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
    return words


def _steps(text: str, cores: list[Range]) -> list[Range]:
    """Cores joined to lines; to sentences where the text has only one line."""
    lines = len(text.strip().splitlines()) > 1
    steps: list[Range] = []
    for start, end in cores:
        if not steps:
            steps.append((start, end))
            continue
        first, last = steps[-1]
        if _BREAK.search(text, last, start) if lines else ends_sentence(text, first, last):
            steps.append((start, end))
        else:
            steps[-1] = (first, end)
    return steps
