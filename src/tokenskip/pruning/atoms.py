"""Where a chain of thought may be cut, and whether a cut chain still tells the truth. Pure; reads and writes only text.

TokenSkip (section 3.2, arXiv 2502.12067) drops single tokens. We deviate: what only makes sense as a whole is one
*atom*, because the official data lost operators, operands and fractions ("8 4 = 32"). An atom is an equation or
arithmetic expression (`12 + 5 = 17`), a number, an operator run, a LaTeX formula, a code token, a word, a step label
("Step 1:", "- "), or a piece of punctuation. Words that punctuation joins without a space ("and/or") are one atom,
since dropping the joint would glue them together.

    split_units("So 2 + 3 = 5 apples.", "token", atoms=True)   # |So| 2 + 3 = 5| apples|.|

White space belongs to the unit that follows it, with two exceptions that are units of their own and hold nothing else:
white space at either edge of the text, and what lies between two lines up to the last newline (so indentation goes
with its line). `prune` emits these only between kept text, which is how line structure survives.

`tokenskip.pruning.equations` holds the other half, the verifier; its names are importable from here as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokenskip.pruning.equations import Equation, check_pruned, equations

__all__ = ["Equation", "Range", "check_pruned", "equations", "has_unspaced_script", "split_units"]

Range = tuple[int, int]

_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, Lao, kana, Han: no word spaces
_MARKS = "\u0300-\u036f\ufe00-\ufe0f\u20d0-\u20ff\U0001f3fb-\U0001f3ff"
_LETTERS = r"[^\W\d_" + _UNSPACED + r"]+"
_BRACES = r"\{[^{}\n]*+\}"
for _ in range(3):  # braces nested in braces, four deep; possessive, so that a missing brace costs no backtracking
    _BRACES = r"\{(?:[^{}\n]++|" + _BRACES + r")*+\}"
_SCRIPTS = r"(?:[_^](?:" + _BRACES + r"|\w))*"
_LINE_MARKER = (  # "Step 1:", "**Step 1:**", "### Step 1", "1.", "2)", "-", "###" where a line begins
    r"(?:#{1,6}[ \t]+)?(?:\*\*)?(?:[Ss]tep[ \t]+\d+[.):]*|\d{1,3}[.):]+)(?:\*\*)?:?(?=\s|$)|(?:#{1,6}|[-*•])(?=[ \t])"
)
_LEX = re.compile(
    r"(?:\A|[^\S\n\r]*+[\n\r])\s*+(?P<marker>" + _LINE_MARKER + r")|\s*+(?:"
    r"(?P<math>\$\$[^$]{1,2000}\$\$|(?<![\\$])\$(?=[^\s$])[^$\n]{1,400}(?<=\S)\$(?![\d$])"  # "$5 and $6" is money
    r"|\\\((?s:.{1,1000}?)\\\)|\\\[(?s:.{1,2000}?)\\\]|\\begin\{(?P<env>\w+\*?)\}(?s:.{0,4000}?)\\end\{(?P=env)\})"
    r"|(?P<note>[$€£¥]?<<[^<>\n]{0,200}>>)"  # GSM8K's calculator annotations
    r"|(?P<code>`[^`\n]{1,200}`|https?://\S+)"
    r"|(?P<label>\b[Ss]tep[ \t]+\d+[:.)]*)"
    r"|(?P<op>\\(?:times|cdot|div|pm|mp|approx|leq?|geq?|neq?|equiv)(?![A-Za-z])|&?[+\-−–*/×÷·∙⋅=<>≤≥≠≈±^→⇒]+)"
    r"|(?P<open>\\left[ ]?[(\[]|[(\[{])|(?P<close>\\right[ ]?[)\]]|[)\]}])"
    r"|(?P<command>\\[A-Za-z]+\*?(?:\[[^\]\n]{0,80}\])?(?:" + _BRACES + r")*" + _SCRIPTS + r")"
    r"|(?P<call>[A-Za-z_][\w.]*+\([^()\n]{0,80}\))"
    r"|(?P<number>(?:\\?[$€£¥])?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:\\?%|" + _LETTERS + r")?" + _SCRIPTS + r")"
    r"|(?P<verb>(?:plus|minus|times|equals|is|gives|makes|x|X|(?:divided|multiplied)[ ]by)(?!\w|['’\-]\w))"
    r"|(?P<unspaced>[" + _UNSPACED + r"][" + _MARKS + r"]*)"
    r"|(?P<word>[^\W\d" + _UNSPACED + r"](?:[^\W" + _UNSPACED + r"]++|[" + _MARKS + r"]|['’\-](?=[^\W\d_]))*+)"
    r"|(?P<other>[.,;:!?…#*_]|\S(?:[" + _MARKS + r"]|\u200d\S)*))"
)
_ABBREVIATIONS = frozenset(("mr.", "mrs.", "ms.", "dr.", "st.", "e.g.", "i.e.", "vs.", "approx.", "no.", "cf."))
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]*]*$")
_FULLWIDTH_END = "。！？"
_OPERANDS = frozenset(("number", "command", "math", "call"))
_SIGNS = frozenset("+-−–±")
_UNIT_WORDS = 3
_MAX_LEXEMES = 200  # of one expression: text that only opens brackets must not cost quadratic time


class _Lexeme(NamedTuple):
    kind: str
    start: int
    end: int


def has_unspaced_script(text: str) -> bool:
    """Whether `text` holds a script without word spaces, whose atoms need the tokenizer's offsets."""
    return not text.isascii() and re.search(f"[{_UNSPACED}]", text) is not None


