"""An evaluator of arithmetic prose for tests, written without the package: what does a text claim, and is it so?

It reads operators as signs and as words ("half of", "25% of", "the sum of 3 and 4", "3 more than 4", "twice",
"squared"), takes the longest expression that it understands on either side of every `=`, `equals` and `is`, and says
which claims are false. Only the standard library, and nothing of `tokenskip`.
"""

from __future__ import annotations

import re
from fractions import Fraction

_TOKEN = re.compile(r"\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+|[A-Za-z]+(?:[-'][A-Za-z]+)*|\S")
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_LINKS = ("=", "equals", "is", "are")
_SIGNS = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "plus": "+", "minus": "-", "times": "*"}
_FRACTIONS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "tenth": 10}
_MULTIPLES = {"twice": 2, "double": 2, "thrice": 3, "triple": 3}
_POWERS = {"squared": 2, "cubed": 3}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000}
_STOPS = frozenset(".;:!?")
_KNOWN = {
    "of", "and", "the", "a", "more", "less", "than", "sum", "product", "difference", "between", "divided", "by",
    *_SIGNS, *_FRACTIONS, *_MULTIPLES, *_POWERS, *_SCALES, *_LINKS, "square", "root", "off", "mod", "per", "from",
}  # fmt: skip
Claim = tuple[Fraction, Fraction]


class _NoValueError(Exception):
    pass


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        if [self.peek(i) for i in range(len(words))] == list(words):
            self.at += len(words)
            return True
        return False

    def all(self) -> Fraction:
        value = self.sum()
        if self.at < len(self.tokens):
            raise _NoValueError
        return value

    def sum(self) -> Fraction:
        value = self.term()
        while True:
            if self.take("more", "than"):
                value = self.sum() + value
            elif self.take("less", "than"):
                value = self.sum() - value
            elif self.take("+"):
                value += self.term()
            elif self.take("-"):
                value -= self.term()
            else:
                return value

    def term(self) -> Fraction:
        value = self.factor()
        while True:
            previous = self.tokens[self.at - 1]
            of = self.peek() == "of" and (previous in ("%", ")") or previous[0].isdecimal())  # "50% of", not "cost of"
            if of or (self.peek() == "x" and (self.peek(1)[:1].isdecimal() or self.peek(1) == "(")):
                self.at += 1
                value *= self.factor()
            elif self.take("*"):
                value *= self.factor()
            elif self.take("/") or self.take("divided", "by"):
                divisor = self.factor()
                if not divisor:
                    raise _NoValueError
                value /= divisor
            elif self.take("mod"):
                divisor = self.factor()
                if not divisor:
                    raise _NoValueError
                value %= divisor
            elif self.peek() == "(" and (previous == ")" or previous[0].isdecimal()):
                value *= self.factor()
            else:
                return value

    def factor(self) -> Fraction:
        self.take("the")
        if self.peek() in ("a", "an", "one") and self.peek(1) in _FRACTIONS:
            self.at += 1
        word = self.peek()
        if self.take("-"):
            return -self.factor()
        if self.take("+"):
            return self.factor()
        if word in _FRACTIONS:
            self.at += 1
            self.take("of")
            return self.factor() / _FRACTIONS[word]
        if word in _MULTIPLES:
            self.at += 1
            return self.factor() * _MULTIPLES[word]
        if self.take("sum", "of"):
            return self.pair(lambda a, b: a + b)
        if self.take("product", "of"):
            return self.pair(lambda a, b: a * b)
        if self.take("difference", "between"):
            return self.pair(lambda a, b: a - b)
        if self.take("√") or self.take("square", "root", "of"):
            return _root(self.factor())
        return self.postfix(self.atom())

    def pair(self, combine) -> Fraction:
        first = self.sum()
        if not self.take("and"):
            raise _NoValueError
        return combine(first, self.sum())

    def atom(self) -> Fraction:
        word = self.peek()
        self.at += 1
        if word == "(":
            value = self.sum()
            if not self.take(")"):
                raise _NoValueError
            return value
        if not re.fullmatch(r"[0-9][0-9,]*(\.[0-9]+)?|\.[0-9]+", word):
            raise _NoValueError
        return Fraction(word.replace(",", ""))

    def postfix(self, value: Fraction) -> Fraction:
        n_units = 0
        while True:
            word = self.peek()
            if word == "^":
                self.at += 1
                power = self.atom()
                if power.denominator != 1 or not 0 <= power <= 12:
                    raise _NoValueError
                value **= int(power)
                continue
            if word == "%":
                value /= 100
            elif word == "!":
                product = Fraction(1)
                for factor in range(2, int(value) + 1 if value <= 20 else 2):
                    product *= factor
                value = product
            elif word in _POWERS:
                value **= _POWERS[word]
            elif word in _SCALES:
                value *= _SCALES[word]
            elif word == "/" and self.peek(1).isalpha() and self.peek(1) not in _KNOWN and len(self.peek(1)) > 1:
                self.at += 1  # "$2/egg"
            elif word.isalpha() and len(word) > 1 and word not in _KNOWN and not n_units:
                n_units = 1  # "3 apples"
            else:
                return value
            self.at += 1


