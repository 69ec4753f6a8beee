"""The embedded model on a real llama.cpp server: both routes shorten the chain, doctor agrees, evaluation runs over it.

Run by `make test-slow`, which installs the server and llama.cpp's converter.
"""

from __future__ import annotations

import datetime
import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from llamacpp import CONVERTER, llama_server

from tokenskip.backends.openai import OpenAIBackend
from tokenskip.config import ModelConfig, PromptConfig, load_recipe
from tokenskip.embedded import adapter_path, model_path
from tokenskip.models.loading import load_tokenizer
from tokenskip.prompting.chat_template import TemplateSettings, add_ratio_control, set_effort, set_ratio_map
from tokenskip.prompting.prompts import Prompts
from tokenskip.ratio import RatioMap, RatioRange
from tokenskip.serving.doctor import diagnose
from tokenskip.storage.store import read_rows
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.types import Prompt, Sampling

pytestmark = pytest.mark.llamacpp

EFFORT = {"low": 0.5, "medium": 0.7, "high": 1.0}
GREEDY = Sampling(max_new_tokens=400)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `export --to gguf`, in float32, of the shipped adapter with an effort map."""
    folder = tmp_path_factory.mktemp("llamacpp")
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "merge", "embedded", "-o", folder / "model") == 0
        assert call(patch, "effort", folder / "model", "--map", "low=.5,medium=.7,high=1") == 0
        arguments = ("--to", "gguf", "--type", "f32", "--name", "stories", "--converter", CONVERTER)
        assert call(patch, "export", folder / "model", "-o", folder / "gguf", *arguments) == 0
    return folder / "gguf"


@pytest.fixture(scope="module")
def gguf(exported: Path) -> Path:
    return exported / "stories-f32.gguf"


@pytest.fixture(scope="module")
def url(gguf: Path) -> Iterator[str]:
    with llama_server(gguf) as address:
        yield address


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts(load_tokenizer(ModelConfig()), PromptConfig(spelling="scale"))


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def questions(n: int) -> list[str]:
    return [
        problem.question for problem in EmbeddedTask(load_recipe(None, ["task.name=embedded"]).task).problems("test", n)
    ]


def chain(url: str, question: str, **fields: Any) -> tuple[str, int, int]:
    """Text of a greedy answer, its tokens and those of the prompt."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 400, **fields}
    reply = ask(url, "/v1/chat/completions", body)
    usage = reply["usage"]
    return reply["choices"][0]["message"]["content"], usage["completion_tokens"], usage["prompt_tokens"]


def test_both_routes_shorten_the_chain(url: str, prompts: Prompts) -> None:
    asked = questions(8)
    whole = [chain(url, question) for question in asked]
    short = [chain(url, question, chat_template_kwargs={"compression_ratio": "0.5"}) for question in asked]
    assert [answer[2] for answer in whole] == [len(prompts.prompt(question).token_ids) for question in asked]
    assert [answer[2] for answer in short] == [len(prompts.prompt(question, 0.5).token_ids) for question in asked]
    assert 0.4 < sum(n for _, n, _ in short) / sum(n for _, n, _ in whole) < 0.7
    assert [chain(url, question, reasoning_effort="low") for question in asked] == short
    assert chain(url, asked[0], reasoning_effort="high") == whole[0]
    assert chain(url, asked[0], reasoning_effort="none") == whole[0]
    both = {"reasoning_effort": "high", "chat_template_kwargs": {"compression_ratio": "0.5"}}
    assert chain(url, asked[0], **both) == short[0], "compression_ratio wins"


def test_doctor_agrees(url: str, gguf: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "doctor", url, "--model", gguf) == 0
    said = capsys.readouterr().out
    assert "by chat_template_kwargs and by reasoning_effort (on /apply-template)" in said
    assert "trained on: 0." in said
    found = {route.sent: route.verdict for route in diagnose(url, str(gguf)).routes}
    assert found == {
        "compression_ratio 0.5": "honoured",
        "none": "as without",
        "low": "honoured",
        "medium": "honoured",
        "high": "as without",
    }
    plain = tmp_path / "plain.jinja"
    plain.write_text((model_path() / "chat_template.jinja").read_text())
    with llama_server(gguf, plain) as other:
        assert call(monkeypatch, "doctor", other, "--model", gguf) == 1
        assert "no: the model's chat template ignores it" in capsys.readouterr().out


def test_another_effort_map_than_the_adapter_has_is_seen(url: str, gguf: Path, exported: Path) -> None:
    template = (exported / "chat_template.jinja").read_text()
    found = diagnose(url, str(gguf), template=set_effort(template, {"low": 0.9}))
    assert {route.sent: route.verdict for route in found.routes}["low"] == "another"


