"""The openai backend over servers that send what no server should: records with a reason, and few requests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, serving
from conftest import make_tokenizer
from hostile_server import TEXT, bomb, cut, drip, garbage, hostile, reply, status

from tokenskip.backends.openai import GIVE_UP_AFTER, OpenAIBackend
from tokenskip.config import PromptConfig
from tokenskip.errors import BackendError, ConfigError
from tokenskip.prompting.prompts import Prompts, set_ratio_map
from tokenskip.ratio import UNMAPPED, RatioMap
from tokenskip.types import Prompt, Sampling

MAPPED = RatioMap(((0.45, 0.3), (0.8, 0.7)))


@pytest.fixture
def prompts(tokenizer: Any) -> Prompts:
    return Prompts(tokenizer, PromptConfig())


def asked(prompts: Prompts, n: int) -> list[Prompt]:
    return [prompts.prompt(f"Question {i}?") for i in range(n)]


def is_odd(body: Any) -> bool:
    return "Question 3?" in json.dumps(body)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (reply(None, "content_filter"), r"no text came back \(finish_reason content_filter\)"),
        (reply({"content": 17}), "text that is a number"),
        ({"choices": [5]}, "a choice that is no object"),
        ({"choices": {"a": 1}}, "a reply without choices"),
        ({"error": {"message": "out of credit"}}, "an error instead of an answer: out of credit"),
        (b'{"choices":' + b"[" * 100_000, "a reply that is not JSON"),
        (b'{"choices": [{"message": {"content": "caf\xe9"}}]}', "a reply that is not JSON"),
        (garbage, "no whole reply"),
        (cut, "no whole reply"),
        (drip, r"no answer in 1\.5 s"),
        (bomb, "a reply of more than 8 MiB"),
    ],
)
def test_one_odd_reply_is_one_record(prompts: Prompts, odd: Any, reason: str) -> None:
    """It costs no other prompt its answer, and nothing is asked twice."""
    import re

    with hostile(lambda path, body: odd if is_odd(body) else reply()) as server:
        engine = OpenAIBackend("m", prompts.tokenizer, url=server.url, retries=0, timeout_s=1.5 if odd is drip else 60)
        done = engine.generate(asked(prompts, 12), Sampling())
    assert [one.error is None for one in done] == [i != 3 for i in range(12)]
    assert re.search(reason, str(done[3].error))
    assert server.n_asked == 12
    assert all(one.text == TEXT for i, one in enumerate(done) if i != 3)


def test_odd_replies_only_end_soon(prompts: Prompts) -> None:
    with hostile(lambda path, body: {"choices": "abc"}) as server:
        engine = OpenAIBackend("m", prompts.tokenizer, url=server.url, retries=0, concurrency=2)
        with pytest.raises(BackendError, match=rf"failed {GIVE_UP_AFTER} requests in a row.*without choices"):
            engine.generate(asked(prompts, 60), Sampling())
    assert server.n_asked <= GIVE_UP_AFTER + 2


@pytest.mark.parametrize("answer", [drip, lambda handler: time.sleep(5)])
def test_the_deadline_is_for_the_whole_answer(prompts: Prompts, answer: Any) -> None:
    start = time.monotonic()
    with hostile(lambda path, body: answer) as server, pytest.raises(BackendError, match=r"no answer in 0\.5 s"):
        OpenAIBackend("m", prompts.tokenizer, url=server.url, retries=1, timeout_s=0.5).generate(
            asked(prompts, 2), Sampling()
        )
    assert time.monotonic() - start < 10


def test_the_key_is_in_no_completion(prompts: Prompts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRET")

    def echo(path: str, body: Any) -> Any:
        if is_odd(body):
            return status(400, {"error": {"message": "moderated, key Bearer sk-SECRET"}})
        return reply({"content": [{"type": "text", "text": "the key is sk-SECRET"}], "reasoning_content": "sk-SECRET?"})

    with hostile(echo) as server:
        engine = OpenAIBackend("m", prompts.tokenizer, journal=tmp_path / "run" / ".requests", url=server.url)
        (tmp_path / "run").mkdir()
        done = engine.generate(asked(prompts, 5), Sampling())
    assert server.headers[-1]["Authorization"] == "Bearer sk-SECRET"
    assert "SECRET" not in repr(done)
    assert done[0].text == "<think>[OPENAI_API_KEY]?</think>the key is [OPENAI_API_KEY]"


@pytest.mark.parametrize(
    "options",
    [{"concurrency": "x"}, {"concurrency": 0}, {"retries": None}, {"timeout_s": float("nan")}, {"timeout_s": "5"},
     {"url": "http://[::1"}, {"url": 8000}, {"served": 5}, {"served": {"base": 7}}, {"served": "m@http://h:abc"},
     {"extra": [1]}, {"endpoint": ["chat"]}, {"retries": True}],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        OpenAIBackend.check_options(**options)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("weights", ["adapter", "base"])
def test_a_template_with_a_map_does_not_map_again(prompts: Prompts, tmp_path: Path, weights: str) -> None:
    """Behind a server that has the calibrated template the model must see the prompt that was meant."""
    template = set_ratio_map(prompts.tokenizer.chat_template, MAPPED)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "chat_template.jinja").write_text(template)
    server = ChatServer(make_tokenizer(), lambda prompt: TEXT)
    server.tokenizer.chat_template = template
    with serving(server):
        engine = OpenAIBackend(
            "tiny", prompts.tokenizer, adapter if weights == "adapter" else None, tmp_path / ".requests",
            url=server.url, served={"base": "tiny", "adapter": "tiny"},
        )  # fmt: skip
        wanted = [prompts.prompt("Which?", ratio) for ratio in (1.0, 0.5, MAPPED.prompted(0.5), 0.25)]
        engine.generate(wanted, Sampling())
        sent = {json.dumps(server.prompt_ids(body)) for body in server.bodies}
        assert sent == {json.dumps(list(one.token_ids)) for one in wanted}
        # a user of the server still asks through the map
        mine = {**server.bodies[0], "chat_template_kwargs": {"compression_ratio": "0.5"}}
        assert server.prompt_ids(mine) == list(prompts.prompt("Which?", MAPPED.prompted(0.5)).token_ids)


def test_a_map_that_cannot_be_switched_off_is_one_line(prompts: Prompts, tmp_path: Path) -> None:
    template = set_ratio_map(prompts.tokenizer.chat_template, MAPPED).replace(UNMAPPED, "something_else")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "chat_template.jinja").write_text(template)
    with (
        hostile(lambda path, body: reply()) as server,
        pytest.raises(ConfigError, match="run `tokenskip calibrate` once more"),
    ):
        OpenAIBackend("m", prompts.tokenizer, journal=tmp_path / ".requests", url=server.url)