def split_units(
    text: str,
    unit: Literal["token", "word", "step"],
    atoms: bool,
    token_offsets: Sequence[Range] | None = None,
) -> list[Range]:
    """Consecutive character ranges that together are `text`; units of only white space are glue between the others.

    unit `token`: atoms; with `atoms` off the target tokenizer's own tokens (`token_offsets`; without them, words).
    `word`: between white space. `step`: lines, or sentences where the text is a single line. In `word` and `step` too,
    `atoms` keeps an expression with spaces in one unit. With `atoms`, `token_offsets` only divide scripts that have no
    word spaces (without them: character by character).
    """
    if atoms:
        cores = _atoms(text, token_offsets)
    elif unit == "token" and token_offsets is not None:
        cores = _tokens(text, token_offsets)
    else:
        cores = [match.span() for match in re.finditer(r"\S+", text)]
    if unit == "word":
        cores = _words(cores)
    elif unit == "step":
        cores = _steps(text, cores)
    return _cover(text, cores)


def _cover(text: str, cores: list[Range]) -> list[Range]:
    """The cores with white space handed out as the module's docstring says."""
    units: list[Range] = []
    position = 0
    for start, end in cores:
        begin = position or start
        if position and start > position and text[position:start] != " ":
            begin = max(text.rfind("\n", position, start), text.rfind("\r", position, start), position - 1) + 1
        if begin > position:
            units.append((position, begin))
        units.append((begin, end))
        position = end
    if position < len(text):
        units.append((position, len(text)))
    return units


def _tokens(text: str, offsets: Sequence[Range]) -> list[Range]:
    """The tokenizer's tokens without their white space; pieces of one character are one, gaps become units."""
    cores: list[Range] = []
    position = 0

    def fill(until: int) -> None:
        for match in re.compile(r"\S+").finditer(text, position, until):
            cores.append(match.span())

    for start, end in offsets:
        start = max(start, position)
        if end <= start:
            continue
        piece = text[start:end]
        core = piece.strip()
        if core:
            fill(start)
            start += len(piece) - len(piece.lstrip())
            cores.append((start, start + len(core)))
            position = start + len(core)
    fill(len(text))
    return cores


def _words(cores: list[Range]) -> list[Range]:
    """Cores with nothing between them, joined."""
    words: list[Range] = []
    for start, end in cores:
        if words and words[-1][1] == start:
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
    return words


