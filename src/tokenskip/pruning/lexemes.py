"""The smallest pieces that a chain of thought is read in: words, numbers, operators, formulas, code. Pure.

    [text[start:end] for _, start, end in lexemes("pay $5 / 2")]   # ["pay", "$5", "/", "2"]

A text that is not ASCII is read through a *shadow* of the same length, in which the characters that only modify the one
before them (vowel signs, accents, joiners, emoji modifiers) are one placeholder letter, and full-width operators are
ASCII: so no rule below needs to know of any script. `graphemes` then says where a letter, flag or emoji ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import regex

from tokenskip.pruning.notation import CURRENCIES, RELATIONS, SUPERSCRIPTS, TILDE, VULGAR
from tokenskip.sentences import LINE_BREAKS

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""

_MARK = "\u02d1"  # a letter that no text holds; replaces whatever modifies the character before it
_MODIFIER = regex.compile(rf"(?:(?![{UNSPACED}])[\p{{M}}\u200c\u200d\u2060\u00ad\p{{Bidi_Control}}\p{{EMod}}])")
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0) in "+-*/=<>%|()^$"}
_GRAPHEME = regex.compile(r"\X")

# Groups are atomic, (?>(?:a|b)*), and never possessive, (?:a|b)*+: Python before 3.11.5 matches these wrongly
# (cpython issues 100061 and 106052).
_LETTERS = rf"[^\W\d_{UNSPACED}]+"
_BRACES = r"\{[^{}\n]*+\}"
for _ in range(3):  # braces nested in braces, four deep; atomic, so that a missing brace costs no backtracking
    _BRACES = r"\{(?>(?:[^{}\n]++|" + _BRACES + r")*)\}"
_SCRIPTS = rf"(?:[_^](?:{_BRACES}|\w))*"
_NUMBER = (
    rf"(?:\\?[{CURRENCIES}])?"
    rf"(?:(?:\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?|\.\d+)(?:,\d{{1,2}}(?![\d,]))?[{VULGAR}]?|[{VULGAR}])"
    rf"[{SUPERSCRIPTS}]*(?:\\?%|[°′″‰{CURRENCIES[1:]}]|{_LETTERS})?"
    rf"(?:!(?=[ \t]*[{RELATIONS}+\-*/)×÷])(?!!?=))?" + _SCRIPTS
)
_EOL = r"(?:\n|\r\n?|\Z)"
_ROW = rf"[^\n\r]*{_EOL}"
_TABLE = (  # a header, a rule of dashes and the rows; or lines that begin and end with a bar (or a corner)
    rf"[^\n\r|]*\|[^\n\r]*{_EOL}[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*{_EOL}"
    rf"(?:(?=[^\n\r|]*\|){_ROW})*"
    rf"|(?:[ \t]*[|+│┌├└](?=[^\n\r]*[|+│┐┤┘][ \t]*{_EOL}){_ROW}){{2,}}"
)
_CODE_WORD = r"(?:for|while|if|def|class|import|from|return|print|var|let|const|function|int|void|public|\#include)\b"
_INDENTED = rf"(?:\ {{4,}}|\t){_CODE_WORD}[^\n\r]*[:;({{}})][ \t]*{_EOL}(?:(?:\ {{4,}}|\t){_ROW})*"

_BLOCK = re.compile(  # what is one piece over several lines; where a line begins
    rf"""(?xm)
    ^ (?: (?P<fence> [ \t]*+ (?P<ticks> `{{3,}} | ~{{3,}} ) {_ROW}
            (?> (?: (?! [ \t]* (?P=ticks) [`~]* [ \t]* $ ) [^\n\r]* (?: \n | \r\n? ) )* )
            (?: [ \t]* (?P=ticks) [`~]* [ \t]* $ | [^\n\r]* \Z ) )
      | (?P<html>     [ \t]*+ < (?P<tag> table | pre ) \b [^<>]* >
            (?> (?: [^<] | < (?! /? (?P=tag) ) )* ) </ (?P=tag) > )
      | (?P<table>    {_TABLE} )
      | (?P<indented> {_INDENTED} )
      )
    """
)
_LEX = re.compile(
    rf"""(?x)
    (?: \A | [^\S{LINE_BREAKS}]*+ [{LINE_BREAKS}] ) \s*+
    (?P<marker>                                    # "Step 1:", "**Step 1:**", "### Step 1", "1.", "2)", "-"
        (?: \#{{1,6}} [ \t]+ )? (?: \*\* )? (?: [Ss]tep [ \t]+ \d+ [.):]* | \d{{1,3}} [.):]+ ) (?: \*\* )? :?
        (?= \s | $ )
      | (?: \#{{1,6}} | [-*•] ) (?= [ \t] )
    )
  | \s*+ (?:
    (?P<math>
        \$\$ [^$]{{1,2000}} \$\$
      | (?<! [\\$] ) \$ (?= [^\s$] ) [^$\n]{{1,400}} (?<= \S ) \$ (?! [\d$<] )       # "$5 and $6" is money
      | \\\( (?> (?: [^\\] | \\ (?! [()] ) ){{1,1000}} ) \\\)
      | \\\[ (?> (?: [^\\] | \\ (?! [\[\]] ) ){{1,2000}} ) \\\]
      | \\begin\{{ (?P<env> \w{{1,20}} \*? ) \}}
        (?> (?: [^\\] | \\ (?! (?: begin | end ) \{{ (?P=env) \}} ) ){{0,4000}} )
        \\end\{{ (?P=env) \}}
    )
  | (?P<note>    [{CURRENCIES}]? << [^<>\n]{{0,200}} >> )                            # GSM8K's calculator annotations
  | (?P<code>    `` (?> (?: [^`\n] | ` (?! ` ) ){{1,200}} ) `` | ` [^`\n]{{1,200}} ` | https?:// \S{{1,2000}}
               | </? [A-Za-z] [\w\-]{{0,20}} (?: \s [\w\-]{{1,20}} = [^<>\n]{{0,200}} )? [ ]? /? >    # an HTML tag
               | & (?: [A-Za-z]{{2,8}} | \#\d{{1,6}} ) ; )
  | (?P<label>   \b [Ss]tep [ \t]+ \d+ [:.)]* )
  | (?P<op>      \\ (?: times | cdot | div | pm | mp | approx | sim | leq? | geq? | neq? | lt | gt | equiv )
                 (?! [A-Za-z] )
               | &? [+\-−–*/×÷·∙⋅±^→⇒{RELATIONS}]+ | (?<= \d ) : (?= \d ) | (?<= \d[ ] ) : (?= [ ]\d )
               | {TILDE} )
  | (?P<open>    \\left[ ]? [(\[] | [(\[{{] )
  | (?P<close>   \\right[ ]? [)\]] | [)\]}}] )
  | (?P<command> \\ [A-Za-z]+ \*? (?: \[ [^\]\n]{{0,80}} \] )? (?: {_BRACES} )* {_SCRIPTS} )
  | (?P<call>    [A-Za-z_] [\w.]{{0,80}}+ \( [^()\n]{{0,80}} \) )
  | (?P<number>  {_NUMBER} )
  | (?P<verb>    (?: plus | minus | times | equals | is | gives | makes | x | X | (?: divided | multiplied )[ ]by )
                 (?! \w | ['’\-]\w ) )
  | (?P<unspaced> [{UNSPACED}] {_MARK}* )
  | (?P<word>    [^\W\d{UNSPACED}] (?> (?: [^\W{UNSPACED}]++ | ['’\-] (?= [^\W\d_] ) )* ) )
  | (?P<other>   [.,;:!?…#*_] | \S {_MARK}* )
  )
    """
)
_INITIALS = "`~<|+│┌├└"
"""One of these is in every text with a block, indented code aside."""


