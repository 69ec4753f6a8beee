"""Answers: found in a completion, and compared with the gold one. Model text is never evaluated, and time is bounded.

`compare` goes through these steps, and `Grade.reason` names the one that decided:

    equal text      the same string after spelling is normalised (spaces, \\left, \\dfrac, $, degrees, \\text{})
    equal number    both are numbers (integers, decimals, fractions, 1,000, 20%, $5, with a unit): compared exactly
    math-verify     both are LaTeX: equal for math-verify, in a process of its own (`verifier.py`)
    differs         none of these; also words, and numbers in another base, which math-verify would take apart
    answer too long, grader timeout: it cannot be told (`correct` is None)

    python -c "from tokenskip.generation.answers import *; print(compare('0.5', r'\\frac12')); close_verifier()"
"""

from __future__ import annotations

import re
from fractions import Fraction

from tokenskip.generation.math_verify import close_verifier, verifier
from tokenskip.types import Grade

__all__ = ["MAX_ANSWER", "close_verifier", "compare", "extract_answer", "extract_boxed", "normalise", "parse_number"]

MAX_ANSWER = 1000
"""Longer answers are not compared; no gold answer is near it."""
_WINDOW = 2 * MAX_ANSWER  # what is looked at behind a marker: enough to see that an answer is too long

_HASHES = "####"
_ANSWER_IS = re.compile(r"answer(?:\s+is\b|\s*[:=])", re.IGNORECASE)
_IN_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_PHRASE_END = re.compile(r"[.!?。](?=[\s*\"')]|$)")
_NUMBER = re.compile(r"(?:(?<![\w)}])[-−]\s?)?\\?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?|\.\d+")


