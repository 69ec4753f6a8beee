"""Where a completion divides into its chain of thought and its answer. Pure: reads and writes nothing.

Three formats (`PromptConfig.answer`). In each, `output == head + cot + tail`, character for character:

    trigger   the tail begins with the sentence that holds the LAST occurrence of the trigger words (in any case). The
              last one, because a chain may speak of "the final answer" before it gives it, and one tail must not
              swallow the reasoning between two. A chain of a single sentence divides at the trigger itself.
    boxed     the tail begins with the sentence that holds the last `\\boxed{`; lines before it
              that only open its formula (`\\[`, `$$`, `\\begin{...}`) are the tail's too
    think     the CoT ends at the first `</think>`, as inference engines read it. Where the template opens the block,
              the output begins inside it; an opening tag in the output itself is the head, and is not pruned.

A sentence begins behind a line break or behind `.`, `!`, `?` and a space; the white space before it is the tail's, so
that a pruned CoT can be put in front of the tail as it is. A completion that has no answer, or that hit the token cap
before it had given one, is all CoT (its tokens count) with a reason; so is one that stopped inside its think block.

    python -c "from tokenskip.generation.split import *; from tokenskip.config import PromptConfig
    print(split_completion('1 + 1 = 2. The final answer is 2.', 'stop', PromptConfig()))"
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenskip.config import PromptConfig
from tokenskip.types import Finish

TRUNCATED = "truncated"
UNCLOSED = "truncated: <think> is not closed"
NO_ANSWER = "no answer"

_OPENING = re.compile(r"\s*<think>\n?")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]*_]*(?=\s)|[。！？]")
_DISPLAY = re.compile(r"(?:^|(?<=\n))[ \t]*(?:\\\[|\$\$|\\begin\{\w+\*?\})\s*\Z")  # a line that only opens a formula
_LIST_NUMBER = re.compile(r"\s*[#*>\-\s]*\d{1,3}\.")


@dataclass(frozen=True, slots=True)
class Split:
    """A completion in parts: `output == head + cot + tail`. `reason` says why there is no answer part."""

    cot: str
    tail: str
    reason: str | None = None
    head: str = ""


def split_completion(output: str, finish: Finish, prompt: PromptConfig) -> Split:
    """The parts of a completion; all CoT, with a reason, when it holds no answer, or one that the cap cut short."""
    head = ""
    if prompt.answer == "think" and (opening := _OPENING.match(output)):
        head = opening.group()
    body = output[len(head) :]
    at = None if finish == "error" else _ANSWER_START[prompt.answer](body, prompt)
    if at is not None and finish == "length" and not _is_whole(body[at:], prompt):
        at = None
    if at is None:
        missing = UNCLOSED if prompt.answer == "think" and finish == "stop" else NO_ANSWER
        return Split(body, "", TRUNCATED if finish == "length" else missing, head)
    at = len(body[:at].rstrip())
    return Split(body[:at], body[at:], None, head)


def _at_trigger(text: str, prompt: PromptConfig) -> int | None:
    trigger = prompt.trigger.strip()
    if not trigger:
        return None
    # not text.lower(): it would shift some characters
    at = max((found.start() for found in re.finditer(re.escape(trigger), text, re.IGNORECASE)), default=None)
    return None if at is None else _sentence_start(text, at) or at


def _at_box(text: str, prompt: PromptConfig) -> int | None:
    at = text.rfind("\\boxed{")
    if at < 0:
        return None
    start = _sentence_start(text, at)
    while opened := _DISPLAY.search(text, max(0, start - 80), start):
        start = _sentence_start(text, opened.start())
    return start


def _at_think_end(text: str, prompt: PromptConfig) -> int | None:
    at = text.find("</think>")
    return None if at < 0 else at


_ANSWER_START = {"trigger": _at_trigger, "boxed": _at_box, "think": _at_think_end}


def _is_whole(tail: str, prompt: PromptConfig) -> bool:
    """Whether more follows on the answer that a completion states, so that the token cap cannot have cut it short."""
    if prompt.answer == "think":  # the chain is whole; what its answer says, the task knows
        return True
    if prompt.answer == "boxed":
        box = tail[tail.rfind("\\boxed{") :]
        return box.count("{") <= box.count("}")
    start = [match.end() for match in re.finditer(re.escape(prompt.trigger.strip()), tail, re.IGNORECASE)][-1]
    stated = start + len(tail[start:]) - len(tail[start:].lstrip(" :*"))
    return "\n" in tail[stated:] or _SENTENCE_END.search(tail, stated) is not None


def _sentence_start(text: str, at: int) -> int:
    """Where the sentence around `at` begins; 0 when nothing but white space is before it."""
    start = text.rfind("\n", 0, at) + 1
    for end in _SENTENCE_END.finditer(text, start, at):
        if not _LIST_NUMBER.fullmatch(text, start, end.end()):  # "3. So ..." is one sentence
            start = end.end()
    return start if text[:start].strip() else 0