def templates() -> dict[str, str]:
    """Every kind of ratio control that we write, by name."""
    plain = TemplateSettings(ratios=(0.5, 0.7, 1.0))
    kinds = {
        "anything": TemplateSettings(),
        "list": plain,
        "strict": replace(plain, strict=True),
        "range": TemplateSettings(ratios=RatioRange(0.3, 1.0), spelling="decimals"),
        "scale": TemplateSettings(ratios=RatioRange(0.3, 1.0), spelling="scale"),
        "strict range": TemplateSettings(ratios=RatioRange(0.3, 0.9), spelling="decimals", strict=True),
        "arguments": replace(plain, template_kwargs={"style": "short", "depth": [1, {"x": None}]}),
        "date": replace(plain, date=datetime.date(2024, 7, 5)),
    }
    made = {}
    for name, settings in kinds.items():
        tokenizer = load_tokenizer(ModelConfig())
        if name == "date":
            tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}" + tokenizer.chat_template
        if name == "arguments":
            tokenizer.chat_template = "{{ style }}" + tokenizer.chat_template
        made[name] = add_ratio_control(tokenizer, settings=settings).chat_template
    knots = ((0.45, 0.4), (0.62, 0.6), (0.93, 0.9))
    made["map"] = set_ratio_map(made["list"], RatioMap(knots))
    made["steps"] = set_ratio_map(made["list"], RatioMap(knots, clamp=True, steps=True))
    made["effort"] = set_effort(made["list"], EFFORT)
    return made


KINDS = ("anything", "list", "strict", "range", "scale", "strict range", "arguments", "date", "map", "steps")
KINDS += ("effort",)


def test_every_kind_of_control_is_rendered() -> None:
    assert tuple(templates()) == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_its_engine_renders_what_transformers_renders(name: str, gguf: Path, tmp_path: Path) -> None:
    """Every ratio, word and turn: the same bytes, or both refuse."""
    template, tokenizer = templates()[name], load_tokenizer(ModelConfig())
    file = tmp_path / "template.jinja"
    file.write_text(template)
    user, answer = {"role": "user", "content": "How <|im_end|>many?"}, {"role": "assistant", "content": "Five."}
    kwargs: list[dict[str, Any]] = [{}]
    kwargs += [{"compression_ratio": ratio} for ratio in (*(step / 20 for step in range(1, 21)), 0.333, "0.6", "1", 1)]
    kwargs += [{"reasoning_effort": word} for word in ("low", "high", "none", "max")]
    kwargs += [{"compression_ratio": wrong} for wrong in (0, 1.5, -1)]
    with llama_server(gguf, file) as url:
        for messages in ([user], [{"role": "system", "content": "Be kind."}, user, answer, user]):
            for given in kwargs:
                try:
                    expected = tokenizer.apply_chat_template(
                        messages, chat_template=template, tokenize=False, add_generation_prompt=True, **given
                    )
                except Exception:
                    with pytest.raises(urllib.error.HTTPError):
                        ask(url, "/apply-template", {"messages": messages, "chat_template_kwargs": given})
                    continue
                got = ask(url, "/apply-template", {"messages": messages, "chat_template_kwargs": given})["prompt"]
                assert got == expected, given


def test_the_backend_gets_what_transformers_writes(url: str, gguf: Path, prompts: Prompts) -> None:
    """Greedily, in float32: nearly every answer is the same text, and every prompt has our own number of tokens."""
    from tokenskip.backends.hf import HfBackend
    from tokenskip.models.loading import load_model

    asked: list[Prompt] = [prompts.prompt(question, ratio) for question in questions(8) for ratio in (1.0, 0.7, 0.5)]
    backend = OpenAIBackend("embedded", prompts.tokenizer, adapter_path(), url=url, served={"adapter": str(gguf)})
    over = backend.generate(asked, GREEDY)
    here = HfBackend(load_model(ModelConfig(device="cpu"), adapter_path()), prompts.tokenizer).generate(asked, GREEDY)
    same = sum(one.text.strip() == other.text.strip() for one, other in zip(over, here, strict=True))
    assert same >= len(asked) - 2


def test_an_evaluation_runs_over_it(url: str, gguf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    served = f"generate.options.served={{base: '{gguf}', adapter: '{gguf}'}}"
    over = ("--set", "generate.backend=openai", "--set", f"generate.options.url={url}", "--set", served)
    chosen = ("--set", "evaluate.arms=[original, tokenskip]", "--set", "evaluate.ratios=[0.5]")
    assert call(monkeypatch, "generate", run, "--recipe", "embedded", "--limit", 12, *over, *chosen) == 0
    shutil.copytree(adapter_path(), run / "adapter")
    assert call(monkeypatch, "evaluate", run, "--set", "evaluate.latency_samples=0") == 0
    whole, short = (list(read_rows(run / "eval" / f"{name}.jsonl")) for name in ("original", "tokenskip-0.5"))
    assert len(whole) == len(short) == 12
    assert {row["finish"] for row in (*whole, *short)} == {"stop"}
    ratio = sum(row["n_cot_tokens"] for row in short) / sum(row["n_cot_tokens"] for row in whole)
    assert 0.4 < ratio < 0.65
