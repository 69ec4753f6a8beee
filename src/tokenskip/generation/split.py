"""Where a completion divides into its chain of thought and its answer. Pure: reads and writes nothing.

Three formats (`PromptConfig.answer`). In each, `output == head + cot + tail`, character for character:

    trigger   the tail begins with the sentence that holds the LAST occurrence of the trigger words (in any case, also
              over a line break) that an answer follows. The last one, because a chain may speak of "the final answer"
              before it gives it, and one tail must not swallow the reasoning between two. A chain of a single sentence
              divides at the trigger itself.
    boxed     the tail begins with the sentence that holds the last box (the first of several that are one list); lines
              before it that only open its formula (`\\[`, `$$`, `\\begin{...}`) are the tail's too
    think     the CoT ends at the first closing tag, as inference engines read it. Where the template opens the block,
              the output begins inside it; an opening tag in the output itself is the head, and is not pruned.

A sentence begins after a line break or after `.`, `!`, `?` and a space (`sentences.py`); the white space before it
is the
tail's, so that a pruned CoT can be put in front of the tail as it is. A completion that hit the token cap, or that
has no
answer, is all CoT (its tokens count) with a reason; so is one that stopped inside its think block.

    python -c "from tokenskip.generation.split import *; from tokenskip.config import PromptConfig
    print(split_completion('1 + 1 = 2. The final answer is 2.', 'stop', PromptConfig()))"
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenskip.answers.latex import BOX, find_boxes
from tokenskip.answers.statements import last_list, last_trigger
from tokenskip.answers.thoughts import closing, opening
from tokenskip.config import PromptConfig
from tokenskip.sentences import sentence_ends
from tokenskip.types import Finish

TRUNCATED = "truncated"
UNCLOSED = "no answer: the thought is not closed"
NO_ANSWER = "no answer"

_DISPLAY = re.compile(r"(?:^|(?<=\n))[ \t]*(?:\\\[|\$\$|\\begin\{\w+\*?\})\s*\Z")  # a line that only opens a formula


@dataclass(frozen=True, slots=True)
class Split:
    """A completion in parts: `output == head + cot + tail`. `reason` says why there is no answer part."""

    cot: str
    tail: str
    reason: str | None = None
    head: str = ""


def split_completion(output: str, finish: Finish, prompt: PromptConfig) -> Split:
    """The parts of a completion; all CoT, with a reason, when it was cut off or holds no answer."""
    head = ""
    if prompt.answer == "think" and (tag := opening(output, prompt.think)):
        head = tag.group()
    body = output[len(head) :]
    if finish != "stop":
        return Split(body, "", TRUNCATED if finish == "length" else NO_ANSWER, head)
    at = _ANSWER_START[prompt.answer](body, prompt)
    if at is None:
        return Split(body, "", UNCLOSED if prompt.answer == "think" else NO_ANSWER, head)
    at = len(body[:at].rstrip())
    return Split(body[:at], body[at:], None, head)


def _at_trigger(text: str, prompt: PromptConfig) -> int | None:
    at = last_trigger(text, prompt.trigger)
    return None if at is None else _sentence_start(text, at) or at


def _at_box(text: str, prompt: PromptConfig) -> int | None:
    boxes = find_boxes(text)
    at = (
        last_list(text, boxes)[0].start if boxes else max((match.start() for match in BOX.finditer(text)), default=None)
    )
    if at is None:
        return None
    start = _sentence_start(text, at)
    while opened := _DISPLAY.search(text, max(0, start - 80), start):
        start = _sentence_start(text, opened.start())
    return start


def _at_think_end(text: str, prompt: PromptConfig) -> int | None:
    tag = closing(text, prompt.think)
    return None if tag is None else tag.start()


_ANSWER_START = {"trigger": _at_trigger, "boxed": _at_box, "think": _at_think_end}


def _sentence_start(text: str, at: int) -> int:
    """Where the sentence around `at` begins; 0 when nothing but white space is before it."""
    start = text.rfind("\n", 0, at) + 1
    for end in sentence_ends(text, start, at):
        start = end
    return start if text[:start].strip() else 0
