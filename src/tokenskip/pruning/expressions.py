"""Arithmetic held together: lexemes joined to expressions such as `48 clips / 2 = 24`. Pure.

An expression has operands with operators between them, on one line, its parentheses closed. Up to three words may come
between an operand and its operator ("48 clips / 2 = 24"), and one name before `=` ("total = 12 + 5").
"""

from __future__ import annotations

from tokenskip.pruning.lexemes import Lexeme
from tokenskip.sentences import LINE_BREAKS

Range = tuple[int, int]

_OPERANDS = frozenset(("number", "command", "math", "call"))
_BEGINNINGS = _OPERANDS | {"open", "word", "note", "op", "verb"}
_SIGNS = frozenset("+-−–±")
_BREAKS = frozenset(LINE_BREAKS)
_STATING_VERBS = frozenset(("is", "gives", "makes"))
_UNIT_WORDS = 3
_MAX_LEXEMES = 200  # of one expression: text that only opens brackets must not cost quadratic time


def expressions(text: str, lexemes: list[Lexeme]) -> list[Range]:
    """The ranges of `lexemes`, joined where they are one expression or one word with punctuation inside."""
    cores: list[Range] = []
    index = 0
    anchor = -1  # where in `cores` the last word-like end is that no white space separates from here
    while index < len(lexemes):
        begins = lexemes[index].kind in _BEGINNINGS and not _is_plain_word(lexemes, index)
        after = _expression_end(text, lexemes, index) if begins else index + 1
        if after - index > 1 and _closes(text, lexemes, after):
            after += 1
        start, end = lexemes[index].start, lexemes[after - 1].end
        unspaced = lexemes[index].kind == "unspaced"
        if unspaced or (cores and cores[-1][1] != start):
            anchor = -1
        if anchor >= 0 and _is_wordlike(text[start]):
            start = cores[anchor][0]
            del cores[anchor:]
        cores.append((start, end))
        if not unspaced and _is_wordlike(text[end - 1]):
            anchor = len(cores) - 1
        index = after
    return cores


def _is_plain_word(lexemes: list[Lexeme], index: int) -> bool:
    """Whether a lexeme is a word that begins no expression: most are, and are not looked at any further."""
    kind, start, end = lexemes[index]
    return kind == "word" and end - start > 1 and (index + 1 == len(lexemes) or lexemes[index + 1].kind != "op")


def _closes(text: str, lexemes: list[Lexeme], index: int) -> bool:
    """Whether the lexeme after an expression is its punctuation mark: kept with it, so that nothing runs into it."""
    if index >= len(lexemes) or lexemes[index].start != lexemes[index - 1].end:
        return False
    start, end = lexemes[index].start, lexemes[index].end
    return text[start:end] in {".", ",", ";", ":"} and (end == len(text) or text[end].isspace())


def _is_wordlike(character: str) -> bool:
    return character.isalnum() or character == "_"


def _expression_end(text: str, lexemes: list[Lexeme], first: int) -> int:
    """The index after the expression that begins at lexeme `first`; `first + 1` where none does."""
    index, best, depth, n_operators, wants = first, first + 1, 0, 0, True
    if lexemes[first].kind == "op" and "=" in text[lexemes[first].start : lexemes[first].end]:
        index, n_operators = first + 1, 1  # a line that continues with "= 15"
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
            after = _after_unit_words(text, lexemes, index)
            if after == index:
                break
            index = after
        if not wants and not depth and n_operators:
            best = index
    return best


def _after_unit_words(text: str, lexemes: list[Lexeme], index: int) -> int:
    """The index of the operator that follows the words from `index` on; `index` where none does."""
    after = index
    while after < len(lexemes) and after - index <= _UNIT_WORDS and _gap(text, lexemes, after) is not None:
        if lexemes[after].kind == "op":
            return after
        if lexemes[after].kind != "word" or _is_letter(text, lexemes[after]):
            return index
        after += 1
    return index


def _gap(text: str, lexemes: list[Lexeme], index: int) -> int | None:
    """The width of the white space before a lexeme; None where it is too wide, or a line break, for one expression."""
    begin, end = lexemes[index - 1].end, lexemes[index].start
    if begin == end:
        return 0
    if end - begin > 2 or not _BREAKS.isdisjoint(text[begin:end]):
        return None
    return end - begin


def _is_letter(text: str, lexeme: Lexeme) -> bool:
    return lexeme.end - lexeme.start == 1 and text[lexeme.start].isalpha() and lexeme.kind in ("word", "verb")


def _is_operand(text: str, lexemes: list[Lexeme], index: int, first: int) -> bool:
    lexeme = lexemes[index]
    if lexeme.kind in _OPERANDS or _is_letter(text, lexeme):
        return True
    if lexeme.kind != "word":
        return False
    if index > first:  # "$2/egg"
        return text[lexemes[index - 1].start] == "/" and _gap(text, lexemes, index) == 0
    return index + 1 < len(lexemes) and _equals(text, lexemes[index + 1])


def _equals(text: str, lexeme: Lexeme) -> bool:
    return lexeme.kind == "op" and text[lexeme.start : lexeme.end] in ("=", "&=", "≈")


def _is_sign(text: str, lexemes: list[Lexeme], index: int) -> bool:
    lexeme = lexemes[index]
    follows = index + 1 < len(lexemes) and lexemes[index + 1].start == lexeme.end
    return lexeme.kind == "op" and text[lexeme.start : lexeme.end] in _SIGNS and follows


def _is_operator(text: str, lexemes: list[Lexeme], index: int, n_before: int) -> bool:
    """Whether a lexeme after an operand joins it to the next; a word ("times", "is") only does so before a number."""
    lexeme = lexemes[index]
    if lexeme.kind == "op":
        return True
    if lexeme.kind != "verb" or index + 1 == len(lexemes) or _gap(text, lexemes, index + 1) is None:
        return False
    states = text[lexeme.start : lexeme.end] in _STATING_VERBS
    return lexemes[index + 1].kind in ("number", "command", "open", "note") and (n_before > 0 or not states)