def _root(value: Fraction) -> Fraction:
    root = Fraction(round(float(value) ** 0.5))
    if root * root != value:
        raise _NoValueError
    return root


def _value(tokens: list[str]) -> Fraction | None:
    try:
        return _Reader(tokens).all()
    except (_NoValueError, OverflowError):
        return None


def false_claims(text: str) -> set[Claim]:
    """Every equality in `text` whose two sides have values that differ, as these values."""
    claims = set()
    for part in [_CALCULATOR.sub("", text), *_CALCULATOR.findall(text)]:
        for line in part.strip("<>").splitlines():
            tokens = [_SIGNS.get(t.lower(), t.lower()) for t in _TOKEN.findall(line) if t not in "$€£"]
            for at, token in enumerate(tokens):
                if token in _LINKS and (claim := _claim(tokens, at)):
                    claims.add(claim)
    return claims


def _claim(tokens: list[str], at: int) -> Claim | None:
    low = at
    while low and tokens[low - 1] not in ("=", "equals") and not _ends(tokens, low - 1) and at - low < 24:
        low -= 1
    left = next((tokens[i:at] for i in range(low, at) if _value(tokens[i:at]) is not None), None)
    high = at + 1
    while high < len(tokens) and tokens[high] not in ("=", "equals") and not _ends(tokens, high) and high - at < 24:
        high += 1
    right = next((tokens[at + 1 : i] for i in range(high, at + 1, -1) if _value(tokens[at + 1 : i]) is not None), None)
    if left is None or right is None:
        return None
    before = tokens[at - len(left) - 1] if at - len(left) > low else ""
    after = tokens[at + 1 + len(right)] if at + 1 + len(right) < high else ""
    if any(len(word) == 1 and word.isalpha() and word != "a" for word in (before, after)):
        return None  # "x + 3 = 11" claims nothing about numbers
    if tokens[at] in ("is", "are") and not (_is_numeric(tokens[at - 1]) and _is_numeric(tokens[at + 1])):
        return None  # prose: "there are 3 houses and each is 5 miles away"
    a, b = _value(left), _value(right)
    assert a is not None
    assert b is not None
    written = max((len(t.partition(".")[2]) for t in (*left, *right) if t[0].isdigit()), default=0)
    if abs(a - b) <= (Fraction(1, 2 * 10**written) if written else 0):
        return None
    return a, b


def _is_numeric(token: str) -> bool:
    """Whether a token can be the edge of an expression, units aside."""
    return token[0].isdecimal() or token in "().%!√" or token in _KNOWN - {"and", "the", "a", "of"}


def _ends(tokens: list[str], at: int) -> bool:
    return tokens[at] in _STOPS and not (tokens[at] == "!" and at + 1 < len(tokens) and tokens[at + 1] in "=+-*/)")
