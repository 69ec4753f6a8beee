"""How mathematics is written in chains of thought: its tokens, and the runs of them that state something. Pure.

    [run.tokens for run in runs_of("He paid $2 × 3 = $6.")]   # [["2", "*", "3", "=", "6"]]

Texts are flattened first (LaTeX, currencies, digits of other scripts), so that one lexer reads them all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile

from tokenskip.pruning.arithmetic import MAX_DIGITS
from tokenskip.pruning.vocabulary import EQUALITY_HEADS, EQUALITY_WORDS, FILLERS, LINKING_VERBS, SUFFIX_OPERATORS
from tokenskip.sentences import LINE_BREAKS

CURRENCIES = "$€£¥₹₽₩₺₫฿￥"
VULGAR = "¼½¾⅐-⅞↉"
SUPERSCRIPTS = "⁰¹²³⁴-⁹⁺⁻"
RELATIONS = "=<>≤≥≠≈≃≅≡∼"
TILDE = r"(?<= [\d)%][ ] ) ~ (?= [ ]? [\d$] )"  # verbose; "22 / 7 ~ 3.14", but not "about ~5"
_EQUALITY = re.compile(
    r"(?<![^\W_])(?:"
    + "|".join(word.replace(" ", r"[ \t]+") for word in sorted(EQUALITY_WORDS, key=len, reverse=True))
    + r")(?!\w)"
)
_NOTE = re.compile(r"<<([^<>\n]{0,200})>>")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]{0,300})\}\s*\{([^{}]{0,300})\}")
_LINE_END = re.compile(f"[{LINE_BREAKS}]+")
_LIST_MARKER = re.compile(rf"(?:(?<=[{LINE_BREAKS}])|\A)[ \t]*(?:[-*•]|\d{{1,3}}[.)])[ \t]+")  # its "-" is no sign
_FLATTEN = (  # what a text must hold for the pattern to find something, pattern, replacement
    ("**", re.compile(r"(?<!\d)(?<!\d )\*\*|\*\*(?! ?\d)"), ""),  # bold, unless it is a power
    ("\\", re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\(?:left|right|quad|displaystyle)(?![A-Za-z])|\\[,;!:()\[\]$&]"), " "),
    ("\\", re.compile(r"\\(?:text|mathrm|mathbf|boxed|textbf)\s*\{([^{}]{0,300})\}"), r" \1 "),
    ("{,}", re.compile(r"\{,\}"), ","),
    ("\\", re.compile(r"\\%"), "%"),
    ("\\", re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    ("\\", re.compile(r"\\div(?![A-Za-z])"), "/"),
    ("\\", re.compile(r"\\(?:approx|sim|simeq)(?![A-Za-z])"), "≈"),
    ("\\", re.compile(r"\\(?:neq?)(?![A-Za-z])"), "≠"),
    ("\\", re.compile(r"\\(?:leq?|lt)(?![A-Za-z])"), "≤"),
    ("\\", re.compile(r"\\(?:geq?|gt)(?![A-Za-z])"), "≥"),
    ("^", re.compile(r"\^\s*\{([^{}]{0,100})\}"), r"^(\1)"),
)
_TOKEN = re.compile(
    rf"""(?x)
    (?P<number>   (?: \d+ (?: ,\d{{3}} (?!\d) )* (?: \.\d+ )?   # 1,200.50
                    | \.\d+ ) (?: ,\d{{1,2}} (?![\d,]) )?       # 3,5 as most of Europe writes it
                  [{VULGAR}]? %? | [{VULGAR}] )
  | (?P<times>    [xX] (?= [ \t]* [\d.] ) (?<= [\d)\s] [xX] ) (?<! [^\W\d_] [xX] ) )
  | (?P<verb>     (?: plus | minus | times | (?:divided|multiplied)[ ]by )
                  (?= [ \t]+ [\d(.\\+\-−√{VULGAR}] | [ \t]+ \w \b ) )   # "7 times 8", but not "15 times."
  | (?P<variable> (?: (?! [aAI] \b ) | (?<= \d ) ) [A-Za-z] (?! [\w'’] ) )
  | (?P<command>  \\ [A-Za-z]+ )
  | (?P<word>     (?: (?<= [\w)] ) / (?= [^\W\d_]{{2}} ) )? [^\W\d_] [\w'’\-]* (?: / [^\W\d_]{{2}} [\w'’\-]* )* )
  | (?P<arrow>    [=\-]+ > | => | <- )                          # "so 3 => 4" states no equation
  | (?P<relation> [<>!]=+ | ={{2,}} | [{RELATIONS}] | {TILDE} )
  | (?P<op>       \*\* | [+\-−–*/×÷·∙⋅^√∛] | (?<=\d) ! (?= [ \t]* [{RELATIONS}+\-*/)×÷] ) (?! != ) | (?<=\d) : (?=\d)
                | (?<= \d[ ] ) : (?= [ ]\d ) )
  | (?P<bracket>  [(){{}}\[\]] )
  | (?P<other>    \S )
    """
)
_SUFFIX, _LINK = "|".join(sorted(SUFFIX_OPERATORS)), "|".join(sorted(LINKING_VERBS))
_RELATION_HINT = re.compile(
    rf"[{RELATIONS}~]|\\(?:approx|sim|n?eq|[lg]eq?|[lg]t|ne)"
    rf"|\d%?[ \t]+(?:(?:{_SUFFIX})[ \t]+)?(?:{_LINK})[ \t]+[{CURRENCIES}]?\d"
)
_SPELLINGS = {
    "plus": "+", "minus": "-", "times": "*", "divided by": "/", "multiplied by": "*",
    "−": "-", "–": "-", "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", ":": "/", "**": "^",
    "<=": "≤", ">=": "≥", "!=": "≠",
}  # fmt: skip
_MATH = frozenset(("number", "times", "verb", "variable", "command", "relation", "op", "bracket"))
_JOINS = frozenset(("op", "relation", "verb", "times"))
RELATION_SIGNS = frozenset((*RELATIONS, "==", "~"))
_BOUNDARIES = frozenset(".,;:!?。，；：！？、…|")
_UNIT_WORDS = 3
_SHORT = 60
"""Characters of a text that is likely to be read again."""
_MAX_CONTEXT = 12  # words of a clause before an equation that are compared


_Token = tuple[str, str]  # kind, normalised text; a plain tuple, for there are many


class Run:
    """A maximal sequence of mathematical tokens of one line, units skipped, and where it is in the line's tokens."""

    __slots__ = ("floor", "inside", "last", "line", "start", "states", "tokens")

    def __init__(self, line: list[_Token], start: int, floor: int) -> None:
        self.line = line
        self.start = start  # index of its first token
        self.last = start  # index of its last token
        self.floor = floor  # index of the first token that no earlier equation holds
        self.states = False  # whether it has a relation
        self.tokens: list[str] = []
        self.inside: list[str] = []  # the words between its operands and operators

    def first_side(self) -> str:
        """The normalised side before the first relation."""
        # every statement of a run asks for it: dividing the whole run each time would take quadratic time
        return " ".join(takewhile(lambda token: token not in RELATION_SIGNS, self.tokens))

    def sides(self) -> tuple[list[str], list[str]]:
        """The normalised sides, and the relations between them."""
        sides: list[list[str]] = [[]]
        relations: list[str] = []
        for token in self.tokens:
            if token in RELATION_SIGNS:
                relations.append(token)
                sides.append([])
            else:
                sides[-1].append(token)
        return [" ".join(side) for side in sides], relations

    def before(self) -> list[str]:
        """The words of its clause that precede it."""
        words: list[str] = []
        for index in range(self.start - 1, max(self.floor, self.start - _MAX_CONTEXT) - 1, -1):
            text = self.line[index][1]
            if text in _BOUNDARIES:
                break
            words.append(text)
        return words[::-1]

    def after(self) -> list[str]:
        """The words that follow it and may belong to its last operand."""
        words: list[str] = []
        for kind, text in self.line[self.last + 1 : self.last + 1 + _UNIT_WORDS]:
            if text in _BOUNDARIES or text.lower() in FILLERS or kind in ("relation", "bracket"):
                break
            words.append(text)
        return words


def runs_of(text: str) -> Iterator[Run]:
    """The runs of `text` that state a relation; those of calculator notes come last."""
    notes = [note.group(1) for note in _NOTE.finditer(text)] if "<<" in text else []
    for part in (_NOTE.sub("", text) if notes else text, *notes):
        yield from _read(part) if len(part) > _SHORT else _read_again(part)


def _read(part: str) -> tuple[Run, ...]:
    if not may_state(part):
        return ()
    lines = _LINE_END.split(_flatten(part))  # no equation goes over the end of a line
    return tuple(run for line in lines if may_state(line) for run in _runs(line))


@lru_cache(maxsize=4096)  # a note is read when its chain is divided, and in the chain and its cut when that is checked
def _read_again(part: str) -> tuple[Run, ...]:
    return _read(part)


def may_state(text: str) -> bool:
    return "=" in text or _has_equality_word(text) or _RELATION_HINT.search(text) is not None


def _has_equality_word(text: str) -> bool:
    for head in EQUALITY_HEADS:  # noqa: SIM110 - a generator takes three times as long
        if head in text:
            return True
    return False


def _flatten(text: str) -> str:
    text = _LIST_MARKER.sub("", text)
    if not text.isascii():
        text = _plain_characters(text)
    if _has_equality_word(text):
        text = _EQUALITY.sub(" = ", text)
    for mark, pattern, replacement in _FLATTEN:
        if mark in text:
            text = pattern.sub(replacement, text)
    text = text.replace("$", " ").replace("&", " ")
    for _ in range(4 if "\\" in text else 0):  # fractions in fractions
        text, n_found = _FRACTION.subn(r" ((\1)/(\2)) ", text)
        if not n_found:
            break
    return text


_SUPERSCRIPT = re.compile(f"[{SUPERSCRIPTS}]+")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_PLAIN = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0) in "+-*/=()<>%^"},
    **dict.fromkeys(map(ord, CURRENCIES + "°"), " "),
}


