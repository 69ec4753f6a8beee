"""Whether a completion runs in circles, in any script. Pure.

A text is a sequence of words; where a script has no spaces (Chinese, Japanese, Thai, …), each of its characters counts
as a part of a word. A loop is a piece of at most 60 words that is said at least four times in a row, 12 words in all.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from tokenskip.evaluation.stats import Array

REPEATS, LEAST_WORDS, LONGEST_PIECE = 4, 12, 60
LONG_WORD, REPEATS_IN_WORD = 60, 10

# Scripts written without spaces, and how many words a character is worth: about two characters of Chinese or Japanese
# are a word, and about four of the alphabets of South-East Asia and Tibet.
_HAN = "\u2e80-\u2fdf\u3000-\u312f\u3190-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff65"
_HAN += "\uff66-\uff9f\U00020000-\U0003ffff"  # kana, ideographs and their punctuation
_ALPHABETS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Tibetan, …
_UNIT = re.compile(rf"(?P<han>[{_HAN}])|(?P<alphabet>[{_ALPHABETS}])|[^\s{_HAN}{_ALPHABETS}]+")
_WORTH = {"han": 0.5, "alphabet": 0.25, None: 1.0}

# one word that repeats itself: "hahaha…", "0000…"; the lazy quantifier tries the shortest piece first
_REPEATED_LETTERS = re.compile(r"(\w{1,8}?)\1{9,}")


def has_loop(text: str) -> bool:
    """Whether `text` repeats a piece of up to 60 words at least four times in a row (12 words or more)."""
    units: list[str] = []
    worth: list[float] = []
    for match in _UNIT.finditer(text):
        units.append(match.group())
        worth.append(_WORTH[match.lastgroup])
    if any(len(unit) >= LONG_WORD and _word_loops(unit) for unit in units):
        return True
    return _repeats(units, np.array(worth))


def _repeats(units: list[str], worth: Array) -> bool:
    """Whether a piece of `units`, each worth part of a word, is said often enough in a row."""
    groups = Counter(zip(units, units[1:], units[2:], units[3:], strict=False))
    if not groups or max(groups.values()) < 3:  # a loop repeats its four-unit groups; almost all text ends here
        return False
    codes = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    numbers = np.array([codes[unit] for unit in units])
    words_before = np.concatenate(([0.0], np.cumsum(worth)))
    longest = min(int(LONGEST_PIECE / worth.min()), len(units) // REPEATS)
    for period in range(1, longest + 1):
        # Runs in which every unit equals the one a period before it; a run of k such units is k + period long.
        differs = np.flatnonzero(numbers[period:] != numbers[:-period])
        starts = np.concatenate(([0], differs + 1))
        ends = np.concatenate((differs, [len(units) - period])) + period
        lengths = ends - starts
        words = words_before[ends] - words_before[starts]
        often = (lengths >= REPEATS * period) & (words >= LEAST_WORDS)
        if bool((often & (words * period <= LONGEST_PIECE * lengths)).any()):
            return True
    return False


def _word_loops(word: str) -> bool:
    """Whether a long word without spaces repeats: letters or digits (`101010…`), or a formula's parts (`x+1,x+1,…`)."""
    if _REPEATED_LETTERS.search(word):
        return True
    codes = np.array([ord(character) for character in word])
    spoken = np.array([character.isalnum() for character in word])
    for period in range(1, min(LONGEST_PIECE, len(word) // REPEATS_IN_WORD) + 1):
        edges = np.concatenate(([-1], np.flatnonzero(codes[period:] != codes[:-period]), [len(word) - period]))
        runs = np.diff(edges) - 1 + period
        for at in np.flatnonzero(runs >= max(REPEATS_IN_WORD * period, LONG_WORD)):
            start = int(edges[at]) + 1
            if bool(spoken[start : start + period].any()):  # a rule of a table says nothing
                return True
    return False
