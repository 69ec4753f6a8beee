"""Units: what a name after a number means, which names mean the same, and how many of one make another.

python -c "from tokenskip.answers.units import *; print(read_unit('square centimeters'), read_unit('cm^2'))"
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from tokenskip.answers.words import NO_UNIT, word_set

_TABLE = """
length      1/1000          mm millimeter millimetre
length      1/100           cm centimeter centimetre
length      1               m meter metre метр 米
length      1000            km kilometer kilometre км 公里 千米 キロ
length      254/10000       in inch
length      3048/10000      ft foot feet
length      9144/10000      yd yard
length      1609344/1000    mi mile
mass        1/1000          mg milligram
mass        1               g gram gramme gr
mass        1000            kg kilogram kilo kilogramm кг 公斤 千克
mass        1000000         ton tonne
mass        45359237/100000 lb lbs pound
mass        28349523/1000000 oz ounce
time        1               s sec second sekunde segundo seconde 秒
time        60              min mins minute minuto 分钟 分
time        3600            h hr hour stunde hora heure 小时 小時 時間 시간
time        86400           d day tag día dia jour 天 日
time        604800          wk week woche semana semaine
month       1               mo month monat mes mois
month       12              yr year jahr año an année год лет
volume      1/1000          ml milliliter millilitre
volume      1               l L liter litre litro
gallon      1               gal gallon
gallon      1/4             qt quart
gallon      1/8             pt pint
money       1               \\$ USD dollar dollars buck US-dollar
money       1/100           cent cents ¢
euro        1               € EUR euro
sterling    1               £ GBP
rupee       1               ₹ Rs Rs. rupee INR
yen         1               ¥ JPY yen 円
yuan        1               元 RMB yuan CNY 块
won         1               원 KRW
real        1               R\\$ BRL
rouble      1               ₽ руб рубль рублей ruble rouble
angle       1               degree deg
radian      1               rad radian
celsius     1               °C C celsius degrees-C
fahrenheit  1               °F F fahrenheit degrees-F
speed       1609344/3600000 mph
speed       1000/3600       kmh kph
morning     1               am a.m. a.m AM
evening     1               pm p.m. p.m PM
"""
UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, factor, *names in (line.split() for line in _TABLE.strip().splitlines())
    for name in names
}
"""Name -> what it measures and how many basic units it is. `lb` is a mass only; pounds sterling are written £."""

_SHORT_NOUNS = word_set(
    "men man cup cups egg eggs dog dogs cat cats car cars bag bags box pen pens toy toys bus kid kids boy boys "
    "hen hens cow "
    "cows pig pigs ant ants bee bees fan fans pie pies jar jars can cans bar bars row rows way ways lap laps set "
    "sets bed "
    "beds map maps hat hats key keys gem gems nut nuts job jobs rat bat fox hit hits pot pots tin tub pts pcs pc "
    "hrs yrs "
    "wks lbs th st nd rd"
)
"""Words of up to three letters that are things and not products of variables (`2 xy`)."""
_FILLERS = word_set(
    "of them the each in all total altogether together left remaining away long old tall apart overall on average a an "
    "every per-day now is are that they he she it we you has have will need needs his her their for this only there"
)
"""Words around a thing that name no thing."""
_IN_PROSE = frozenset(("and", "to", "over", "und", "y", "et", "e", "i", "и"))
"""Words that change a number only with another number after them; a sentence around one number may hold them."""
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3, "quadrat": 2}
_POWER_SIGN = re.compile(r"\s*\^\s*\{?\s*([23])\s*\}?$")
_WORD = re.compile(r"[^\W\d_][^\W\d_'’.-]*(?:[.'’-][^\W\d_]+)*\.?|\\?\$|[€£¥₹₽%°¢]")


class Unit(NamedTuple):
    """What a number counts: `dimension` is what is measured, or the things' names; `factor` basic units each."""

    dimension: str
    factor: Fraction = Fraction(1)
    nouns: frozenset[str] = frozenset()

    def agrees(self, other: Unit) -> bool:
        """Whether both measure the same; things agree when the names of one are all among the other's."""
        if self.nouns and other.nouns:
            return self.nouns <= other.nouns or other.nouns <= self.nouns
        return self.dimension == other.dimension