def _plain_characters(text: str) -> str:
    """Superscripts as powers, any script's digits as 0-9, full-width operators as ASCII; no currency signs."""
    text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match.group())), text.translate(_PLAIN))
    return _SUPERSCRIPT.sub(lambda match: f"^({unicodedata.normalize('NFKC', match.group())})", text)


def _runs(line: str) -> Iterator[Run]:
    """Maximal sequences of mathematical tokens with a relation; words between operand and operator are skipped."""
    tokens = [(str(match.lastgroup), _normal(match.group())) for match in _TOKEN.finditer(line)]
    run: Run | None = None
    words: list[str] = []  # unit words since the last operand of the run
    floor = 0
    for index, (kind, text) in enumerate(tokens):
        links = kind == "word" and text.lower() in LINKING_VERBS and _is_linking(run, words, tokens, index)
        if links or kind in _MATH:
            if run is None or (words and not links and kind not in _JOINS):
                if run and run.states:
                    yield run
                    floor = run.last + 1
                run = Run(tokens, index, floor)
            elif words:
                run.inside += words
            words = []
            run.tokens.append("=" if links else "*" if kind == "times" else text)
            run.states = run.states or links or kind == "relation"
            run.last = index
        elif run and kind == "word" and len(words) < _UNIT_WORDS and _ends_operand(run.tokens[-1]):
            words.append(text)
        elif run:
            if run.states:
                yield run
                floor = run.last + 1
            run, words = None, []
    if run and run.states:
        yield run


