"""Every architecture that a recipe names goes the whole way, and sees the same ids in training as at inference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from architectures import TEMPLATES, family_model, family_tokenizer
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import PromptConfig, load_recipe
from tokenskip.errors import ModelError
from tokenskip.prompting.chat_template import PLAIN_TEMPLATE, add_ratio_control
from tokenskip.prompting.prompts import Prompts
from tokenskip.storage.store import read_rows
from tokenskip.training.train import iter_losses, tokenise_row

ASK = [{"role": "user", "content": "How many?"}]
MULTI = [*ASK, {"role": "assistant", "content": "One."}, {"role": "user", "content": "And now?"}]


def render(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options))


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("messages", [ASK, MULTI], ids=["one turn", "three turns"])
def test_without_a_ratio_it_is_the_familys_own_template(family: str, messages: list[dict[str, str]]) -> None:
    tokenizer = family_tokenizer(family)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    before = render(tokenizer, messages)
    add_ratio_control(tokenizer)
    for options in ({}, {"compression_ratio": None}, {"compression_ratio": 1.0}):
        assert render(tokenizer, messages, **options) == before
    eos, question = tokenizer.eos_token, messages[-1]["content"]
    marked = render(tokenizer, messages, compression_ratio=0.30000000000000004)
    assert marked == before.replace(question, f"{question}{eos}0.3{eos}")


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_marker_is_two_end_tokens_around_the_ratio_and_no_bos_doubles(family: str) -> None:
    tokenizer = family_tokenizer(family)
    prompts = Prompts(tokenizer, PromptConfig())
    ids = list(prompts.prompt("How many?", 0.6).token_ids)
    marker = [tokenizer.eos_token_id, *prompts.ids("0.6"), tokenizer.eos_token_id]
    assert sum(ids[i : i + len(marker)] == marker for i in range(len(ids))) == 1
    bos = tokenizer.bos_token_id
    if bos not in (None, tokenizer.eos_token_id):
        assert ids.count(bos) == 1
        assert ids[0] == bos


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_whole_run(family: str, tmp_path: Path) -> None:
    """Scored with the real model, two LoRA steps, one evaluated arm; only the answers are scripted."""
    model = family_model(family, tmp_path / "model")
    file = recipe(
        tmp_path,
        model,
        prune={"ratios": [0.5, 1.0], "per_trajectory": "one"},
        train={"trainer": {"max_steps": 2, "logging_steps": 1}},
        evaluate={"arms": ["original", "tokenskip"], "ratios": [0.5], "latency_samples": 0},
    )
    folder = tmp_path / "run"
    with pipeline.Run(folder, load_recipe(file)) as run:
        pipeline.run(run)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [(arm["arm"], arm["ratio"]) for arm in results["arms"]] == [("original", None), ("tokenskip", 0.5)]
    assert len(list(iter_losses(folder / "adapter"))) >= 2
    _same_ids(folder)


def _same_ids(folder: Path) -> None:
    """The saved tokenizer renders, for any server, the very ids that training rows began with."""
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder / "adapter")
    prompts = Prompts(AutoTokenizer.from_pretrained(folder / "adapter"), PromptConfig())
    ratios = set()
    for row in read_rows(folder / "train.jsonl"):
        served = saved.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False, **row["chat_template_kwargs"]
        )
        trained = tokenise_row(row, prompts)
        n_prompt = trained["labels"].count(-100)
        assert trained["input_ids"][:n_prompt] == served
        assert trained["labels"][n_prompt:] == trained["input_ids"][n_prompt:]
        assert trained["labels"][-1] == saved.eos_token_id
        assert served == list(prompts.prompt(row["prompt"][-1]["content"], row["ratio"]).token_ids)
        ratios.add(row["ratio"])
    assert ratios == {0.5, 1.0}


def test_a_template_that_refuses_the_system_turn_says_so_before_a_model_loads() -> None:
    with pytest.raises(ModelError, match=r"System role not supported; leave prompt\.system out"):
        Prompts(family_tokenizer("gemma"), PromptConfig(system="Be kind."))


def test_the_official_adapters_delimiter_is_plain_text_for_qwen() -> None:
    prompts = Prompts(family_tokenizer("qwen2"), PromptConfig(delimiter="<|eot_id|>"))
    assert "How many?<|eot_id|>0.6<|eot_id|><|im_end|>\n" in prompts.text(prompts.messages("How many?"), 0.6)
