"""The tokenizer, the batches and the shipped model of the embedded reasoner."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import examples
from embedded_model.batches import IGNORE, Stream, filler_weight
from embedded_model.measure import accuracy, final_answer
from embedded_model.pretrain import SIZES, Recipe, Run
from embedded_model.registers import REGISTERS, TRIGGER, document
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenskip.embedded import model_path
from tokenskip.embedded.family import stories
from tokenskip.training.muon import Muon, orthogonalise

MEGABYTE = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()


SHIPPED = AutoTokenizer.from_pretrained(model_path())


@examples(300)
@given(st.text(max_size=60))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = SHIPPED(text, add_special_tokens=False)["input_ids"]
    assert SHIPPED.decode(ids) == text


def test_digits_stand_alone(tokenizer: Any) -> None:
    for text in ("12 + 5 = 17", "x1234 56", "0.6", "99%"):
        tokens = tokenizer.tokenize(text)
        assert all(sum(c.isdigit() for c in token) <= 1 for token in tokens)


def test_family_words_are_single_tokens(tokenizer: Any) -> None:
    for story in stories("dev", 50):
        for word in document(story, "chatty", random.Random(story.id), bare=True).words:
            if word.text.strip().isalpha():
                assert len(tokenizer(word.text, add_special_tokens=False)["input_ids"]) == 1


def test_special_tokens_and_chat_template(tokenizer: Any) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<|im_end|>", "<|pad|>", "left")
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"


def test_ids_of_words_are_ids_of_the_text(tokenizer: Any) -> None:
    stream = Stream(tokenizer, 1024)
    for index, story in enumerate(stories("pretrain", 120)):
        doc = document(story, REGISTERS[index % len(REGISTERS)], random.Random(story.id))
        ids, weights = stream.encode(doc, 0.5)
        completion = tokenizer(doc.completion, add_special_tokens=False)["input_ids"]
        assert ids[-len(completion) - 1 :] == [*completion, tokenizer.eos_token_id]
        assert len(ids) == len(weights)
        assert not any(weights[: -len(completion) - 1])


def test_batches_are_repeatable(tokenizer: Any) -> None:
    first, again = (Stream(tokenizer, 2048, seed=3).batches(5, 0.5) for _ in range(2))
    assert len(first) == len(again) > 1
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.weights, b.weights)
        assert torch.equal(a.labels == IGNORE, a.weights == 0)


def test_filler_weight_grows() -> None:
    values = [filler_weight(p / 20) for p in range(21)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.1, 1.0)


def test_muon_moves_matrices_by_what_is_nearly_orthogonal_and_the_rest_as_adamw() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(6, 8), "layer": torch.nn.Linear(8, 8)})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = torch.optim.AdamW([model["embed"].weight], lr=0.015, betas=(0.9, 0.98), weight_decay=0.0)
    optimizer = Muon(model, lr=0.1)
    model["layer"](model["embed"](torch.arange(6))).square().sum().backward()
    gradient = model["embed"].weight.grad.clone()
    optimizer.step()
    step = (before["layer.weight"] - model["layer"].weight.detach()) / 0.1
    assert torch.allclose(step @ step.mT, torch.eye(8), atol=0.8)
    moved = model["embed"].weight.detach().clone()
    model["embed"].weight.data, model["embed"].weight.grad = before["embed.weight"], gradient
    plain.step()
    assert torch.allclose(model["embed"].weight, moved)


def test_orthogonalise() -> None:
    x = orthogonalise(torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(x)
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_a_stopped_training_goes_on_exactly(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(model_path(), tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    whole = Run(tmp_path / "a", Recipe(tokens=26_000))
    whole.train(eval_every=10**9, eval_n=1)
    half = Run(tmp_path / "b", Recipe(tokens=26_000))
    for batch in half.stream.batches(0, 0.0):
        half.step(batch)
    half.state.chunk = 1
    half.save()
    rest = Run(tmp_path / "b", Recipe(tokens=26_000))
    assert rest.state.tokens > 0
    rest.train(eval_every=10**9, eval_n=1)
    pairs = zip(whole.model.parameters(), rest.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_head_sizes_suit_inference_engines() -> None:
    assert {s["hidden_size"] // s["num_attention_heads"] for s in SIZES.values()} <= {32, 64}
    config = json.loads((model_path() / "config.json").read_text())
    assert config["head_dim"] in (32, 64)


def test_everything_shipped_is_small() -> None:
    files = [file for file in model_path().parent.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert sum(file.stat().st_size for file in files) <= 12 * MEGABYTE
    assert (model_path() / "README.md").stat().st_size > 1000


def test_final_answer() -> None:
    assert final_answer("12 + 5 = 17" + TRIGGER + "17.") == 17
    assert final_answer("12 + 5 = 17") is None


def test_shipped_model_solves_held_out_problems(model: Any, tokenizer: Any) -> None:
    assert accuracy(model, tokenizer, "test", 60) >= 0.95


def test_answering_directly_fails(model: Any, tokenizer: Any) -> None:
    assert accuracy(model, tokenizer, "test", 40, " Just give the answer.") <= 0.25
