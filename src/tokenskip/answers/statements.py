"""Where a completion states its answer: what follows the last marker that an answer follows, or else its last sentence.

A marker is a box, `####`, `<answer>`, the recipe's trigger, or words that announce an answer in any of the languages of
`words.py`. Of the markers the last one counts that is followed by a statement of a value; talk about the answer ("is
correct", "makes sense"), denials and answers to other questions are no statements. Of what follows, the first complete
statement counts. All is linear in the length of the text.

    python -c "from tokenskip.answers.statements import *
    print(extract_answer('Die Antwort lautet 12. Das sind 3 mehr.', numeric=True))"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Literal, NamedTuple

from tokenskip.answers.latex import BOX, Box, find_boxes, mend_backslashes, shown
from tokenskip.answers.phrases import reduce_last, reduce_phrase, refuses
from tokenskip.answers.spelling import with_decimal_points
from tokenskip.answers.thoughts import after_thought
from tokenskip.answers.units import known_unit
from tokenskip.answers.values import MAX_ANSWER, read_quantity
from tokenskip.answers.words import ANSWER_WORDS, LINKS, QUALIFIERS, SCALES, word_set
from tokenskip.sentences import sentence_ends

WINDOW = 2 * MAX_ANSWER
"""What is looked at after a marker: enough to see that an answer is too long."""
MAX_MARKERS = 64
"""Markers tried, from the last one; a text with more repeats itself."""

Kind = Literal["box", "tag", "hashes", "words", "before"]


class Marker(NamedTuple):
    """Where a statement of the answer may begin; `before`: it ends there ("34 is the final answer")."""

    kind: Kind
    start: int
    end: int


def _is_spaced(word: str) -> bool:
    """Whether a word is of a script that puts spaces between words."""
    return word[0] < "\u0e00" or "\u0e80" <= word[0] < "\u2e80"


_WORDS = list(chain.from_iterable(ANSWER_WORDS.values()))
_LINK_WORDS = sorted({link for links in LINKS.values() for link in links}, key=len, reverse=True)
_STEMS = tuple(
    word
    for word in dict.fromkeys(map(str.casefold, _WORDS))
    if not any(word.startswith(shorter) for shorter in _WORDS if shorter != word)
)
_ASCII_STEMS = tuple(stem for stem in _STEMS if stem.isascii())
_SPACED = "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True) if _is_spaced(word))
_UNSPACED = "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True) if not _is_spaced(word))
_SPACED_LINKS = "|".join(link.replace(" ", r"\s+") for link in _LINK_WORDS if _is_spaced(link))
_UNSPACED_LINKS = "|".join(link for link in _LINK_WORDS if not _is_spaced(link))
_GAP = r"[\s*_`\"'”)\]}]{0,8}"
_MARKER = re.compile(
    rf"""(?: (?<![^\W\d_]) (?: {_SPACED} ) (?:s|n|er|e|a|ul|u|ı)? (?![^\W\d_])
            (?: \s+ (?:{"|".join(QUALIFIERS)}) ){{0,2}}
            (?: \s+ (?: (?:to|for|of|in) \s [^.!?\n:=]{{1,60}}?           # the answer to the question
                      | (?:that\s+)? (?:we|i|you) \s+ (?:get|got|obtain|find|found|want) (?:\s+here)?
                      | choice | option | letter | here ) )?
          | (?: {_UNSPACED} ) )
        {_GAP}
        (?P<link> (?:{_SPACED_LINKS}) (?![^\W\d_]) | (?:{_UNSPACED_LINKS}) | [:=：] | [-–—]+ (?=[\s*]) | [*_#]*[ \t]*\n
                | (?<=उत्तर)[ ] | (?<=উত্তর)[ ] | (?<=जवाब)[ ] )
        (?: {_GAP} [:：] )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HEADING = re.compile(r"(?:^|\n)[\s#>*_\d.)-]*(?:the\s+)?(?:final|correct)?\s*\Z", re.IGNORECASE)
_BEFORE = re.compile(
    r"\s(?:is|was|are)\s+(?:thus\s+|therefore\s+)?(?:the|my|our)\s+(?:(?:final|correct|right|best)\s+){0,2}\Z",
    re.IGNORECASE,
)
_PRONOUNS = word_set("that this it which what here That This It Which What Here")
_DENIED = re.compile(
    r"""\b(?:double-)?(?:check|verify|checking|verifying|confirm|confirming) \s+ (?:our|the|this|my|your) \s+
        (?:final\s+)? \Z
      | \b(?:wrong|incorrect|mistaken?|error|tempt\w*|might|someone|some\speople|students|many|naive\w*|not
          |don't|doesn't|can't)\b
        [^.!?\n]{0,40} \b(?:think|say|assume|believe|conclude|claim|guess|answer|that|mean)\w* (?:\s+that)?
        \s+ (?:the|my|our|your|an|a)? \s* (?:(?:final|correct|right)\s+)? \Z""",
    re.VERBOSE | re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(r"\bif\b[^.!?\n]*\Z", re.IGNORECASE)
_HASHES = re.compile("####")
_TAG = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_TAG_END = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)
_RUN_ON = re.compile(
    r"\n[ \t]{0,8}(?:Human|User|Question|Problem|Q)\s*\d*\s*:|<\|(?:im_end|eot_id|end_of_text|endoftext)\|>|</s>"
)
_LIST_ENDS = re.compile(
    r"""\b(?:so|thus|therefore|hence|then|next|final\w*|step|answer|wait|actually|no|but|now|total|daher|also|donc|entonces|
        quindi|portanto)\b | \? | 所以 | 因此 | 故 | \\boxed \s* \Z""",
    re.VERBOSE | re.IGNORECASE,
)


def extract_answer(
    text: str, *, numeric: bool = False, trigger: str | None = None, think: Sequence[str] | None = None
) -> str | None:
    """The answer that a completion, or the part of it after the CoT, states; None when it states none.

    With `numeric` the answer is cut down to its number. `trigger` are the words that a recipe lets the answer begin
    with, `think` its tags around thoughts.
    """
    text = with_decimal_points(after_thought(mend_backslashes(text), think))
    answer = None
    if (":" in text or "</s>" in text or "<|" in text) and (run_on := _RUN_ON.search(text, 1)):
        answer = _stated(text[: run_on.start()], numeric, trigger)
    if answer is None:
        answer = _stated(text, numeric, trigger) or _last_sentence(text, numeric)
    return shown(answer, text).strip() or None if answer else None


def complete_part(text: str) -> str:
    """The part of a text that was cut off in which an answer is stated completely; nothing where none is.

    Complete is what a sentence's end and more text follow, a line break, or the closing of a box or tag: "is 1" may be
    the beginning of 17.
    """
    ends = [text.rfind("\n") + 1]
    ends += [box.end for box in find_boxes(text)[-1:]]
    ends += [end for end in sentence_ends(text, max(0, len(text) - WINDOW)) if end < len(text)][-1:]
    ends += [match.end() for match in _TAG_END.finditer(text)][-1:]
    part = text[: max(ends)]
    visible = after_thought(mend_backslashes(part))
    return part if any(True for _ in find_markers(visible, None, find_boxes(visible))) else ""


def _stated(text: str, numeric: bool, trigger: str | None) -> str | None:
    boxes = find_boxes(text) if "box" in text or "\x08ox" in text else []
    for marker in find_markers(text, trigger, boxes):
        answer = read_statement(text, marker, boxes, numeric)
        if answer:
            return answer
    return None


def find_markers(text: str, trigger: str | None, boxes: Sequence[Box]) -> Iterator[Marker]:
    """The markers of an answer, the last one first."""
    markers = [Marker("box", box.start, box.end) for box in boxes[-MAX_MARKERS:]]
    markers += _all("hashes", _HASHES.finditer(text) if "####" in text else ())
    markers += _all("tag", _TAG.finditer(text) if "<" in text else ())
    if trigger and max(trigger.lower().split(), key=len, default="\0").strip(" :") in text.lower():
        triggers = _all("words", trigger_pattern(trigger).finditer(text))
        markers += [
            marker for marker in triggers if not _DENIED.search(text[max(0, marker.start - 100) : marker.start])
        ]
    markers += _word_markers(text)
    markers.sort(key=lambda marker: (marker.end, -marker.start), reverse=True)
    previous = None
    for marker in markers[:MAX_MARKERS]:
        if previous is None or marker.end != previous:  # the trigger's words are often a known marker as well
            yield marker
        previous = marker.end


def last_trigger(text: str, trigger: str) -> int | None:
    """Where the trigger's words begin that an answer follows, the last ones; just the last where none does."""
    if not trigger.strip():
        return None
    markers = _all("words", trigger_pattern(trigger).finditer(text))
    boxes = find_boxes(text) if markers else []
    for marker in reversed(markers):
        if not _DENIED.search(text[max(0, marker.start - 100) : marker.start]) and read_statement(
            text, marker, boxes, False
        ):
            return marker.start
    return markers[-1].start if markers else None


def last_list(text: str, boxes: Sequence[Box]) -> Sequence[Box]:
    """The last box, with those before it that are parts of the same list ("\\boxed{3} and \\boxed{5}")."""
    return _same_list_as(text, boxes, len(boxes) - 1)


def _all(kind: Kind, matches: Iterator[re.Match[str]] | tuple[()]) -> list[Marker]:
    return [Marker(kind, match.start(), match.end()) for match in matches][-MAX_MARKERS:]


@cache
def trigger_pattern(trigger: str) -> re.Pattern[str]:
    """Matches a trigger in any letter case, over line breaks and with Markdown's stars between its words."""
    words = trigger.split()
    pattern = r"[\s*_`]+".join(re.escape(word) for word in words)
    if words[-1][-1:] in ":：=" and len(words[-1]) > 1:  # "**My verdict**: 5"
        pattern = pattern.removesuffix(re.escape(words[-1][-1])) + r"[\s*_`]*" + re.escape(words[-1][-1])
    return re.compile(pattern, re.IGNORECASE)


def _word_markers(text: str) -> list[Marker]:
    low = text.lower()
    if len(low) != len(text):  # a few capitals have no lower case of one character
        positions = [match.start() for match in re.finditer("|".join(map(re.escape, _STEMS)), text, re.IGNORECASE)]
    else:
        positions = []
        for stem in _ASCII_STEMS if text.isascii() else _STEMS:
            if stem not in low:
                continue
            at = len(text)
            for _ in range(MAX_MARKERS):
                at = low.rfind(stem, 0, at)
                if at < 0:
                    break
                positions.append(at)
    markers = []
    for at in sorted(set(positions))[-2 * MAX_MARKERS :]:
        match = _MARKER.match(text, at)
        if match is None:
            if before := _BEFORE.search(text, max(0, at - 60), at):
                markers.append(Marker("before", before.start(), before.start()))
            continue
        sentence = text[max(0, at - 100) : at]
        link = match["link"]
        if link.endswith("\n") and not _HEADING.search(sentence):
            continue
        if _DENIED.search(sentence) or (link == "would be" and _HYPOTHETICAL.search(sentence)):
            continue
        markers.append(Marker("words", at, match.end()))
    return markers


def read_statement(text: str, marker: Marker, boxes: Sequence[Box], numeric: bool) -> str | None:
    """The value that the statement at `marker` gives; None when none is stated there."""
    if marker.kind == "box":
        return _boxed_list(text, marker, boxes, numeric)
    if marker.kind == "before":
        start = max(
            [text.rfind("\n", 0, marker.start) + 1, *sentence_ends(text, max(0, marker.start - 300), marker.start)]
        )
        if inside := [box for box in boxes if start <= box.start < marker.start]:
            return _join(text, inside, numeric)
        words = text[start : marker.start].split()
        return reduce_phrase(" ".join(words), numeric) if len(words) <= 6 and not _PRONOUNS & set(words) else None
    if marker.kind == "tag":
        end = _TAG_END.search(text, marker.end)
        content = text[marker.end : end.start() if end else marker.end + WINDOW].strip()
        inside = find_boxes(content)
        return (
            inside[-1].text
            if inside
            else reduce_phrase(content, numeric)
            if "\n" not in content
            else extract_answer(content, numeric=numeric)
        )
    phrase = phrase_at(text, marker.end)
    start = text.find(phrase, marker.end) if phrase else -1
    inside = [box for box in boxes if start >= 0 and start <= box.start < start + len(phrase)]
    if inside:
        return _join(text, inside, numeric)
    return reduce_phrase(phrase, numeric, after=True) if phrase else None


_BULLET = re.compile(r"\A(?:[-*•–]\s+|\d{1,2}[.)]\s+(?=\S))")
_LEAD = re.compile(r"""[\s:=*_`>"“]*(?:(?:```|''')\w*\s)?""")
_DISPLAYS = ((re.compile(r"\$\$"), "$$"), (re.compile(r"\\\["), "\\]"))


def phrase_at(text: str, at: int) -> str:
    """The sentence, line or display that begins at `at`, without the marks before it."""
    window = text[at : at + WINDOW]
    lead = _LEAD.match(window)
    assert lead
    window_lead = lead.group()
    quoted = window_lead.endswith(('"', "“"))
    window = window[lead.end() :]
    for opening, closing in _DISPLAYS:
        if opening.match(window):
            end = window.find(closing, 2)
            return window[: end + 2] if end > 0 else window
    line = window.split("\n", 1)[0].split("</", 1)[0]  # a tag that closes around the statement
    if quoted and (close := re.search(r'["”]', line)):
        return line[: close.start()]
    if "\n" in window_lead:
        line = _BULLET.sub("", line, count=1)
    for end in sentence_ends(line, labels=False):
        return line[:end]
    return line


def _boxed_list(text: str, marker: Marker, boxes: Sequence[Box], numeric: bool) -> str | None:
    """What a box holds, with the boxes before it that are parts of the same list."""
    last = next(i for i, box in enumerate(boxes) if box.start == marker.start)
    return _join(text, _same_list_as(text, boxes, last), numeric)


def _same_list_as(text: str, boxes: Sequence[Box], last: int) -> Sequence[Box]:
    first = last
    while first and _same_list(text[boxes[first - 1].end : boxes[first].start]):
        first -= 1
    return boxes[first : last + 1]


def _same_list(gap: str) -> bool:
    return len(gap) <= 120 and not _LIST_ENDS.search(gap)


def _different(contents: Sequence[str]) -> list[str]:
    """The contents that are neither the same text nor the same number as one before."""
    kept: dict[object, str] = {}
    for content in contents:
        quantity = read_quantity(content) if len(contents) > 1 else None
        kept.setdefault((quantity.value, quantity.unit) if quantity else content, content)
    return list(kept.values())


_AFTER_BOX = re.compile(
    r"""\s* (?:\$+|\\\)|\\\])? \s*
        (?: (?P<percent> \\?% ) | (?P<degrees> \^?\\circ | \^\{\\circ\} | ° )
          | \\(?:text|mathrm|mbox)\s*\{\s*(?P<text>[^{}]{1,40})\} | (?P<word>[^\W\d_]+(?:\s*/\s*[^\W\d_]+)?) )""",
    re.VERBOSE,
)


def _join(text: str, boxes: Sequence[Box], numeric: bool) -> str:
    """The boxes' contents as a list, each once; a unit or scale that follows a single one is part of it."""
    contents = _different([box.text for box in boxes])
    if len(contents) > 1:
        return ", ".join(contents)
    [content] = contents
    box = boxes[-1]
    if text[: box.start].endswith(("-", "−")) and not text[: box.start - 1].rstrip().endswith(tuple("0123456789)}")):
        content = f"-{content}"
    if after := _AFTER_BOX.match(text, box.end, box.end + 60):
        if after["percent"]:
            content += "%"
        word = (after["text"] or after["word"] or "").strip()
        if (
            word.casefold() in SCALES
            or (len(word) > 1 and known_unit(word.replace(" ", "")))
            or (after["text"] and known_unit(word))
        ):
            content += f" \\text{{ {word}}}"
    return reduce_phrase(content, numeric, boxed=True) or content if numeric else content


_DISPLAY_AT_END = re.compile(r"(?:\$\$|\\\]|\\end\{(?:align|aligned|equation|gather|gathered|array|cases)\*?\})\s*\Z")
_DISPLAY_BEGIN = re.compile(r"\$\$|\\\[|\\begin\{(?:align|equation|gather)\*?\}")


def _last_sentence(text: str, numeric: bool) -> str | None:
    """The value of the last sentence that is one of substance, for a completion without any marker."""
    text = text[-WINDOW:].rstrip()
    if not text:
        return None
    if ending := _DISPLAY_AT_END.search(text):
        begins = list(_DISPLAY_BEGIN.finditer(text, 0, ending.start()))
        if begins:
            return reduce_phrase(text[begins[-1].start() :], numeric)
    for sentence in _sentences_backwards(text):
        if refuses(sentence):
            return None
        verdict, value = reduce_last(sentence, numeric)
        if verdict:
            return None if value and BOX.search(value) else value  # a box that does not close
    return None


def _sentences_backwards(text: str) -> Iterator[str]:
    for line in reversed(text.splitlines()):
        line = line.strip()
        if not line or line.startswith("```") or set(line) <= set("-|: *_="):
            continue
        starts = [0, *sentence_ends(line)]
        yield from (
            line[a:b].strip()
            for a, b in reversed(list(zip(starts, [*starts[1:], len(line)], strict=True)))
            if line[a:b].strip()
        )
