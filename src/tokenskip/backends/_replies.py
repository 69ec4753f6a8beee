"""What a server's reply says, whatever shape it has: the text with its reasoning, how it ended, what it cost. Pure.

    answer({"choices": [{"message": {"content": "17"}, "finish_reason": "stop"}]})      # Answer("17", "stop")

Servers differ: text as a list of parts (Mistral), reasoning in a separate field (vLLM, DeepSeek) or as a part, no
message at all for filtered answers, an error with status 200 (OpenRouter). What cannot be read is an `OddReply`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenskip.client import Reply
from tokenskip.errors import TokenskipError
from tokenskip.terminal import one_line


class OddReply(TokenskipError):
    """A reply that is no answer; its text says what it is instead."""


class Answer(NamedTuple):
    """The text of a reply (None: it has none) and its `finish_reason`, whatever that is."""

    text: str | None
    finish: Any

    @property
    def ended(self) -> bool:
        """Whether the model ended it, or the token cap did; anything else took the answer away."""
        return self.finish is None or self.finish in ("stop", "length")


class Piece(NamedTuple):
    """What one event of a stream adds."""

    thought: str = ""
    said: str = ""
    finish: Any = None
    n_tokens: int | None = None


def answer(body: Any) -> Answer:
    """The answer in a reply of `/v1/chat/completions` or `/v1/completions`; reasoning is put into its tags.

    Raises:
        OddReply: it is no answer.
    """
    choice = _choice(body)
    try:
        if "text" in choice:
            return Answer(_text(choice["text"]), choice.get("finish_reason"))
        thought, said = _message(choice.get("message"))
    except RecursionError:
        raise OddReply("a reply that is nested too deeply") from None
    if thought:
        said = f"<think>{thought}" + (f"</think>{said}" if said else "")
    return Answer(said, choice.get("finish_reason"))


def piece(event: Any) -> Piece:
    """What an event of a stream adds; events without choices, as the one with the usage, add none.

    Raises:
        OddReply: it is an error, or nothing that a stream has.
    """
    if isinstance(event, dict) and event.get("choices") == [] and not event.get("error"):
        return Piece(n_tokens=tokens(event, "completion_tokens"))
    choice = _choice(event)
    try:
        thought, said = _message(choice["delta"] if "delta" in choice else choice.get("message"))
    except RecursionError:
        raise OddReply("an event that is nested too deeply") from None
    return Piece(thought or "", said or "", choice.get("finish_reason"), tokens(event, "completion_tokens"))


def tokens(body: Any, name: str) -> int | None:
    """A token count of a reply's `usage`, such as `prompt_tokens`; None where there is none to rely on."""
    usage = body.get("usage") if isinstance(body, dict) else None
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def _choice(body: Any) -> dict[str, Any]:
    if isinstance(body, dict) and body.get("error"):
        raise OddReply(f"an error instead of an answer: {Reply(200, body).message}")
    if isinstance(body, str):
        raise OddReply(f"a reply that is not JSON: {one_line(body, 80) or 'empty'}")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        raise OddReply("a reply without choices, as no OpenAI-compatible server sends it")
    if not isinstance(choices[0], dict):
        raise OddReply(f"a choice that is no object but {_kind(choices[0])}")
    return choices[0]


def _message(message: Any) -> tuple[str | None, str | None]:
    """Reasoning and text of a message or delta; None for what it lacks."""
    if message is None:
        return None, None
    if not isinstance(message, dict):
        raise OddReply(f"a message that is no object but {_kind(message)}")
    thought = _text(message.get("reasoning_content") or message.get("reasoning"))
    content = message.get("content")
    if isinstance(content, list):
        thinking = [part for part in content if isinstance(part, dict) and "thinking" in part]
        thought = (thought or "") + "".join(_text(part["thinking"]) or "" for part in thinking)
        content = [part for part in content if part not in thinking]
    return thought, _text(content)


def _text(value: Any) -> str | None:
    """Text, or the text of a list of parts; None for null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part) or "" for part in value)
    if isinstance(value, dict) and "text" in value:
        return _text(value["text"])
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] != "text":
        return None  # a part of another kind: a reference, an image
    raise OddReply(f"text that is {_kind(value)}")


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
