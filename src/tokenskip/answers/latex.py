"""LaTeX in answers: boxes found, backslashes that JSON has eaten mended, and one spelling for what is written in many.

Pure text work, linear in the length of the text.

    python -c "from tokenskip.answers.latex import *; print(find_boxes(r'\\boxed{3} and \\fbox 4'))"
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

BOX = re.compile(
    r"""(?: \x08oxed | \\boxed | \\fbox | \x0cbox | \\framebox )  # JSON reads \b and \f as control characters
        (?![a-zA-Z]) \s* (?: (?P<brace>\{) | (?P<bare>\\?[A-Za-z]+(?![\w{])|\d) )""",
    re.VERBOSE,
)
"""A box's beginning: what it holds follows in braces, or is the next token (`\\boxed 4`)."""

PLACEHOLDERS = frozenset(
    ("answer", "your answer", "final answer", "your final answer", "the answer", "...", "…", "ans")
)
"""What a box holds that only shows the form of an answer, as a prompt or a restated task does."""


class Box(NamedTuple):
    """`text[start:end]` of a completion is a box that holds `text`."""

    start: int
    end: int
    text: str


def find_boxes(text: str, start: int = 0, end: int | None = None) -> list[Box]:
    """Every closed box that begins in `text[start:end]`, outer ones only, in reading order; no placeholder."""
    boxes: list[Box] = []
    openings = list(BOX.finditer(text, start, len(text) if end is None else end))
    closes = _closing_braces(text, [match.end() for match in openings if match["brace"]])
    at = start
    for match in openings:
        if match.start() < at or (match["brace"] and match.end() not in closes):
            continue
        close, content = match.end(), match["bare"]
        if match["brace"]:
            content = text[match.end() : closes[match.end()]]
            close = closes[match.end()] + 1
        at = close
        inner = BOX.match(content.strip())
        if inner and inner["brace"]:
            content = content.strip()[inner.end() :].rstrip()[:-1]
        if content.strip() and strip_text(content).casefold() not in PLACEHOLDERS:
            boxes.append(Box(match.start(), close, content.strip()))
    return boxes


def _closing_braces(text: str, wanted: list[int]) -> dict[int, int]:
    """For the positions after opening braces: where those braces close, if they do. One pass over the text."""
    closes: dict[int, int] = {}
    if not wanted:
        return closes
    stack: list[int] = []
    for match in _BRACE.finditer(text, wanted[0] - 1):
        mark = match.group()
        if mark == "{":
            stack.append(match.end())
        elif mark == "}" and stack:  # an escaped brace is none of the two
            closes[stack.pop()] = match.start()
    return closes


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def balanced(text: str) -> bool:
    """Whether every brace of `text` closes."""
    depth = 0
    for match in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth < 0:
            return False
    return depth == 0


_EATEN = re.compile(
    r"""  \x08 (?= oxed|egin|eta|ar|inom|mod|ig|ot|ullet|ackslash|f\{ )
        | \x0c (?= rac|box|orall|lat|loor )
        | \x07 (?= lpha|pprox|ngle|st|rc|ligned )
        | \x0b (?= ec|arphi|arepsilon|ee|dots|ert|arnothing )
        | \t (?= ext(?:bf|it|rm|tt)?\{ | imes | heta | frac | riangle | herefore | ilde | binom | anh? [\\({\^ ]
               | au (?![a-z]) | o (?= \s* [-\\\d] ) | op (?![a-z]) )
        | \r (?= ho (?![a-z]) | ight | angle | m\{ | oot )
        | \n (?= u (?: \s* [-+=^_)}\d/$] | \s* $ ) | eq (?![a-z]) | abla | e (?= \s* [-\\\d] ) | otin 
            | ot (?= \\) | eg (?![a-z])
               | exists | mid (?![a-z]) | parallel | subseteq | onumber | ewline )
    """,
    re.VERBOSE,
)
_CONTROL = {"\x08": "b", "\x0c": "f", "\x07": "a", "\x0b": "v", "\t": "t", "\r": "r", "\n": "n"}
_MAYBE_EATEN = re.compile("[\x07\x08\x0b\x0c\r\t]|\n(?:u|e|a|o|m|p|s)")


def mend_backslashes(text: str) -> str:
    """`text` with the backslashes that a JSON reader took for control characters: form feed + "rac" is \\frac."""
    if not _MAYBE_EATEN.search(text):
        return text
    return _EATEN.sub(lambda match: "\\" + _CONTROL[match.group()], text)


TEXT = re.compile(
    r"\\(?:text|mbox|hbox|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathtt|emph|operatorname\*?"
    r"|boldsymbol|bm|underline)\s*\{([^{}]*)\}"
)
_SPACING = re.compile(
    r"\\\\|\\(?:left|right|displaystyle|textstyle|q?quad|space|[bB]igg?[lr]?|limits)(?![a-zA-Z])|\\[,!;:> ()\[\]]|~"
)
"""Two backslashes (a new row) come first, so that the second is no beginning of `\\\\ `; they stay."""
_THIN_GROUPS = re.compile(r"(?<=\d)(?:\\,|\{,\}|,\\!\s*|\\ |~)(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\\[dtc]?frac(?![a-zA-Z])\s*(?:\{([^{}]*)\}|([\da-zA-Z]))\s*(?:\{([^{}]*)\}|([\da-zA-Z]))")
_ROOT = re.compile(r"\\sqrt\s*([\da-zA-Z])")
_DEGREES = re.compile(r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|°|\\degree(?![a-zA-Z])|º")

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True))
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_SIGNS = {
    "−": "-", "–": "-", "﹣": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ",
    "÷": "/", "π": "\\pi ",
    "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "±": "\\pm ",
    "∅": "\\emptyset ", "⁄": "/", "∕": "/", "θ": "\\theta ", "∘": "\\circ ", "¢": " cents",
    "\u00a0": " ", "\u2009": " ",
    "\u202f": " ", "\u2007": " ", "\u200b": "", "\ufeff": "", "٫": ".", "٬": ",", "，": ", ", "：": ":",
    "。": ".", "、": ", ",
    "“": '"', "”": '"', "’": "'", "‘": "'", "「": '"', "」": '"',
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_UNICODE_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\w+))")


