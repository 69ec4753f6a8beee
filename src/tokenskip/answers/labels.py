"""The label of a choice that a completion states as its answer: a letter, never an article, a pronoun or part of a
name.

python -c "from tokenskip.answers.labels import *; print(extract_label('Die Antwort ist (B), nicht C.'))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenskip.answers.latex import Box, find_boxes, mend_backslashes, plain, shown
from tokenskip.answers.phrases import clean, refuses
from tokenskip.answers.statements import WINDOW, Marker, find_markers, phrase_at
from tokenskip.answers.thoughts import after_thought
from tokenskip.sentences import sentence_ends

_WRAP = r"[\s*_`\"'“”(\[{<$]*"
_LABEL = re.compile(
    rf"""{_WRAP} (?P<letter>[A-Za-z]) (?![A-Za-zÀ-ɏ\d])    # one letter alone
        (?P<after> \s* [)\]}}>] | [*_`"'”$]+ | \s*[.:,;!?。，、：] | \s*[-–—]\s | \s*\Z | \s*\n
                 | (?=[^\x00-\x7f])                       # "Bです", "B입니다"
                 | \s+(?=(?:because|since|as|is|and|or|,|weil|da|porque|car|perché|y|o|und|oder|ou|et|dir|है
                     |हैं)\b) | \s+ )""",
    re.VERBOSE,
)
_LEAD = re.compile(
    r"""\s*(?: (?:option|choice|letter|answer|opción|opcion|letra|lettre|lettera|buchstabe|optie|opção|opzione
               |variant\w*|вариант|选项|選項)\b
           | (?:the|la|le|el|die|der|das|il|a|o)\s+(?=(?:option|choice|letter|letra|lettre|lettera|opción|opção
               |buchstabe|[(*]*[A-Z][).,*]))
           | (?:I|we)\s+(?:think|believe|guess|would\s+say|'d\s+say|am\s+(?:sure|confident|certain))(?:\s+that)?\b
           | (?:it\s+is|it's|it’s|that\s+is|is|most\s+likely|likely|probably|definitely|clearly|obviously
               |simply|therefore|thus|indeed)\b
           | [:：=]+ )""",
    re.VERBOSE | re.IGNORECASE,
)
# a letter and its wrapping, no words: "**(B)**."; LaTeX is gone by then
_LETTER_ONLY = re.compile(r"[\s(\[{<*\"'`$.:]*([A-Za-z])[\s)\]}>*\"'`$.:!,;]*")
_NOT = re.compile(r"\s*(?:not|nicht|no|non|não|niet|не|不是)\b", re.IGNORECASE)
# "not A but C": what follows "but" is the answer
_BUT = re.compile(r"\b(?:but|sondern|sino|mais|ma|mas|maar|а|而是)\b\s*(?:rather\s+)?(.*)", re.IGNORECASE | re.DOTALL)
# a second letter right after the first: "A and C", "(A), (C)"; the answer then names no single choice
_SEVERAL = re.compile(r"[)\]*\s]*(?:,|and|or|/|&|und|oder|y|o|et|ou|e)\s*[(\[*]*[A-Z](?![^\W_])")
# "B because …": what follows explains the letter. "A man …" has none of these, and its "A" is an article
_REASON = re.compile(r"(?:because|since|as|is|and|or|weil|porque|car|perché|und|oder|dir|है|हैं)\b")
_CHOSEN = re.compile(
    r"""\b(?:I|we|I'd|I’d|let's|one)\s+(?:would\s+|will\s+|should\s+|'d\s+)?(?:choose|pick|select|go\s+with|opt\s+for)\s+(?P<chosen>[^.\n]{1,60})
      | (?:应选|故选|所以选|因此选|选择|选)\s*(?P<zh>[(（]?[A-Za-z][)）]?)
      | (?P<option>(?:option|choice)\s+|(?<![(\[*])[(\[*]{1,3})?(?P<right>[A-Za-z])[)\]*]{0,4}\s+(?:is
          |are)\s+(?:therefore\s+
          |thus\s+|clearly\s+)?(?:the\s+)?
        (?:correct|right|best)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_CHOICE_WORD = re.compile(r"\b(?:choice|option)\s*(?:is|:)\s*", re.IGNORECASE)
_BRACKETED = re.compile(
    r"(?P<denied>\b(?:not|nicht|no|than|wrong|except)\s+)?[(\[](?P<letter>[A-Z])[)\]]", re.IGNORECASE
)
_FIRST = re.compile(rf"{_WRAP}([A-Za-z])(?=[).:,*\]$`]|\s+[-–—]\s|\s*$)")


def read_label(text: str) -> str | None:
    """The capital letter that the whole of `text` is, in any brackets; None for anything else."""
    match = _LETTER_ONLY.fullmatch(plain(text))
    return match[1].upper() if match else None


def extract_label(text: str, *, trigger: str | None = None, think: Sequence[str] | None = None) -> str | None:
    """The label that a completion, or the part of it after the CoT, states as its answer.

    Some other text where an answer is stated that is no single label ("A or B"); None where no answer is stated.
    """
    text = after_thought(mend_backslashes(text), think)
    boxes = find_boxes(text)
    markers = [*find_markers(text, trigger, boxes), *_choice_markers(text)]
    markers.sort(key=lambda marker: marker.end, reverse=True)
    for marker in markers:
        label = _stated(text, marker, boxes)
        if label:
            return shown(label, text)
    return _unmarked(text)


def _choice_markers(text: str) -> list[Marker]:
    """Statements that only multiple choice has: "I would choose B", "option B is correct", "the best choice is B"."""
    markers = []
    for match in _CHOSEN.finditer(text):
        group = match.lastgroup if match.lastgroup != "option" else "right"
        assert group
        if match["right"] and not match["option"] and (match["right"].islower() or match["right"] == "I"):
            continue  # "this is correct", "what I am is right"
        start = match.start(group)
        markers.append(Marker("words", start, start))
    markers += [Marker("words", match.start(), match.end()) for match in _CHOICE_WORD.finditer(text)]
    return markers[-64:]


def _stated(text: str, marker: Marker, boxes: Sequence[Box]) -> str | None:
    if marker.kind == "box":
        content = next(box.text for box in boxes if box.start == marker.start)
        return _label_of(plain(content)) or content
    if marker.kind == "before":
        start = max(
            [text.rfind("\n", 0, marker.start) + 1, *sentence_ends(text, max(0, marker.start - 300), marker.start)]
        )
        words = text[start : marker.start].rstrip().rsplit(maxsplit=1)
        return _label_of(words[-1]) if words and re.fullmatch(r"[(\[*]*[A-Z][)\]*]*", words[-1]) else None
    if marker.kind == "tag":
        window = re.split(r"<\s*/", text[marker.end : marker.end + WINDOW])[0]
        inside = find_boxes(window)
        return _label_of(plain(inside[-1].text if inside else window))
    return _label_of(phrase_at(text, marker.end))


def _label_of(phrase: str) -> str | None:
    """The label that a phrase begins with, words such as "option" aside; all of it where it names several."""
    phrase = phrase.strip()
    if not phrase or refuses(phrase[:200]):
        return None
    if boxes := find_boxes(phrase):
        return _label_of(plain(boxes[0].text))
    phrase = plain(phrase)
    if _NOT.match(phrase):
        other = _BUT.search(phrase)
        return _label_of(other[1]) if other else None
    for _ in range(5):
        lead = _LEAD.match(phrase)
        if not lead or not lead.group().strip():
            break
        phrase = phrase[lead.end() :].lstrip()
    if re.match(r"(?:both|either)\b", phrase, re.IGNORECASE):
        return clean(phrase) if re.search(r"[(\s][A-Z][)\s.]", phrase + " ") else None
    match = _LABEL.match(phrase)
    if match is None:
        return None
    letter, after = match["letter"], match["after"]
    several = _SEVERAL.match(phrase, match.end("letter"))
    if several and not after.strip().startswith((".", ":")):
        return clean(phrase[: several.end()])
    rest = phrase[match.end() :]
    before_words = after.isspace() and bool(rest) and match.group().strip() == letter
    if before_words and (letter == "I" or ((letter == "A" or letter.islower()) and not _REASON.match(rest))):
        return None  # a pronoun, an article, a word of one letter of another language
    return letter.upper()


def _unmarked(text: str) -> str | None:
    """A label at the beginning of the first or the last line, or the only one in brackets in the last sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    if not lines or refuses(lines[-1]):
        return None
    for line in (lines[0], lines[-1]) if len(lines) < 3 or not _FIRST.match(lines[1]) else (lines[-1],):
        first = _FIRST.match(line)
        if first and not (len(lines) > 1 and line is lines[-1] and _FIRST.match(lines[-2])):
            return first[1].upper()
    starts = [0, *sentence_ends(lines[-1])]
    last = lines[-1][starts[-1] :].strip() or (lines[-1][starts[-2] :] if len(starts) > 1 else lines[-1])
    letters = {match["letter"].upper() for match in _BRACKETED.finditer(last) if not match["denied"]}
    return letters.pop() if len(letters) == 1 else None
