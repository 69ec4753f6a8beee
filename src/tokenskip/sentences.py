"""Where lines and sentences end, for every module that divides text. Pure: reads and writes nothing.

    list(sentence_ends("Mr. Li has 3. He buys 2!"))   # [13, 24]

A sentence ends after `.`, `!`, `?` or `…` (with the quotes, brackets and emphasis that close there) where white space
or the end of the text follows, and after a full-width mark whatever follows. Three full stops end none: an
abbreviation's ("Dr.", "e.g.", "No. 5"), an initial's ("George W. Bush") and a list number's ("1. Tom has").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""The characters at which `str.splitlines` divides."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FULL_WIDTH = "。！？｡"
_CLOSERS = r"[\"'”’»)\]*_]"
_END = re.compile(
    rf"""(?x)
    (?P<mark> [.!?…]+ )   {_CLOSERS}*+ (?= \s | \Z )
  | (?P<wide> [{_FULL_WIDTH}]+ ) [”’」』）)]*+
    """
)
_ABBREVIATIONS = _words(
    """
    mr mrs ms mx dr prof rev gen capt sgt st mt messrs e.g i.e eg ie vs v approx cf viz al resp ca
    z.b d.h u.a bzw ggf inkl p.ex ej p.ej sr sra srta mme mlle bspw т.е т.к т.п напр
    """
)
_BEFORE_A_NUMBER = _words("no nos nr fig figs eq eqs sec ch chap vol p pp art thm lem ex")
_BEFORE_A_SMALL_LETTER = _words("etc inc ltd co corp jr dept est min max avg a.m p.m")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # "U.S", "i.e", whose last dot is the mark
_LABEL = re.compile(r"[#*>\-\s(]*(?:\d{1,3}|[Ss]tep(?:[ \t]+\d+)?)")
_LONGEST_WORD = 24
"""Characters before a full stop that are looked at: no abbreviation is longer, and a long text stays cheap."""


def sentence_ends(text: str, start: int = 0, stop: int | None = None) -> Iterator[int]:
    """The positions in `text[start:stop]` right after each sentence; `start` is where a sentence begins.

    What follows `stop` is read to decide whether a mark before it is an end.
    """
    stop = len(text) if stop is None else stop
    begin = start
    for match in _END.finditer(text, start):
        if match.end() > stop:
            return
        if match["wide"] or match["mark"] != "." or not _is_abbreviation(text, begin, match.start()):
            begin = match.end()
            yield begin


def ends_sentence(text: str, start: int, end: int) -> bool:
    """Whether the sentence that begins at `start` ends right before `end`."""
    tail = _END.search(text, max(start, end - _LONGEST_WORD), min(len(text), end + 1))
    while tail and tail.end() < end:
        tail = _END.search(text, tail.end(), min(len(text), end + 1))
    if not tail or tail.end() != end:
        return False
    return bool(tail["wide"]) or tail["mark"] != "." or not _is_abbreviation(text, start, tail.start())


def _is_abbreviation(text: str, start: int, at: int) -> bool:
    """Whether the full stop at `at` belongs to the word before it, in the sentence that begins at `start`."""
    low = max(start, at - _LONGEST_WORD)
    before = text[low:at]
    words = before.split()
    if not words or before[-1].isspace():
        return False
    if _LABEL.fullmatch(before) and low == start:  # "1. Tom has 3" is one sentence
        return True
    word = words[-1].lstrip("(\"'“‘[*_").lower()
    following = text[at + 1 : at + 1 + _LONGEST_WORD].lstrip()[:1]
    if word in _ABBREVIATIONS:
        return True
    if word in _BEFORE_A_NUMBER:
        return following.isdigit()
    if word in _BEFORE_A_SMALL_LETTER or _DOTTED.fullmatch(word):
        return following.islower() or following.isdigit()
    is_initial = len(word) == 1 and words[-1][-1].isupper() and following.isupper()
    if len(words) == 1:
        return is_initial and low == start
    return is_initial and words[-2][0].isupper()
