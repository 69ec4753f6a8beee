"""Text from data, models and servers, made safe to show: pure, used by every command that prints such text.

A completion or a server's error may hold escape sequences that clear the screen, set the window's title or retype a
command, and marks that turn the reading direction of what follows. They are shown as what they are, `\\x1b`.
"""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control characters, halves of surrogate pairs (which cannot be encoded), and line separators other than \n.
_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))


def printable(text: str) -> str:
    """`text` with every control character but line break and tab written out, as `\\x1b` or `\\u202e`."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(character if _is_shown(character) else _escaped(character) for character in text)


def printable_line(text: str) -> str:
    """`printable` on one line: every run of white space is one space."""
    return printable(" ".join(text.split()))


def _is_shown(character: str) -> bool:
    if character in _KEPT:
        return True
    return character not in _DIRECTION and unicodedata.category(character) not in _CATEGORIES


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
