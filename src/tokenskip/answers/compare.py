"""Answers: found in a completion, and compared with the gold one. Model text is never evaluated, and time is bounded.

    statements.py   where a completion states its answer           (`extract_answer`)
    phrases.py      the value that a phrase states
    values.py       what a text means as an exact number           (`parse_number`)
    here            whether two answers are the same               (`compare`)

`compare` goes through these steps, and `Grade.reason` names the one that decided:

    equal text      the same string after spelling is normalised, or the same words (letter case aside)
    equal number    both are numbers (integers, decimals, fractions, 1,000, 20%, $5, three, with a unit)
    equal list      both are lists without brackets that hold the same items, in any order
    math-verify     both are LaTeX: equal for math-verify, in a separate process (`math_verify.py`)
    differs         none of these
    answer too long, grader timeout, ...: it cannot be decided (`correct` is None)

Units are compared when both sides have one; a unit that only one side has is ignored.

    python -c "from tokenskip.answers.compare import *; print(compare('0.5', r'\\frac12')); close_math_verify()"
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, get_args

from tokenskip.answers.latex import balanced, find_boxes, mend_backslashes, plain
from tokenskip.answers.math_verify import close_math_verify, math_verify
from tokenskip.answers.statements import extract_answer
from tokenskip.answers.units import Unit, read_unit
from tokenskip.answers.values import MAX_ANSWER, Quantity, numbers_equal, parse_number, read_quantity
from tokenskip.answers.words import word_set
from tokenskip.types import Grade

__all__ = [
    "MAX_ANSWER", "Reason", "close_math_verify", "compare", "extract_answer", "extract_boxed", "normalise",
    "parse_number", "unreadable", "with_percent_sign",
]  # fmt: skip

Reason = Literal[
    "equal text",
    "equal number",
    "equal list",
    "math-verify",
    "differs",
    "answer too long",
    "grader timeout",
    "gold cannot be read",
]
"""What `compare` gives as reason; these words land in data files."""
REASONS: tuple[str, ...] = get_args(Reason)
MAX_ITEMS = 30
"""Items of a list that are matched one by one."""

_LETTERS = re.compile(r"[^\W\d_]")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?(?:\s*([ap])\.?\s*m\.?)?", re.IGNORECASE)
_RATIO = re.compile(r"(\d+(?:\.\d+)?)((?::\d+(?:\.\d+)?)+)")
_LABEL = re.compile(r"\(([A-Z])\)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}(?:\{[clr|]*\})?")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan log ln exp lim max min gcd lcm det mod dim ker deg sinh cosh tanh pi"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_EQUALITY = re.compile(r"(?<![<>!\\:])=")
_EXPRESSION_AND_UNIT = re.compile(
    r"(?P<expression>(?=.*[\d\\]).*(?:[\d)}\]]|\\[a-z]+))\s+(?P<unit>[a-zA-Z][a-zA-Z./ ]*(?:\^\s*\{?[23]\}?)?)",
    re.DOTALL,
)
_CHEMICAL = re.compile(r"(?<![\\\w])(?:[A-Z][a-z]?\d*)*[A-Z][a-z]?\d(?![_^])")
"""H2O: a digit after a letter is no factor."""
_ARTICLE = re.compile(r"^(?:the|an?|der|die|das|le|la|les|el|los|las|il|lo|o|a)\s+(?=\S{2})")
_TOP_LEVEL = re.compile(
    r"\\(?:begin|end)(?![a-zA-Z])|\\[a-zA-Z]+|\\.|[(\[{]|[)\]}]|,\s*|;\s*|\s+(?:and|or|und|oder|et|ou|y|и|или)\s+",
    re.DOTALL,
)


def extract_boxed(text: str) -> str | None:
    """What the last closed box (`\\boxed{...}`, `\\fbox 4`) holds; None without one."""
    boxes = find_boxes(text)
    return boxes[-1].text if boxes else None


def normalise(answer: str) -> str:
    """The answer in one spelling; equal results mean equal answers."""
    text = plain(answer).replace("\\$", "")
    text = re.sub(r"\bdegrees\b", "", text)
    text = _SPACE.sub("", text.strip().rstrip(".").strip())
    return text or answer.strip()


def unreadable(gold: str) -> str | None:
    """Why a gold answer cannot be compared with anything; None when it can."""
    if gold.isdigit() and len(gold) < MAX_ANSWER:
        return None
    text = mend_backslashes(gold)
    if not text.strip():
        return "it is empty"
    if len(text) > MAX_ANSWER:
        return f"it is longer than {MAX_ANSWER} characters"
    if text.strip().lstrip("+-").casefold() in ("nan", "inf", "infinity"):
        return f"{text.strip()} is no value"
    if not balanced(text):
        return "its braces do not match"
    if text.replace("\\$", "").count("$") % 2 and not re.search(r"\$\s*[-\d.]", text):
        return "its dollar signs do not match"
    if re.search(r"\\frac\s*(?:$|\{[^{}]*\}\s*$)", text):
        return "a fraction has no denominator"
    return None


_ASKS_PERCENT = re.compile(
    r"(?:what|which|how many|find the|as an?|the) (?:\w+ ){0,2}percent(?:age)?\b|\bin percent\b|percent(?:age)? "
    r"(?:of|is|are|does|did|more|less)"
    r"|wie viel prozent|prozentsatz|pourcentage|porcentaje|percentuale|porcentagem|процент|百分之几|百分比",
    re.IGNORECASE,
)


def with_percent_sign(gold: str, question: str) -> str:
    """The gold answer, as a percentage where the question asks for one and the gold is a bare number: `20%` is
    then right.
    """
    if not question:
        return gold
    ending = question[-300:].replace("%", " percent ")
    quantity = read_quantity(gold)
    if quantity is None or quantity.percent or quantity.unit or not _ASKS_PERCENT.search(ending):
        return gold
    return f"{gold.strip()}%"


def compare(answer: str, gold: str, *, percent: bool = False) -> Grade:
    """Whether `answer` equals `gold`; the reason names the step that decided.

    `percent`: the gold may be a percentage without its sign, as GSM8K writes it, so that `20%` is right for 20.
    """
    extracted = answer if len(answer) <= 200 else answer[:200] + "…"
    correct, reason = _compare(answer, gold, percent)
    return Grade(correct=correct, reason=reason, extracted=extracted)


def _compare(answer: str, gold: str, percent: bool) -> tuple[bool | None, Reason]:
    if len(answer) > MAX_ANSWER:
        return None, "answer too long"
    if len(gold) > MAX_ANSWER:
        return None, "gold cannot be read"
    if answer == gold and answer.strip():
        return True, "equal text"
    left, right = read_quantity(answer), read_quantity(gold)
    if left and right:
        return _verdict(_same_quantity(left, right, percent), "equal number", answer, gold)
    if normalise(answer) == normalise(gold):
        return True, "equal text"
    for step in (_same_base, _same_clock_or_ratio, _same_label):
        correct = step(answer, gold)
        if correct is not None:
            return _verdict(correct, "equal number" if step is not _same_label else "equal text", answer, gold)
    if _same_words(answer, gold):
        return True, "equal text"
    (left_part, our_unit), (right_part, their_unit) = _split_unit(answer), _split_unit(gold)
    if our_unit and their_unit and (not our_unit.agrees(their_unit) or our_unit.factor != their_unit.factor):
        return False, "differs"
    if our_unit or their_unit:
        return _compare(left_part, right_part, percent)
    correct = _same_list(answer, gold, percent)
    if correct is not None:
        return _verdict(correct, "equal list", answer, gold)
    if is_prose(answer) or is_prose(gold) or _brackets_differ(answer, gold) or _is_other_equation(answer, gold):
        return False, "differs"
    return _by_math_verify(answer, gold)


def _split_unit(text: str) -> tuple[str, Unit | None]:
    """An expression and the unit after it: `\\sqrt{5} \\text{ km}`."""
    text = plain(text)
    match = _EXPRESSION_AND_UNIT.fullmatch(text.rstrip(" ."))
    unit = read_unit(match["unit"]) if match and not is_prose(match["expression"]) else None
    return (text, None) if match is None or unit is None else (match["expression"], unit)


def _verdict(correct: bool, reason: Reason, answer: str, gold: str) -> tuple[bool, Reason]:
    if not correct:
        return False, "differs"
    return True, "equal text" if normalise(answer) == normalise(gold) else reason


def _by_math_verify(answer: str, gold: str) -> tuple[bool | None, Reason]:
    correct = math_verify().equal(for_math_verify(answer), for_math_verify(gold))
    if correct is None:
        return None, "grader timeout"
    return correct, "math-verify" if correct else "differs"


def for_math_verify(text: str) -> str:
    """An answer as LaTeX that math-verify reads: no units, no money, one spelling."""
    text = plain(text).replace("\\$", "").rstrip(".")
    return re.sub(r"\bdegrees\b", "", re.sub(r"(?<![\w\\])pi(?!\w)", r"\\pi ", text)).strip()


def _same_quantity(left: Quantity, right: Quantity, percent: bool) -> bool:
    answer, gold = left.value, right.value
    if left.unit and right.unit:
        if not left.unit.agrees(right.unit):
            return False
        answer, gold = answer * left.unit.factor, gold * right.unit.factor
    if left.percent == right.percent:
        return numbers_equal(left, right, answer, gold)
    if left.percent:
        if right.unit:
            return False
        return numbers_equal(left, right, answer / 100, gold) or (percent and numbers_equal(left, right, answer, gold))
    if left.unit:
        return False
    return numbers_equal(left, right, answer, gold) or numbers_equal(left, right, answer, gold / 100)


def _same_base(answer: str, gold: str) -> bool | None:
    """Numbers with a base as subscript, which math-verify ignores; a missing base is forgiven."""
    left, right = normalise(answer), normalise(gold)
    ours, theirs = _BASE.fullmatch(left), _BASE.fullmatch(right)
    if ours and theirs:
        return ours.groups() == theirs.groups() or (not ours[1].isdigit() and None) or False
    if theirs and theirs[1].isdigit():
        return left == theirs[1]
    return None


def _same_clock_or_ratio(answer: str, gold: str) -> bool | None:
    left, right = plain(answer).strip(" ."), plain(gold).strip(" .")
    ours, theirs = _CLOCK.fullmatch(left), _CLOCK.fullmatch(right)
    if ours and theirs:
        same_half = not (ours[4] and theirs[4]) or ours[4].casefold() == theirs[4].casefold()
        return same_half and [int(part or 0) for part in ours.groups()[:3]] == [
            int(part or 0) for part in theirs.groups()[:3]
        ]
    squeezed = [re.sub(r"\s*(?::|\bto\b|\\colon)\s*", ":", side) for side in (left, right)]
    ratios = [_RATIO.fullmatch(side) for side in squeezed]
    if ratios[0] and ratios[1]:
        parts = [[read_quantity(part) for part in side.split(":")] for side in squeezed]
        if any(None in side for side in parts) or len(parts[0]) != len(parts[1]):
            return False
        ours_, theirs_ = ([part.value for part in side if part] for side in parts)
        return all(a * theirs_[0] == b * ours_[0] for a, b in zip(ours_, theirs_, strict=True)) and bool(ours_[0])
    return False if ratios[0] or ratios[1] else None


def _same_label(answer: str, gold: str) -> bool | None:
    """A gold that is the label of a choice, `(C)`; the answer may have the choice's text after it."""
    label = _LABEL.fullmatch(plain(gold))
    if not label:
        return None
    match = re.match(r"\(?([A-Z])(?:\)|\b)(?=\s*$|[.:]|\s+[^-+*/^=<>\s])", plain(answer))
    return bool(match) and match[1] == label[1] if match else None


