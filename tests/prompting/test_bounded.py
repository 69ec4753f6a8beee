"""Chat templates are somebody's programs: what they may cost before any model loads."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from tokenskip.config import PromptConfig
from tokenskip.errors import ModelError
from tokenskip.prompting import bounded
from tokenskip.prompting.bounded import LimitError
from tokenskip.prompting.prompts import Prompts

BOMBS = [
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "does not end within"),
    ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "calls itself without an end"),
    ("{{ 1/0 }}", "division by zero"),
    ("{{ [1][7] + 1 }}", "has no element 7"),
    ("{{ 'a' * 10**11 }}", "memory"),
    ("{{ 'a' * 10**7 }}", "makes more than 4 MiB"),
    ("{{ 'a' | center(10**10) }}", "memory"),
    ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", "memory|within"),
]


@pytest.mark.parametrize(("bomb", "reason"), BOMBS)
def test_a_template_bomb_is_one_line(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, bomb: str, reason: str) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 2)
    tokenizer.chat_template = bomb + tokenizer.chat_template
    start = time.monotonic()
    with pytest.raises(ModelError, match=f"the chat template fails on the turns .*({reason})") as error:
        Prompts(tokenizer, PromptConfig())
    assert time.monotonic() - start < 20
    assert len(str(error.value).splitlines()) == 1


def test_the_text_comes_back_whole() -> None:
    assert bounded.bounded(lambda: "é日\n" * 100_000) == "é日\n" * 100_000
    assert bounded.bounded(lambda: "") == ""


def test_a_child_that_dies_says_so_and_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    with pytest.raises(LimitError, match="ended without a word"):
        bounded.bounded(lambda: os._exit(3))  # type: ignore[arg-type, return-value]
    with pytest.raises(LimitError, match="bad turn"):
        bounded.bounded(lambda: [][0] if False else (_ for _ in ()).throw(ValueError("bad turn")))  # type: ignore[arg-type]
    assert len(children) == 2
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_it_works_beside_other_threads() -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(bounded.bounded(lambda: "x"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == ["x"] * 4
