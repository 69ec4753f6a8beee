"""Numbers as other languages write them: 1.234,5 in German text is one thousand two hundred thirty-four and a half.

What a lone `1.234` or `1,5` means depends on the language around it, which is recognised by its commonest words.

    python -c "from tokenskip.answers.spelling import *; print(with_decimal_points('Das sind 1.234,5 Euro.'))"
"""

from __future__ import annotations

import re

from tokenskip.answers.words import COMMA_LANGUAGES, POINT_LANGUAGES

_AMBIGUOUS = re.compile(
    r"""(?<![\d.,({\[]) (?: (?P<whole> [1-9]\d{0,2} (?:\.\d{3})+ ) (?P<after> ,\d+ )?       # 1.234 and 1.234,5
                      | (?P<units> \d+ ) , (?P<decimals> \d{1,2} | \d{4,} ) ) (?! [\d.,]*\d )  # 1,5""",
    re.VERBOSE,
)
_MARK_IN_DIGITS = re.compile(r"[0-9][.,][0-9]")  # a first look that is fast
_WORD = re.compile(r"[^\W\d_]+")
_SAMPLE = 4000


def with_decimal_points(text: str) -> str:
    """`text` with the numbers of a language that has decimal commas as English writes them; other text as it is."""
    if not _MARK_IN_DIGITS.search(text) or not _AMBIGUOUS.search(text) or not _has_decimal_commas(text):
        return text
    return _AMBIGUOUS.sub(_in_english, text)


def _in_english(match: re.Match[str]) -> str:
    if match["whole"]:
        return match["whole"].replace(".", "") + (match["after"] or "").replace(",", ".")
    return f"{match['units']}.{match['decimals']}"


def _has_decimal_commas(text: str) -> bool:
    words = _WORD.findall(text[-_SAMPLE:].casefold())
    cyrillic_or_greek = any("\u0370" <= word[0] <= "\u052f" for word in words)
    return cyrillic_or_greek or sum(word in COMMA_LANGUAGES for word in words) > sum(
        word in POINT_LANGUAGES for word in words
    )