def _steps(text: str, cores: list[Range]) -> list[Range]:
    """Cores joined to lines; to sentences where the text has only one line."""
    lines = len(text.strip().splitlines()) > 1
    steps: list[Range] = []
    for start, end in cores:
        if not steps:
            steps.append((start, end))
            continue
        first, last = steps[-1]
        gap = text[last:start]
        if ("\n" in gap or "\r" in gap) if lines else _sentence_ends(text, first, last, bool(gap)):
            steps.append((start, end))
        else:
            steps[-1] = (first, end)
    return steps


def _sentence_ends(text: str, first: int, last: int, spaced: bool) -> bool:
    tail = text[max(first, last - 16) : last]
    if not spaced:
        return tail[-1] in _FULLWIDTH_END
    if not _SENTENCE_END.search(tail):
        return False
    word = tail.split()[-1]
    lone_label = len(word) == last - first and re.fullmatch(r"\d+[.)]|[Ss]tep.*", word) is not None  # "1. Tom has"
    return not lone_label and word.lower() not in _ABBREVIATIONS


def _atoms(text: str, token_offsets: Sequence[Range] | None) -> list[Range]:
    lexemes = _lex(text, {start for start, _ in token_offsets} if token_offsets is not None else None)
    cores: list[Range] = []
    index = 0
    anchor = -1  # where in `cores` the last word-like end stands that no white space separates from here
    while index < len(lexemes):
        begins = lexemes[index].kind in _BEGINNINGS and not _is_plain_word(lexemes, index)
        after = _expression_end(text, lexemes, index) if begins else index + 1
        if after - index > 1 and _closes(text, lexemes, after):
            after += 1
        start, end = lexemes[index].start, lexemes[after - 1].end
        unspaced = lexemes[index].kind == "unspaced"
        if unspaced or (cores and cores[-1][1] != start):
            anchor = -1
        if anchor >= 0 and _wordlike(text[start]):
            start = cores[anchor][0]
            del cores[anchor:]
        cores.append((start, end))
        if not unspaced and _wordlike(text[end - 1]):
            anchor = len(cores) - 1
        index = after
    return cores


def _is_plain_word(lexemes: list[_Lexeme], index: int) -> bool:
    """Whether a lexeme is a word that begins no expression: most are, and are not looked at any further."""
    kind, start, end = lexemes[index]
    return kind == "word" and end - start > 1 and (index + 1 == len(lexemes) or lexemes[index + 1].kind != "op")


def _closes(text: str, lexemes: list[_Lexeme], index: int) -> bool:
    """Whether the lexeme behind an expression is its punctuation mark: kept with it, so that nothing runs into it."""
    if index >= len(lexemes) or lexemes[index].start != lexemes[index - 1].end:
        return False
    start, end = lexemes[index].start, lexemes[index].end
    return text[start:end] in {".", ",", ";", ":"} and (end == len(text) or text[end].isspace())


def _wordlike(character: str) -> bool:
    return character.isalnum() or character == "_"


def _lex(text: str, token_starts: set[int] | None) -> list[_Lexeme]:
    lexemes: list[_Lexeme] = []
    for match in _LEX.finditer(text):
        kind = str(match.lastgroup)
        start, end = match.span(kind)
        joins = kind == "unspaced" and token_starts is not None and start not in token_starts
        if joins and lexemes and lexemes[-1].kind == "unspaced" and lexemes[-1].end == start:
            lexemes[-1] = _Lexeme(kind, lexemes[-1].start, end)
        else:
            lexemes.append(_Lexeme(kind, start, end))
    return lexemes


