"""The tags between which models think, family by family: where a thought ends, and what follows it.

`prompt.think` names a recipe's own; without it all families here are known. Used where completions are divided
(`split.py`) and where answers are looked for (`statements.py`).

    python -c "from tokenskip.generation.thoughts import *; print(after_thought('[THINK]3 + 4[/THINK]7'))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

FAMILIES = (
    (r"<\s*(?:think|thinking|thought|reasoning)\s*>", r"<\s*/\s*(?:think|thinking|thought|reasoning)\s*>"),  # most
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    (r"<seed:think>", r"</seed:think>"),  # Seed-OSS
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # Sky-T1, OpenThinker
    (
        r"<\|channel\|>analysis<\|message\|>",
        r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
    ),  # gpt-oss
    (r"analysis(?=[A-Z0-9])", r"assistantfinal"),  # gpt-oss, special tokens left out
    (r"<\|channel>thought", r"<channel\|>"),  # Gemma
    (r"Here(?: is|'s) my thought process:", r"Here(?: is|'s) my response:"),  # Granite
    (r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"),  # Apriel
)
"""(opening, closing) as regular expressions. Some templates write the opening one themselves."""

_HINTS = ("hink", "HINK", "hought", "HOUGHT", "easoning", "channel", "assistantfinal", "esponse:", "RESPONSE]")
"""Parts of the tags, for a first look that is fast."""


def _may_have_tags(text: str) -> bool:
    return any(hint in text for hint in _HINTS)


@cache
def _patterns(think: tuple[str, str] | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    families = FAMILIES if think is None else ((re.escape(think[0]), re.escape(think[1])),)
    openings, closings = ("|".join(family[side] for family in families) for side in (0, 1))
    return re.compile(rf"\s*(?:{openings})\n?", re.IGNORECASE), re.compile(closings, re.IGNORECASE)


def opening(text: str, think: Sequence[str] | None = None) -> re.Match[str] | None:
    """The opening tag that `text` begins with, white space around it included."""
    return _patterns(_pair(think))[0].match(text)


def closing(text: str, think: Sequence[str] | None = None) -> re.Match[str] | None:
    """The first closing tag in `text`."""
    if think is None and not _may_have_tags(text):
        return None
    return _patterns(_pair(think))[1].search(text)


def after_thought(text: str, think: Sequence[str] | None = None) -> str:
    """What follows the last closing tag; nothing when a thought begins and never ends; else all of `text`."""
    if think is None and not _may_have_tags(text):
        return text
    opens, closes = _patterns(_pair(think))
    end = max((match.end() for match in closes.finditer(text)), default=None)
    if end is None and think is not None and _may_have_tags(text):
        return after_thought(text)
    if end is None:
        return "" if opens.match(text) else text
    return text[end:].replace("[END FINAL RESPONSE]", "")


def _pair(think: Sequence[str] | None) -> tuple[str, str] | None:
    return None if think is None else (think[0], think[1])
