"""What a text means as a value: an exact number with its unit, in digits, words or LaTeX; or None.

Nothing is guessed: the whole text must be one number, with nothing after it but a scale ("million"), a percent sign or
a unit. `3 or more`, `3\\sqrt{2}` and `3, 5` are no number.

    python -c "from tokenskip.answers.values import *; print(read_quantity('two and a half million dollars'))"
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from tokenskip.answers.latex import plain
from tokenskip.answers.units import UNITS, Unit, read_unit
from tokenskip.answers.words import ATTACHED_SCALES, NUMBER_WORDS, ORDINALS, PARTS, SCALES

MAX_ANSWER = 1000
"""Longer answers are not compared; no gold answer is near it."""

MAX_DIGITS = 10_000
"""A power with more digits is not computed here."""


class Quantity(NamedTuple):
    """An exact value. `digits`: significant digits of a decimal that may be rounded; 0 for integers and fractions."""

    value: Fraction
    unit: Unit | None = None
    percent: bool = False
    digits: int = 0
    decimals: int = 0


GROUPED = r"""(?: \d{1,3}(?:,\d{3})+(?![\d])          # 1,234,567
                | \d{1,2}(?:,\d{2})+,\d{3}(?!\d)      # 12,34,567 as in India
                | \d{1,3}(?:[ '_]\d{3})+(?!\d)        # 1 234 567, 1'234'567
                | \d+ )"""
NUMBER = rf"""(?: \d{{1,3}}(?:\.\d{{3}})+,\d+(?!\d)   # 1.234,50
                | \d{{1,3}}(?:\.\d{{3}}){{2,}}(?![\d.,]) # 1.234.567
                | {GROUPED}(?:\.\d+)?
                | \.\d+ )"""
_EXPONENT = r"\^ \s* (?: \{ \s* ([-+]?\d{1,4}) \s* \} | ([-+]?\d{1,4}) )"
_CORE = re.compile(
    rf"""  (?P<mixed>  ({GROUPED}) \s* (?:and\s+)? \\frac\{{\s*(\d+)\s*\}}\{{\s*(\d+)\s*\}} )
         | (?P<mixed_slash> (\d+) (?:\s+|\s+and\s+) (\d+)\s*/\s*(\d+) (?![\d/]) )
         | (?P<frac>   \\frac\{{\s*([-+]?)\s*({NUMBER})\s*\}}\{{\s*([-+]?)\s*({NUMBER})\s*\}} )
         | (?P<slash>  ({NUMBER}) \s*/\s* (-?) ({NUMBER}) (?![\d/]) )
         | (?P<power>  ({NUMBER}) \s* (?:\\times|\\cdot|\*|x) \s* 10 \s* {_EXPONENT} )
         | (?P<e>      ({NUMBER}) [eE] ([-+]?\d{{1,4}}) (?!\w) )
         | (?P<raised> ({NUMBER}) \s* {_EXPONENT} )
         | (?P<factorial> (\d{{1,3}}) ! (?!=) )
         | (?P<decimal> ({NUMBER}) (?:\.(?!\w))? )
    """,
    re.VERBOSE,
)
_PLAIN_INTEGER = re.compile(r"-?(?:[0-9]{1,18}|[0-9]{1,3}(?:,[0-9]{3}){1,5})")
_HEDGES = re.compile(
    r"(?:about|approximately|approx\.?|exactly|only|just|roughly|around|nearly|almost|circa|ca\.|a total "
    r"of|no\.|number|"
    r"\\approx|≈|~|ungefähr|etwa|genau|environ|unos|unas|circa|cerca de|около|примерно|約|约|大约)\s*(?=\S)",
    re.IGNORECASE,
)
_SIGN = re.compile(
    r"([-+–])\s*(?=[\d.\\$€£¥₹(]|R\$|[^\W\d])|(?:negative|minus|moins|menos|meno|минус|负|負|マイナス)\s*",
    re.IGNORECASE,
)
_CURRENCY = re.compile(r"(?:(?:US|A|C)?\\?\$|R\\?\$|€|£|¥|₹|₽|Rs\.?|USD|EUR|GBP|INR)\s*(?=[-\d.])")
_AND_PART = re.compile(r"\s*(?:and|&)\s+(?:(?:a|one)\s+)?(half|quarter|third)\b", re.IGNORECASE)
_PERCENT = re.compile(
    r"\s*(?:%|percent(?:age points)?\b|per\s+cent\b|prozent\b|pour\s*cent\b|por\s*ciento\b|per\s*cento\b|por\s*cento\b|"
    r"процент\w*|パーセント|퍼센트)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\s*-?\s*([^\W\d_]+)\.?")


@lru_cache(maxsize=4096)  # of one answer it is asked several times
def read_quantity(text: str, *, prose: bool = False) -> Quantity | None:
    """The number that the whole of `text` is, with its unit; None for anything else.

    With `prose` any words that change no value may follow the number ("18 apples that are left").
    """
    if _PLAIN_INTEGER.fullmatch(text):  # nearly every gold answer of word problems
        return Quantity(Fraction(int(text.replace(",", ""))))
    if len(text) > MAX_ANSWER:
        return None
    text = plain(text).strip(" \t\r\n*_`\"',;:").rstrip(" .,;:")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    if not text:
        return None
    text, sign, unit = _prefixes(text)
    read = _in_digits(text) or _in_words(text)
    if read is None:
        return None
    number, rest = read
    number, rest = _scaled(number, rest)
    value = sign * number.value
    if match := _PERCENT.match(rest):
        rest = rest[match.end() :].strip(" .,")
        tail = read_unit(rest, prose=prose) if rest else Unit("")
        return None if tail is None else number._replace(value=value, percent=True)
    if re.match(r"[a-zA-Z](?![^\W_])", rest) and not prose:
        return None  # 5m is a product of a variable, 5 m a length
    rest = rest.strip().rstrip(".")
    if rest:
        rest_unit = _read_rest(rest, value, prose)
        if rest_unit is None or (
            unit and not prose and rest_unit.dimension and not rest_unit.nouns and rest_unit.dimension != unit.dimension
        ):
            return None
        unit = unit or rest_unit
    if unit is not None and not unit.dimension:
        unit = None
    return number._replace(value=value, unit=unit)


def _prefixes(text: str) -> tuple[str, int, Unit | None]:
    """What is left of `text` after words such as "about", a sign and a currency, and those."""
    sign, unit = 1, None
    for _ in range(4):
        if match := _HEDGES.match(text):
            text = text[match.end() :]
        elif match := _SIGN.match(text):
            sign = -sign if match[1] != "+" else sign
            text = text[match.end() :]
        elif match := _CURRENCY.match(text):
            name = (
                match.group().strip().lstrip("USAC")
                if "$" in match.group() and "R" not in match.group()
                else match.group().strip()
            )
            unit = Unit(*UNITS[{"$": "\\$", "R$": "R\\$"}.get(name, name)])
            text = text[match.end() :]
        else:
            break
    return text, sign, unit


def _in_digits(text: str) -> tuple[Quantity, str] | None:
    match = _CORE.match(text)
    if match is None:
        return None
    kind = str(match.lastgroup)
    rest = text[match.end() :]
    position = match.re.groupindex[kind]
    parts = [part for part in match.groups()[position:] if part is not None]
    if rest[:1].isdigit() or (kind == "decimal" and re.match(r"[,.:/^]\s?\d", rest)):
        return None  # 1,2 and 10:30 and 1.2.3
    number = _value(kind, parts)
    return None if number is None else (number, rest)


def _value(kind: str, parts: list[str]) -> Quantity | None:
    if kind in ("mixed", "mixed_slash"):
        whole, part, parts_of_one = (int(re.sub(r"\D", "", part)) for part in parts)
        return Quantity(whole + Fraction(part, parts_of_one)) if parts_of_one else None
    if kind in ("frac", "slash"):
        signs = -1 if (parts.count("-") % 2) else 1
        over, under = (_decimal(part) for part in parts if part not in ("", "-", "+"))
        return Quantity(signs * over / under) if under else None
    if kind in ("power", "e"):
        value = _decimal(parts[0]) * Fraction(10) ** int(parts[1])
        return Quantity(value, digits=_significant(parts[0]), decimals=_decimals(parts[0]) - int(parts[1]))
    if kind == "raised":
        base, exponent = _decimal(parts[0]), int(parts[1])
        if abs(exponent) * len(parts[0]) > MAX_DIGITS or (not base and exponent <= 0):
            return None
        return Quantity(Fraction(base**exponent))
    if kind == "factorial":
        return Quantity(Fraction(math.factorial(int(parts[0]))))
    return Quantity(_decimal(parts[0]), digits=_significant(parts[0]), decimals=_decimals(parts[0]))


def _decimal(text: str) -> Fraction:
    if re.search(r"\.\d{3},|\.\d{3}\.", text):  # 1.234,50 and 1.234.567
        text = text.replace(".", "").replace(",", ".")
    return Fraction(re.sub(r"[, '_]", "", text))


def _decimals(text: str) -> int:
    return len(text.rpartition(".")[2]) if "." in text and not re.search(r"\.\d{3}[.,]", text) else 0


def _significant(text: str) -> int:
    return len(re.sub(r"\D", "", text).lstrip("0")) if _decimals(text) else 0


def _in_words(text: str) -> tuple[Quantity, str] | None:
    """A number in words at the beginning of `text` and what follows: "one hundred and five apples"."""
    total, current, at, words = 0, 0, 0, 0
    while match := _WORD.match(text, at):
        word = match[1].casefold()
        if word in NUMBER_WORDS:
            current += NUMBER_WORDS[word]
        elif words and current and word == "hundred":
            current *= 100
        elif words and current and word in ("thousand", "million", "billion", "trillion"):
            total, current = total + current * int(SCALES[word]), 0
        elif not words and word in ("a", "an") and (after := _WORD.match(text, match.end())):
            if after[1].casefold() not in ("hundred", "thousand", "million", "dozen", "half", "third", "quarter"):
                break
            current = 1
        elif words and word == "and" and (after := _WORD.match(text, match.end())):
            if after[1].casefold() not in NUMBER_WORDS:
                break
        elif word in PARTS and (words or word == "half"):
            over = (total + current) or 1
            rest = re.sub(r"^\s+(?:of )?(?:an?|one)\b", "", text[match.end() :])
            return (Quantity(Fraction(over, PARTS[word])), rest) if _is_part(rest) else None
        elif not words and word in ORDINALS:
            return Quantity(Fraction(ORDINALS[word])), text[match.end() :]
        else:
            break
        at, words = match.end(1), words + 1
    if words:
        return Quantity(Fraction(total + current)), text[at:]
    for word in sorted(NUMBER_WORDS, key=len, reverse=True) if text[:1] > "\x7f" else ():  # no spaces: 三个
        if text.startswith(word) and not word.isascii() and len(word) == 1:
            return Quantity(Fraction(NUMBER_WORDS[word])), text[len(word) :]
    return None


def _is_part(rest: str) -> bool:
    """Whether a part is of one thing ("half a cake"), not of a number ("half of 80")."""
    return not re.search(r"\d", rest)


def _scaled(number: Quantity, rest: str) -> tuple[Quantity, str]:
    """The number multiplied by the scales that follow it ("3 hundred thousand", "50K", "3万"), and half a one more."""
    value = number.value
    if match := re.match(r"(K|k|M|mn|bn|B)(?![^\W\d_])", rest):
        value, rest = value * ATTACHED_SCALES[match[1]], rest[match.end() :]
    if match := _AND_PART.match(rest):
        value, rest = value + Fraction(1, PARTS[match[1].casefold()]), rest[match.end() :]
    for _ in range(3):
        word = _WORD.match(rest)
        if word and word[1].casefold() in SCALES:
            value, rest = value * SCALES[word[1].casefold()], rest[word.end(1) :].removeprefix(".")
        elif (
            word
            and word[1][0] > "⺀"
            and (scale := next((one for one in (word[1][:2], word[1][:1]) if one in SCALES), ""))
        ):
            value, rest = value * SCALES[scale], rest.lstrip()[len(scale) :]
        elif word and word[1].casefold() in ("third", "thirds", "fourths", "fifth", "fifths") and number.digits == 0:
            value, rest = value / PARTS[word[1].casefold()], rest[word.end(1) :]
        else:
            break
    return number._replace(value=value, digits=number.digits if value == number.value else 0), rest


def _read_rest(rest: str, value: Fraction, prose: bool) -> Unit | None:
    """The unit in what follows a number; words in brackets are the unit, too, or the same number once more."""
    while match := re.search(r"\s*\(([^()]*)\)", rest):
        inner = match[1].strip()
        same = read_quantity(inner) if inner else None
        if same is not None and same.value == value:
            rest = rest[: match.start()] + rest[match.end() :]
        else:
            rest = f"{rest[: match.start()]} {inner} {rest[match.end() :]}"
    if not rest.strip():
        return Unit("")
    return read_unit(rest, prose=prose)


def parse_number(answer: str) -> Fraction | None:
    """The exact value of an answer that is one number, with or without a unit; None for anything else. `20%` is 20."""
    quantity = read_quantity(answer)
    return None if quantity is None else quantity.value


def numbers_equal(left: Quantity, right: Quantity, left_value: Fraction, right_value: Fraction) -> bool:
    """Equal exactly; or within a relative 1e-4 where one is a decimal to which the other one can have been rounded.

    A decimal counts as rounded from four significant digits on, and only when the other has more digits or is no
    decimal that ends.
    """
    if left_value == right_value:
        return True
    for rounded, other, value, exact in (
        (left, right, left_value, right_value),
        (right, left, right_value, left_value),
    ):
        if not rounded.digits or not exact:
            continue
        error = abs(value - exact) / abs(exact)
        if rounded.digits >= 15 and error < Fraction(1, 10**12):  # binary floats: 0.30000000000000004
            return True
        ends = _ends(exact)
        if rounded.digits >= 4 and error <= Fraction(1, 10**4):
            if not ends:
                return True
            if other.digits and other.decimals > rounded.decimals:
                return abs(value - exact) * 2 * Fraction(10) ** rounded.decimals <= 1
    return False


def _ends(value: Fraction) -> bool:
    """Whether a value can be written as a decimal that ends."""
    under = value.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    return under == 1