def is_prose(text: str) -> bool:
    """Whether a text holds words: it is no formula, and letters are no products."""
    if _CHEMICAL.search(text):
        return True
    bare = _COMMAND.sub(" ", _ENVIRONMENT.sub(" ", plain(text))).replace("degrees", "")
    return any(word.group().casefold() not in _FUNCTIONS and _is_word(word, bare) for word in _WORD.finditer(bare))


def _is_word(match: re.Match[str], text: str) -> bool:
    word = match.group()
    if len(word) >= 4 or not word.isascii():
        return True
    if text.strip() == word:  # "no", "Tom", "on"; a product of letters is not written alone
        return True
    around = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
    return len(word) == 3 and around.strip() == "" and any(letter in "aeiouAEIOU" for letter in word)


def words_of(text: str) -> str:
    """A text as words: letter case, accents' encoding, articles at the beginning and punctuation aside."""
    bare = unicodedata.normalize("NFC", plain(text)).casefold()
    bare = " ".join(bare.replace("\\$", "$").strip(" \t\n.()[]{}\"'`*:;,!?").split())
    return _ARTICLE.sub("", bare)


def _same_words(answer: str, gold: str) -> bool:
    left = words_of(answer)
    return bool(_LETTERS.search(left)) and left == words_of(gold) and (is_prose(gold) or is_prose(answer))