def to_ascii(text: str) -> str:
    """`text` with digits, signs, fractions and powers of Unicode in ASCII or LaTeX; letters stay."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = "".join(_narrow(character) if character > "\x7f" else character for character in text)
    text = _VULGAR.sub(
        lambda match: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", match[0]).split("⁄")), text
    )
    text = _SUPERSCRIPT.sub(lambda match: "^{" + "".join(_SUPERSCRIPTS[one] for one in match[0]) + "}", text)
    text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
    return _UNICODE_ROOT.sub(lambda match: f"\\sqrt{{{match[1] or match[2] or match[3]}}}", text)


def _narrow(character: str) -> str:
    if "！" <= character <= "～":  # full-width ASCII
        return chr(ord(character) - 0xFEE0)
    if character.isdecimal():  # digits of every script
        return str(unicodedata.decimal(character))
    return character


def plain(text: str) -> str:
    """`text` in one spelling that numbers and words can be read from: no text commands, spacing or dollar signs of
    math.

    A dollar sign that is money stays as `\\$`; degrees become the word.
    """
    text = to_ascii(mend_backslashes(text)).strip()
    if "\\" in text or "{" in text or "~" in text:
        text = _THIN_GROUPS.sub(",", text)
        text = (
            _SPACING.sub(lambda match: "\\\\" if match[0] == "\\\\" else " ", text)
            .replace("\\%", "%")
            .replace("{,}", ",")
        )
        while True:  # a text command inside another
            bare = TEXT.sub(r" \1 ", text)
            if bare == text:
                break
            text = bare
        text = _FRACTION.sub(lambda match: rf"\frac{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}", text)
        text = text.replace("\\varnothing", "\\emptyset")
        text = _ROOT.sub(r"\\sqrt{\1}", text)
    if "$" in text:
        text = _drop_math_dollars(text)
    if "circ" in text or "°" in text or "degree" in text or "º" in text:
        text = _DEGREES.sub(" degrees ", text)
    return text.strip()


def _drop_math_dollars(text: str) -> str:
    """Dollar signs in pairs enclose mathematics and go; one alone, or escaped, is money and becomes `\\$`."""
    money = text.replace("\\$", "\0")
    if money.count("$") % 2:
        money = money.replace("$", "\0", 1)
    return money.replace("$", " ").replace("\0", "\\$")


def shown(answer: str, text: str) -> str:
    """`answer` as it may leave this chapter: without the `\\$` that `plain` writes for money, unless `text` has it."""
    return answer if answer in text else answer.replace("\\$", "$")


def strip_text(text: str) -> str:
    """`text` without text commands, dollar signs, braces and punctuation around it."""
    return TEXT.sub(r"\1", text).replace("$", "").strip(" .()[]{}\"'")