class Lexeme(NamedTuple):
    """A piece `text[start:end]`; kinds are the names of the groups in `_LEX` and `_BLOCK` (a block is `code`)."""

    kind: str
    start: int
    end: int


def lexemes(text: str, token_starts: set[int] | None = None) -> list[Lexeme]:
    """All pieces of `text` but white space, in reading order.

    `token_starts`: where the tokens of a tokenizer begin; they divide scripts without word spaces.
    """
    shadow = text if text.isascii() else _MODIFIER.sub(_MARK, text.translate(_FULL_WIDTH))
    end = len(text.rstrip())  # what follows holds no piece, and would be looked through once per character
    found: list[Lexeme] = []
    position = 0
    for start, stop in _blocks(shadow, end):
        found += _between(shadow, position, start, token_starts)
        found.append(Lexeme("code", start, stop))
        position = stop
    return found + _between(shadow, position, end, token_starts)


def _between(shadow: str, position: int, end: int, token_starts: set[int] | None) -> list[Lexeme]:
    found: list[Lexeme] = []
    for match in _LEX.finditer(shadow, position, end):
        kind = str(match.lastgroup)
        start, stop = match.span(kind)
        joins = kind == "unspaced" and token_starts is not None and start not in token_starts
        if joins and found and found[-1].kind == "unspaced" and found[-1].end == start:
            found[-1] = Lexeme(kind, found[-1].start, stop)
        else:
            found.append(Lexeme(kind, start, stop))
    return found


def _blocks(shadow: str, end: int) -> Iterator[tuple[int, int]]:
    """Fenced and indented code, tables: without white space at either edge."""
    if not any(character in shadow for character in _INITIALS) and "\n    " not in shadow and "\t" not in shadow:
        return
    for match in _BLOCK.finditer(shadow, 0, end):
        piece = match.group()
        start = match.start() + len(piece) - len(piece.lstrip())
        stop = match.start() + len(piece.rstrip())
        if start < stop:
            yield start, stop


def grapheme_edges(text: str) -> set[int]:
    """Where `text` may be cut without tearing a character as a reader sees it; text that is ASCII may be anywhere."""
    return {match.start() for match in _GRAPHEME.finditer(text)} | {len(text)}
