"""Replies of every shape that servers send, and of shapes that none should."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_server import TEXT, reply

from tokenskip.backends._replies import Answer, OddReply, Piece, answer, piece, tokens

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "12 + 5"}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (reply(), TEXT),
        (reply({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "ab"),
        (reply({"content": [THINKING, {"type": "text", "text": "17"}]}), "<think>12 + 5</think>17"),
        (reply({"content": [{"type": "reference", "reference_ids": [1]}, "17"]}), "17"),
        (reply({"content": "17", "reasoning_content": "12 + 5"}), "<think>12 + 5</think>17"),
        (reply({"content": None, "reasoning": "12 + 5"}), "<think>12 + 5"),
        (reply({"content": None}), None),
        (reply(None, "content_filter"), None),
        ({"choices": [{"text": "17", "finish_reason": "stop"}]}, "17"),
        ({"choices": [{"finish_reason": "stop"}]}, None),
    ],
)
def test_the_text_of_a_reply(body: Any, text: str | None) -> None:
    assert answer(body).text == text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        *((body, "reply without choices") for body in (None, [1], {}, {"choices": None}, {"choices": "abc"}, 5,
                                                       {"choices": {"a": 1}}, {"choices": []})),
        ("<html>login</html>", "not JSON: <html>login"),
        ({"choices": [5]}, "a choice that is no object but a number"),
        (reply(["a"]), "a message that is no object but a list"),
        (reply({"content": 17}), "text that is a number"),
        (reply({"content": {"a": 1}}), "text that is an object"),
        ({"error": {"message": "out of \x1b[2J credit", "code": 5}}, r"an error .* an answer: out of \\x1b\[2J credit"),
    ],
)  # fmt: skip
def test_what_is_no_answer_says_what_it_is(body: Any, reason: str) -> None:
    with pytest.raises(OddReply, match=reason):
        answer(body)


def test_depth_is_no_crash() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(OddReply, match="nested too deeply"):
        answer(reply({"content": deep}))


@pytest.mark.parametrize("finish", [5, ["stop"], {"a": 1}, "content_filter", "tool_calls"])
def test_another_end_is_no_end(finish: Any) -> None:
    assert not answer(reply(TEXT, finish)).ended
    assert Answer(TEXT, None).ended
    assert Answer(TEXT, "length").ended


@pytest.mark.parametrize("usage", [None, "many", [1], {}, *({"prompt_tokens": n} for n in ("7", -5, 1e999, True))])
def test_a_count_that_is_none_is_not_used(usage: Any) -> None:
    assert tokens({"usage": usage}, "prompt_tokens") is None
    assert tokens({"usage": {"prompt_tokens": 7}}, "prompt_tokens") == 7


def test_the_pieces_of_a_stream() -> None:
    assert piece({"choices": [{"delta": {"content": "a"}}]}) == Piece(said="a")
    assert piece({"choices": [{"delta": {"content": [THINKING]}}]}) == Piece(thought="12 + 5")
    assert piece({"choices": [], "usage": {"completion_tokens": 4}}) == Piece(n_tokens=4)
    assert piece({"choices": [{"delta": None, "finish_reason": "length"}]}) == Piece(finish="length")
    assert piece(reply("whole")).said == "whole"  # a server that does not stream
    for odd in (None, {}, {"error": "x"}, {"choices": 5}):
        with pytest.raises(OddReply):
            piece(odd)
