"""`reasoning_effort` as a second name for a ratio: which word asks for which, and the piece of a template that says so.

Clients that pass no free template arguments pass this word: servers hand it to the chat template as a variable.
`compression_ratio` wins over it; a word that the map does not have leaves the prompt alone.

    low=0.5,medium=0.7,high=1
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenskip.errors import ConfigError, ModelError, shorten
from tokenskip.ratio import Ratio, covers, spell

EFFORT = "reasoning_effort"
WORDS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""What vLLM, SGLang, llama.cpp and Ollama take, least effort first; vLLM and Ollama refuse any other word."""

_NOTE, _END = "{#- tokenskip: effort ", "{#- tokenskip: effort end -#}"


def check_effort(given: Mapping[str, float | str]) -> dict[str, float]:
    """Word -> ratio, least effort first.

    Raises:
        ValueError: a word that servers do not take, something that is no ratio, or less effort with a longer chain.
    """
    for word in given:
        if word not in WORDS:
            raise ValueError(f"{shorten(str(word))!r} is no reasoning effort: allowed are {', '.join(WORDS)}")
    effort: dict[str, float] = {}
    for word in (word for word in WORDS if word in given):
        try:
            effort[word] = Ratio(given[word])
        except ValueError as error:
            raise ValueError(f"{word}: {error}") from None
    for (less, low), (more, high) in pairwise(effort.items()):
        if low > high:
            raise ValueError(f"{less}={low} asks for a longer chain than {more}={high}: more effort means a longer one")
    return effort


def effort_mistake(prompt: Any, trained: Sequence[float]) -> str | None:
    """What is wrong with a recipe's `prompt.effort`, for a line that begins with its name; None where it can be kept.

    `prompt` is the recipe's `PromptConfig`; `trained` are the ratios that it trains on.
    """
    if prompt.effort and EFFORT in prompt.template_kwargs:
        return f" and prompt.template_kwargs.{EFFORT} both say what {EFFORT} is: leave one out"
    for word, ratio in prompt.effort.items():
        if ratio != 1 and not covers(trained, ratio) and (word == "none" or prompt.untrained != "pass"):
            return f": {word}={ratio} is not trained: prune.ratios are {spell(trained)}"
    return None


def parse_effort(text: str) -> dict[str, float]:
    """The map that a user typed, as `low=.5,medium=.7,high=1`; ConfigError where it is none."""
    given: dict[str, str] = {}
    for pair in text.split(","):
        word, equals, ratio = (part.strip() for part in pair.partition("="))
        if not equals or not word or word in given:
            raise ConfigError(f"a map is words and ratios, such as low=.5,medium=.7,high=1; given: {shorten(text)!r}")
        given[word] = ratio
    try:
        return check_effort(given)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def effort_piece(effort: Mapping[str, float]) -> str:
    """Template text that sets `compression_ratio` by the word, where the caller gives no ratio; empty for no map."""
    if not effort:
        return ""
    lines = [
        f"{_NOTE}{json.dumps({word: float(ratio) for word, ratio in effort.items()})} -#}}",
        "{%- if (compression_ratio is not defined or compression_ratio is none) and reasoning_effort is defined -%}",
    ]
    keyword = "if"
    for word, ratio in effort.items():
        lines.append(
            f"{{%- {keyword} reasoning_effort == '{word}' -%}}{{%- set compression_ratio = {float(ratio)!r} -%}}"
        )
        keyword = "elif"
    return "\n".join([*lines, "{%- endif -%}", "{%- endif -%}", _END])


def without_effort(control: str) -> str:
    """A ratio control without the piece."""
    head, found, rest = control.partition(_NOTE)
    return head + rest.partition(_END)[2] if found else control


def read_effort(template: str | None) -> dict[str, float]:
    """The map inside a chat template; empty where it has none.

    Raises:
        ModelError: it is damaged.
    """
    _, found, rest = (template or "").partition(_NOTE)
    if not found:
        return {}
    try:
        return check_effort(json.loads(rest.partition(" -#}")[0]))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ModelError("the effort map in the chat template is damaged: run `tokenskip effort` again") from None


def spell_effort(effort: Mapping[str, float]) -> str:
    """`low=0.5, medium=0.7, high=1.0`."""
    return ", ".join(f"{word}={Ratio(ratio)}" for word, ratio in effort.items())
