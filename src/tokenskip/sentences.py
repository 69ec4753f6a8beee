"""Where lines and sentences end, for every module that divides text. Pure: reads and writes nothing.

    list(sentence_ends("Mr. Li has 3.5. He buys 2!"))   # [15, 26]

A sentence ends after `.`, `!`, `?` or `…` (with the quotes, brackets and emphasis that close there) where white space
or the end of the text follows, and after a full-width mark whatever follows. A full stop ends none that belongs to an
abbreviation ("Dr.", "e.g.", "No. 5"), an initial ("George W. Bush") or a list label ("1. Tom has"), and neither does
a factorial's mark ("5! = 120").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""The characters at which `str.splitlines` divides."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_END = re.compile(
    r"""(?x)
    (?P<mark> (?<!\\) [.!?…]+ )  ["'”’»)\]*_}$]*+  (?= \s | \Z )   # not TeX's thin space \!
  | (?P<wide> [。！？｡]+ )        [”’」』）)]*+
  | (?P<other> [।؟۔] )
  | (?P<tight> [.!?…]+ )         (?= [\u3040-\u30ff\u4e00-\u9fff] )  # no space follows in Japanese and Chinese
    """
)
_BEFORE_ANY_WORD = _words(
    """
    mr mrs ms mx dr prof messrs vs e.g i.e eg ie approx cf viz z.b d.h u.a bzw ggf inkl p.ex p.ej bspw т.е т.к т.п напр
    """
)
"""Abbreviations (lower case) with which no sentence ends."""
_BEFORE_A_NAME = _words(
    """
    st mt ft gen col sgt capt lt rev hon gov sen rep hr fr hrn mme mlle sra sr srta dott ing dipl v ej
    """
)
_BEFORE_A_NUMBER = _words(
    """
    no nos nr núm num fig figs eq eqs sec ch chap vol p pp pág ca approx rs art thm lem ex г
    """
)
_BEFORE_A_SMALL_LETTER = _words(
    """
    etc al resp ca sr jr st mt inc ltd co corp dept est gen col rep min max avg a.m p.m ave blvd rd ft
    bzw usw vgl evtl inkl zzgl str sig гг г руб коп тыс млн млрд ул стр рис
    """
)
"""Words that end a sentence as well: only a small letter or a digit after the full stop says that they do not."""
_DATES = _words("jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun")  # if capitalised
_STARTERS = _words(
    """
    the this that these those it its he she they we you i so then thus hence therefore now if in on at as let since
    because but and however also finally note here there for to with after before each when while my our option choice
    a an answer final wait which what er sie es das die der il elle el la le
    """
)
"""Words that, capitalised, begin a sentence even after what may be an abbreviation."""
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘*_$]*\Z")
_WORD_AFTER = re.compile(r"\s*[\"'“*(\[$]*(\w*)")
_LABEL = re.compile(r"[#*>\-\s]*\(?(?:\d{1,3}|[a-zA-Z]|[Ss]tep(?:[ \t]+\d+)?)")
_LONGEST_WORD = 24
"""Characters before a full stop that are looked at: no abbreviation is longer, and a long text stays cheap."""


def sentence_ends(text: str, start: int = 0, stop: int | None = None, *, labels: bool = True) -> Iterator[int]:
    """The positions in `text[start:stop]` right after each sentence; line breaks are left to the caller.

    `labels`: `3.` at the beginning of a line is a list's label, and no end.
    """
    for match in _END.finditer(text, start, len(text) if stop is None else stop):
        at = match.start()
        low = max(0, at - _LONGEST_WORD)
        line = max(text.rfind("\n", low, at) + 1, low, start)
        begins_line = line == 0 or text[line - 1] == "\n"
        if _is_end(text, match, line if labels and begins_line else None):
            yield match.end()


def ends_sentence(text: str, start: int, end: int) -> bool:
    """Whether the sentence that begins at `start` ends right before `end`; a list's label at `start` does not."""
    low = max(start, end - _LONGEST_WORD)
    stop = min(len(text), end + 1)  # one character more shows whether white space follows
    match = _END.search(text, low, stop)
    while match and match.end() < end:
        match = _END.search(text, match.end(), stop)
    if not match or match.end() != end:
        return False
    return _is_end(text, match, start if match.start() - start < _LONGEST_WORD else None)


def _is_end(text: str, match: re.Match[str], label_at: int | None) -> bool:
    """Whether the mark ends a sentence; `label_at` is where a list's label may begin, None for nowhere."""
    at, mark = match.start(), match["mark"] or match["tight"]
    if mark == "!":
        return not _is_factorial(text, match)
    return mark != "." or not _is_part_of_word(text, match, at if label_at is None else label_at)


def _is_part_of_word(text: str, match: re.Match[str], label_at: int) -> bool:
    """Whether a full stop belongs to the abbreviation, initial or label before it, so that the sentence continues."""
    at = match.start()
    if _LABEL.fullmatch(text, label_at, at):  # "1. Tom has 3" is one sentence
        return True
    low = max(0, at - _LONGEST_WORD)
    before = _WORD_BEFORE.search(text, low, at)
    spelling = before.group() if before else ""
    if not spelling or spelling[-1].isdigit():
        return False
    after = _WORD_AFTER.match(text, match.end())
    following = after[1] if after else ""
    word = spelling.casefold()
    if word in _BEFORE_ANY_WORD:
        return True
    if following[:1].isupper() and following.casefold() in _STARTERS:
        return False
    continues = following[:1].islower() or following[:1].isdigit()
    previous = text[low : at - len(spelling)].split()[-1:]
    if word in _BEFORE_A_NAME and following[:1].isalpha():
        return continues or not (previous and previous[0][-1:].isdigit())  # "Ft. Worth", but "20 ft. Tom"
    if word in _BEFORE_A_NUMBER and following[:1].isdigit():
        return True
    if word in _BEFORE_A_SMALL_LETTER or (word in _DATES and spelling[0].isupper()):
        return continues
    if "." in word and len(word) <= 8:  # U.S., whose last full stop is the mark
        return bool(following)
    if len(word) != 1 or not spelling.isupper() or not following[:1].isupper():
        return False
    return len(following) == 1 or not previous or previous[0][0].isupper()  # an initial: "J. K.", "George W. Bush"


def _is_factorial(text: str, match: re.Match[str]) -> bool:
    """Whether the exclamation mark after a digit belongs to a formula that continues: `5! = 120`."""
    following = text[match.end() : match.end() + 3].lstrip(" ")[:1]
    return text[max(0, match.start() - 1) : match.start()].isdigit() and bool(following) and following in "=+-*/\\<>^,;"