def split_list(text: str) -> list[str]:
    """The items of a list without brackets around it: at commas, semicolons and "and" outside all brackets."""
    text = plain(text)
    items, depth, start = [], 0, 0
    for match in _TOP_LEVEL.finditer(text):
        mark = match.group()
        if mark in ("(", "[", "{", "\\{", "\\begin"):
            depth += 1
        elif mark in (")", "]", "}", "\\}", "\\end"):
            depth -= 1
        elif depth == 0 and mark[0] != "\\":
            items.append(text[start : match.start()].strip())
            start = match.end()
    items.append(text[start:].strip())
    return [re.sub(r"^(?:and|or)\s+", "", item) for item in items if item]


def _same_list(answer: str, gold: str, percent: bool) -> bool | None:
    """Lists without brackets: the same items in any order; None when neither is one or math-verify has to say."""
    left, right = split_list(answer), split_list(gold)
    if max(len(left), len(right)) < 2 or max(len(left), len(right)) > MAX_ITEMS:
        return None
    if (
        "\\pm" in answer + gold
        or "\\cup" in answer + gold
        or (min(len(left), len(right)) == 1 and _bracketed(answer if len(left) == 1 else gold))
    ):
        return None
    if len(left) != len(right):
        return False
    unmatched = list(right)
    for item in left:
        for other in unmatched:
            same, _ = _compare(item, other, percent)
            if same:
                unmatched.remove(other)
                break
        else:
            return False
    return True