def known_unit(name: str) -> tuple[str, Fraction] | None:
    """Dimension and factor of a unit by its name or abbreviation, in the singular or plural."""
    for form in (name, name.casefold(), name.rstrip("."), *singulars(name.casefold().rstrip("."))):
        if form in UNITS:
            return UNITS[form]
    return None


def singulars(word: str) -> tuple[str, ...]:
    """What `word` may be the plural of."""
    forms = []
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith(("xes", "ches", "shes", "sses", "zes")):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss") and len(word) > 2:
        forms.append(word[:-1])
    return (*forms, word)


def read_unit(text: str, *, prose: bool = False) -> Unit | None:
    """The unit that `text` is; None when it is none, as words that change a number ("million", "pi", "or more") are.

    With `prose` any words that change no value will do, however many there are.
    """
    text = text.strip(" .,;:!?()*")
    if not text.isascii():  # vowel signs of Indic scripts and the like are no letters for a regular expression
        text = "".join(character for character in text if not unicodedata.category(character).startswith("M"))
    power = 1
    if match := _POWER_SIGN.search(text):
        power, text = int(match[1]), text[: match.start()].rstrip()
    for separator in ("/", " per ", " a ", " an ", " pro ", " par ", " por "):
        above, found, below = text.partition(separator)
        if found and above.strip() and (separator in ("/", " per ") or known_unit(below.strip())):
            upper, lower = read_unit(above, prose=prose), read_unit(below, prose=prose)
            if upper is None or lower is None:
                return None
            if upper.dimension == "length" and lower.dimension == "time" and power == 1:
                return Unit("speed", upper.factor / lower.factor)
            return Unit(f"{upper.dimension}/{lower.dimension}^{power}", upper.factor / lower.factor)
    words: list[str] = _WORD.findall(text)
    if not words or len("".join(words)) != len("".join(text.split())):
        return None  # digits, operators, LaTeX
    while len(words) > 1 and (words[0].casefold() in _POWERS or words[-1].casefold() in _POWERS):
        at = 0 if words[0].casefold() in _POWERS else -1
        power *= _POWERS[words.pop(at).casefold()]
    return _named(words, power, prose)


def _named(words: list[str], power: int, prose: bool) -> Unit | None:
    known = known_unit(" ".join(words).replace("degrees C", "degrees-C").replace("degrees F", "degrees-F"))
    if known is None and len(words) == 2 and words[0].startswith("degree"):
        known = known_unit(words[1]) if words[1] in ("C", "F", "Celsius", "Fahrenheit") else None
    if known is not None:
        dimension, factor = known
        return Unit(dimension if power == 1 else f"{dimension}^{power}", factor**power)
    changing = NO_UNIT - _IN_PROSE if prose else NO_UNIT
    if any(word.casefold().strip(".") in changing for word in words) or (len(words) > 4 and not prose):
        return None
    if not prose and any(not _is_noun(word) for word in words):
        return None
    nouns = [singulars(word.casefold().strip("."))[0] for word in words if word.casefold() not in _FILLERS]
    nouns = [noun for noun in nouns if noun not in ("unit", "st", "nd", "rd", "th")]
    if not nouns:
        return Unit("")
    if prose and (found := known_unit(nouns[0])):  # "18 dollars every day"
        return Unit(*found)
    return Unit(" ".join(nouns) + ("" if power == 1 else f"^{power}"), nouns=frozenset(nouns))


def _is_noun(word: str) -> bool:
    if len(word) > 3 or not word.isascii() or word.casefold() in _FILLERS:
        return True
    return word.casefold() in _SHORT_NOUNS or known_unit(word) is not None