def extract_boxed(text: str) -> str | None:
    """What the last `\\boxed{...}` holds, braces matched; None without one or when it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth, at = 1, start
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1  # an escaped brace is not a brace
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return text[start:at].strip() or None
        at += 1
    return None


def extract_answer(text: str, *, numeric: bool = False, trigger: str | None = None) -> str | None:
    """The answer that a completion, or the part behind its CoT, gives; None when it gives none.

    The first of these that is there: what follows the last `trigger` words, the last `\\boxed{...}`, what follows the
    last `####`, what follows the last "answer is" or "answer:"; then the last number (`numeric`), or else the last
    line. With `numeric` the answer is cut down to its number.
    """
    text = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    phrase = None
    if trigger and trigger.strip():
        phrase = _behind_last(re.compile(re.escape(trigger.strip()), re.IGNORECASE), text)
    phrase = phrase or extract_boxed(text) or _behind_last(re.compile(_HASHES), text) or _behind_last(_ANSWER_IS, text)
    if phrase:
        return _number_in(phrase) if numeric else phrase
    if numeric:
        numbers = _NUMBER.findall(text[-_WINDOW:])
        return numbers[-1].strip() if numbers else None
    lines = [line for line in text[-_WINDOW:].splitlines() if line.strip()]
    return _phrase(lines[-1]) if lines else None


def _behind_last(marker: re.Pattern[str], text: str) -> str | None:
    end = max((found.end() for found in marker.finditer(text)), default=None)
    return None if end is None else _phrase(text[end : end + _WINDOW])


def _phrase(text: str) -> str | None:
    """The answer at the start of `text`: a box, a formula, or the words up to the end of the sentence or line."""
    text = text.lstrip(" \t\r\n:=*_")
    line = text.split("\n", 1)[0]
    displayed = text.startswith(("$$", "\\["))
    if boxed := extract_boxed(text if displayed else line):
        return boxed
    formulas = list(_IN_MATH.finditer(text))[:1] if displayed else []
    if not formulas:
        if end := _PHRASE_END.search(line):
            line = line[: end.start()]
        formulas = list(_IN_MATH.finditer(line))
    if len(formulas) == 1:  # of several, none is the answer by itself
        return next(group for group in formulas[0].groups() if group is not None).strip() or None
    return line.strip(" \t\r*_`\"'").strip() or None  # the second: white space of other kinds


def _number_in(phrase: str) -> str:
    """The number that a phrase gives ("12 + 5 = 17 apples" -> 17); the phrase itself when that is not clear."""
    if len(phrase) > MAX_ANSWER or parse_number(phrase) is not None:
        return phrase
    numbers = [number.strip() for number in _NUMBER.findall(phrase.rsplit("=", 1)[-1])]
    hedged = len(numbers) > 1 and re.search(r"\bor\b", phrase)
    return numbers[0] if numbers and not hedged else phrase


_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|degree|q?quad)(?![a-zA-Z])|\\[!,;:> ]|°|~"
    r"|\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})"
)
_TEXT = re.compile(r"\\(?:text|mbox|hbox|textbf|textit|textrm|mathrm|mathbf)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([\da-zA-Z]))\s*(?:\{([^{}]*)\}|([\da-zA-Z]))")
_ROOT = re.compile(r"\\sqrt\s*([\da-zA-Z])")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_WORDS = re.compile(r"[^\W\d_]{4,}|[^\W\d_]{2,}(?:[ '’-][^\W\d_]{2,})+")
_UNIT = re.compile(r"(?<=[\d.}%])\s+([a-zA-Z]{2,}[a-zA-Z./\s]*?)\s*(?:\^\s*\{?\s*(\d)\s*\}?)?$")
_DECIMAL = re.compile(r"([-+]?)(\d{1,3}(?:,\s?\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(%?)")
_MIXED = re.compile(r"([-+]?)(\d*)\\frac\{(-?\d+)\}\{(-?\d+)\}")
_RATIO = re.compile(r"([-+]?)()(\d+)/(\d+)")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")


def normalise(answer: str) -> str:
    """The answer in one spelling; equal results mean equal answers."""
    text = answer.strip().replace("−", "-").replace("\\$", "").replace("$", "").replace("\\%", "%")
    text = re.sub(r"(?<=\d),\\!\s*(?=\d{3})", "", text)  # 10,\!080 is ten thousand and eighty
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = _TEXT.sub(r" \1 ", _DROPPED.sub(" ", text))
    text = _FRACTION.sub(lambda found: rf"\frac{{{found[1] or found[2]}}}{{{found[3] or found[4]}}}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    return _SPACE.sub("", text.strip().rstrip(".").strip())  # a space between two digits stays: "1 2" is not 12


def parse_number(answer: str) -> Fraction | None:
    """The exact value of an answer that is one plain number, with or without a unit; None for anything else.

    `20%` is 20. Powers of ten such as 1e9 are no plain numbers: their value may not fit into memory.
    """
    if len(answer) > MAX_ANSWER:
        return None
    text = normalise(_UNIT.sub("", _TEXT.sub(r" \1 ", answer.strip())))
    if found := _DECIMAL.fullmatch(text):
        value = Fraction(found[2].replace(",", "").replace(" ", ""))
    elif found := _MIXED.fullmatch(text) or _RATIO.fullmatch(text):
        whole, over, under = int(found[2] or 0), int(found[3]), int(found[4])
        if under == 0 or (found[2] and (over < 0 or under < 0)):
            return None
        value = whole + Fraction(over, under)
    else:
        return None
    return -value if found[1] == "-" else value


def compare(answer: str, gold: str) -> Grade:
    """Whether `answer` equals `gold`; the reason names the step that decided."""
    extracted = answer if len(answer) <= 200 else answer[:200] + "…"
    if len(answer) > MAX_ANSWER:
        return Grade(correct=None, reason="answer too long", extracted=extracted)
    for step in (_same_text, _same_words, _same_base, _same_number):
        correct = step(answer, gold)
        if correct is not None:
            reason = step.__name__.replace("_same_", "equal ") if correct else "differs"
            reason = {"equal words": "equal text", "equal base": "equal number"}.get(reason, reason)
            return Grade(correct=correct, reason=reason, extracted=extracted)
    correct = verifier().equal(answer, gold)
    reason = "grader timeout" if correct is None else "math-verify" if correct else "differs"
    return Grade(correct=correct, reason=reason, extracted=extracted)


def _same_text(answer: str, gold: str) -> bool | None:
    left = normalise(answer)
    return True if left and left == normalise(gold) else None


def _same_words(answer: str, gold: str) -> bool | None:
    """A name or word is no product of its letters: "tea" is not "eat"."""
    bare = gold.strip().strip("$").rstrip(".").strip()
    wrapped = _TEXT.fullmatch(bare)
    if not (wrapped and not re.search(r"\d", bare)) and not _WORDS.fullmatch(bare):
        return None
    return _letters(answer) == _letters(gold)


def _letters(text: str) -> str:
    return " ".join(_TEXT.sub(r"\1", text).casefold().replace("$", "").strip(" .()[]{}\"'").split())


def _same_base(answer: str, gold: str) -> bool | None:
    """Numbers with a base as subscript, which math-verify ignores; a missing base is forgiven."""
    left, right = _BASE.fullmatch(normalise(answer)), _BASE.fullmatch(normalise(gold))
    if left and right:
        return left.groups() == right.groups()
    if right and right[1].isdigit():
        return normalise(answer) == right[1]
    return None


def _same_number(answer: str, gold: str) -> bool | None:
    left, right = parse_number(answer), parse_number(gold)
    if left is None or right is None:
        return None
    powers = [unit[2] for unit in (_UNIT.search(_TEXT.sub(r" \1 ", side.strip())) for side in (answer, gold)) if unit]
    if len(powers) == 2 and powers[0] != powers[1]:
        return False  # 15 cm^2 is not 15 cm^3; a missing unit is forgiven
    if "%" in answer and "%" not in gold:  # "20%" for a gold 20 or .2
        return left in (right, right * 100)
    return left == right