def _expression_end(text: str, lexemes: list[_Lexeme], first: int) -> int:
    """The index behind the expression that begins at lexeme `first`; `first + 1` where none does.

    An expression has operands with operators between them, on one line, its parentheses closed. Up to three words may
    stand between an operand and its operator ("48 clips / 2 = 24"), and one name before `=` ("total = 12 + 5").
    """
    index, best, depth, n_operators, wants = first, first + 1, 0, 0, True
    if lexemes[first].kind == "op" and "=" in text[lexemes[first].start : lexemes[first].end]:
        index, n_operators = first + 1, 1  # a line that goes on with "= 15"
    elif lexemes[first].kind not in _BEGINNINGS:
        return best
    limit = min(len(lexemes), first + _MAX_LEXEMES)
    while index < limit and (index == first or _gap(text, lexemes, index) is not None):
        kind = lexemes[index].kind
        touches = index > first and _gap(text, lexemes, index) == 0
        if wants:
            if kind == "open":
                depth += 1
            elif _is_operand(text, lexemes, index, first):
                wants = False
            elif kind != "note" and not _is_sign(text, lexemes, index):
                break
            index += 1
        elif kind == "close" and depth:
            depth -= 1
            index += 1
        elif _is_operator(text, lexemes, index, n_operators):
            n_operators += 1
            wants = True
            index += 1
        elif touches and kind == "open":
            depth += 1
            wants = True
            index += 1
        elif touches and (kind in _OPERANDS or _is_letter(text, lexemes[index])):
            index += 1
        else:
            behind = _behind_unit_words(text, lexemes, index)
            if behind == index:
                break
            index = behind
        if not wants and not depth and n_operators:
            best = index
    return best


_BEGINNINGS = _OPERANDS | {"open", "word", "note", "op", "verb"}


def _behind_unit_words(text: str, lexemes: list[_Lexeme], index: int) -> int:
    """The index of the operator that follows the words from `index` on; `index` where none does."""
    behind = index
    while behind < len(lexemes) and behind - index <= _UNIT_WORDS and _gap(text, lexemes, behind) is not None:
        if lexemes[behind].kind == "op":
            return behind
        if lexemes[behind].kind != "word" or _is_letter(text, lexemes[behind]):
            return index
        behind += 1
    return index


def _gap(text: str, lexemes: list[_Lexeme], index: int) -> int | None:
    """The width of the white space before a lexeme; None where it is too wide, or a new line, to be one expression."""
    begin, end = lexemes[index - 1].end, lexemes[index].start
    if begin == end:
        return 0
    return None if end - begin > 2 or "\n" in text[begin:end] or "\r" in text[begin:end] else end - begin


def _is_letter(text: str, lexeme: _Lexeme) -> bool:
    return lexeme.end - lexeme.start == 1 and text[lexeme.start].isalpha() and lexeme.kind in ("word", "verb")


def _is_operand(text: str, lexemes: list[_Lexeme], index: int, first: int) -> bool:
    lexeme = lexemes[index]
    if lexeme.kind in _OPERANDS or _is_letter(text, lexeme):
        return True
    if lexeme.kind != "word":
        return False
    if index > first:  # "$2/egg"
        return text[lexemes[index - 1].start] == "/" and _gap(text, lexemes, index) == 0
    return index + 1 < len(lexemes) and _equals(text, lexemes[index + 1])


def _equals(text: str, lexeme: _Lexeme) -> bool:
    return lexeme.kind == "op" and text[lexeme.start : lexeme.end] in ("=", "&=", "≈")


def _is_sign(text: str, lexemes: list[_Lexeme], index: int) -> bool:
    lexeme = lexemes[index]
    follows = index + 1 < len(lexemes) and lexemes[index + 1].start == lexeme.end
    return lexeme.kind == "op" and text[lexeme.start : lexeme.end] in _SIGNS and follows


def _is_operator(text: str, lexemes: list[_Lexeme], index: int, n_before: int) -> bool:
    """Whether a lexeme behind an operand joins it to the next; a word ("times", "is") only does so before a number."""
    lexeme = lexemes[index]
    if lexeme.kind == "op":
        return True
    if lexeme.kind != "verb" or index + 1 == len(lexemes) or _gap(text, lexemes, index + 1) is None:
        return False
    states = text[lexeme.start : lexeme.end] in ("is", "gives", "makes")
    return lexemes[index + 1].kind in ("number", "command", "open", "note") and (n_before > 0 or not states)