def _bracketed(text: str) -> bool:
    bare = plain(text)
    return (
        bare.startswith(("(", "[", "\\{", "{", "\\begin"))
        or bool(re.match(r"[a-z] *(?:=|\\in)", bare))
        or bool(re.search(r"\\le|\\ge|<|>", bare))
    )


def _brackets_differ(answer: str, gold: str) -> bool:
    """A set is no pair: braces on one side and round brackets on the other."""
    kinds = {_kind(answer), _kind(gold)}
    return kinds == {"set", "tuple"}


def _is_other_equation(answer: str, gold: str) -> bool:
    """Whether just one side is an equation, and not one that gives a name to a value: `2x + 1 = 11` is not 11."""
    sides = [_EQUALITY.split(plain(side)) for side in (answer, gold)]
    if (len(sides[0]) > 1) == (len(sides[1]) > 1):
        return False
    left = next(side for side in sides if len(side) > 1)[0]
    bare = _COMMAND.sub("", left)
    return bool(re.search(r"[a-zA-Z]", bare)) and bool(
        re.search(r"\d\s*[a-zA-Z]|[-+*/^]", re.sub(r"_\{?\w+\}?|\([^()]*\)", "", bare))
    )


def _kind(text: str) -> str:
    bare = plain(text)
    if bare.startswith("\\{") and bare.endswith("\\}"):
        return "set"
    return "tuple" if re.fullmatch(r"\([^()]*,[^()]*\)", bare) else ""