def _is_linking(run: Run | None, words: list[str], tokens: list[_Token], index: int) -> bool:
    """Whether the verb at `index` is between two numbers: "48 is 24", "2 dozen is 24"."""
    if run is None or not SUFFIX_OPERATORS.issuperset(words) or index + 1 == len(tokens):
        return False
    kind, text = tokens[index + 1]
    last = run.tokens[-1]
    return (kind == "number" or text in "(√") and (last[0].isdigit() or last in ")!")


def _ends_operand(token: str) -> bool:
    return token[0].isalnum() or token in ")]}!"


@lru_cache(maxsize=8192)
def _normal(token: str) -> str:
    if token.isascii() and token.isdigit():
        return token
    if token[0] in "0123456789." and token[-1] != "." and len(token) <= MAX_DIGITS:
        percent = "%" if token.endswith("%") else ""
        digits = token.removesuffix("%")
        if not digits.isascii():  # "2½"
            return f"( {_normal(digits[:-1])} + {_vulgar(digits[-1])} )"
        digits = re.sub(r"(?<=\d),(?=\d{1,2}\Z)", ".", digits).replace(",", "")
        if "." in digits:
            digits = digits.rstrip("0").rstrip(".") or "0"
            digits = "0" + digits if digits.startswith(".") else digits
        return digits + percent
    if len(token) == 1 and unicodedata.category(token) == "No":
        return _vulgar(token)
    if token in _SPELLINGS:
        return _SPELLINGS[token]
    return _SPELLINGS.get(" ".join(token.split()), token)


def _vulgar(character: str) -> str:
    """`½` as "( 1 / 2 )"."""
    top, _, bottom = unicodedata.normalize("NFKC", character).partition("⁄")
    return f"( {top} / {bottom or 1} )"
