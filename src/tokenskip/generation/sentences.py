"""Where sentences end: at full stops that are none of an abbreviation, an initial, a decimal or a list's number.

python -c "from tokenskip.generation.sentences import *; print(list(sentence_ends('Mr. Ray has 3.5. He left.')))"
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenskip.generation.words import ABBREVIATIONS, word_set

_END = re.compile(
    r"""  (?<!\\)[.!?]+ [\"'”’)\]*_}$]* (?=\s|\Z)     # and the quotes and brackets that close after it
        | [。！？…]+ [」』”]*
        | [।؟۔] | [.!?](?=[\u3040-\u30ff\u4e00-\u9fff])""",
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“*$]*\Z")
_LIST_NUMBER = re.compile(r"[#*>\-\s]*\(?(?:\d{1,3}|[a-zA-Z])\Z")
_NEXT = re.compile(r"\s*[\"'“*(\[$]*(\w*)")
_BEFORE_DIGITS = word_set("no nos nr núm num fig figs eq eqs sec ch vol p pp pág ca approx rs art г")
_NAMES = word_set(
    "mr mrs ms mx dr prof st mt ft gen col sgt capt lt rev hon gov sen rep hr fr hrn mme mlle sra sr dott ing dipl"
)
_STARTERS = word_set(
    "the this that these those it its he she they we you i so then thus hence therefore now if in on at as let "
    "since because "
    "but and however also finally note here there for to with after before each when while my our option choice a an "
    "answer final wait which what er sie es das die der il elle el la le"
)
"""Words that begin a sentence even after what may be an abbreviation."""


def sentence_ends(text: str, start: int = 0, end: int | None = None, *, lists: bool = True) -> Iterator[int]:
    """The position after each sentence of `text[start:end]`, at its closing mark; line breaks are the caller's.

    `lists`: `3.` at the beginning of a line is a list's number, and no end.
    """
    stop = len(text) if end is None else end
    for match in _END.finditer(text, start, stop):
        if text[match.start()] != "." or match.group()[:2] == ".." or not _goes_on(text, start, match, lists):
            if text[match.start()] == "!" and _is_factorial(text, match):
                continue
            yield match.end()


def _goes_on(text: str, start: int, match: re.Match[str], lists: bool) -> bool:
    """Whether the sentence goes on after this full stop."""
    at = match.start()
    before = _WORD_BEFORE.search(text, max(start, at - 24), at)
    word = before.group() if before else ""
    line = max(text.rfind("\n", max(0, at - 24), at) + 1, start)
    if lists and at - line < 24 and (line == 0 or text[line - 1] == "\n") and _LIST_NUMBER.fullmatch(text, line, at):
        return True
    if not word or word[-1].isdigit():
        return False
    after = _NEXT.match(text, match.end())
    following = after[1] if after else ""
    low = word.casefold()
    if following.casefold() in _STARTERS and following[:1].isupper():
        return low in ("mr", "mrs", "ms", "dr", "prof", "vs")
    if low in _BEFORE_DIGITS:
        return following[:1].isdigit()
    if low in _NAMES:
        return following[:1].isalpha()
    if "." in word and len(word) <= 8:  # a.m., U.S., i.e.
        return bool(following)
    if len(word) == 1 and word.isupper():  # an initial
        return following[:1].isupper() and following.casefold() not in _STARTERS
    return low in ABBREVIATIONS and (following[:1].islower() or following[:1].isdigit())


def _is_factorial(text: str, match: re.Match[str]) -> bool:
    """Whether an exclamation mark after a digit goes on as a formula: `5! = 120`."""
    if match.start() == 0 or not (text[match.start() - 1].isalnum()):
        return False
    rest = text[match.end() : match.end() + 3].lstrip(" ")
    return text[match.start() - 1].isdigit() and rest[:1] in set("=+-*/\\<>^,;") and bool(rest[:1])


def first_sentence(text: str) -> str:
    """`text` up to the end of its first sentence, without the full stop."""
    for end in sentence_ends(text):
        return text[:end]
    return text
