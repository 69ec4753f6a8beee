"""The backend's own decoding says what transformers' `generate` says, however rows enter and leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import TEMPLATES, family_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenskip.backends import _decode
from tokenskip.backends.hf import HfBackend
from tokenskip.types import Prompt, Sampling

LENGTHS = (3, 40, 7, 7, 21, 1, 90, 13, 40, 5, 33)


def prompts_of(vocabulary: int, caps: dict[int, int] | None = None) -> list[Prompt]:
    generator = torch.Generator().manual_seed(1)
    return [
        Prompt(
            messages=(),
            token_ids=tuple(torch.randint(10, vocabulary, (n,), generator=generator).tolist()),
            max_new_tokens=(caps or {}).get(i),
        )
        for i, n in enumerate(LENGTHS)
    ]


def alone(model: Any, tokenizer: Any, prompt: Prompt, cap: int, eos: set[int]) -> tuple[int, ...]:
    """What `generate` says to one prompt without padding."""
    ids = torch.tensor([prompt.token_ids])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=prompt.max_new_tokens or cap,
        do_sample=False,
        eos_token_id=sorted(eos),
        pad_token_id=tokenizer.pad_token_id,
    )
    made: list[int] = out[0, len(prompt.token_ids) :].tolist()
    return tuple(made[: next((i for i, token in enumerate(made) if token in eos), None)])


def load(folder: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_greedy_is_what_generate_says(family: str, rows: int, tmp_path: Path) -> None:
    """With ends that random weights do hit, so that rows leave and enter at many different steps."""
    model, tokenizer = load(family_model(family, tmp_path))
    assert _decode.can_decode(model) == (family not in ("mistral", "gemma"))
    backend = HfBackend(model, tokenizer, batch_size=rows)
    prompts = prompts_of(model.config.vocab_size, {2: 1, 6: 30})
    free = [alone(model, tokenizer, prompt, 24, set()) for prompt in prompts]
    backend.eos_ids |= {row[len(row) // 2] for row in free[::2]}
    done = backend.generate(prompts, Sampling(max_new_tokens=24))
    assert [one.token_ids for one in done] == [alone(model, tokenizer, one, 24, backend.eos_ids) for one in prompts]
    assert len({one.n_tokens for one in done}) > 1


def test_the_buffers_are_moved_back_when_they_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decode, "SLACK", 0)
    model, tokenizer = load(family_model("llama", tmp_path))
    backend = HfBackend(model, tokenizer, batch_size=2)
    prompts = prompts_of(model.config.vocab_size, {i: 3 + 5 * (i % 4) for i in range(len(LENGTHS))})
    moved: list[int] = []
    move = _decode.Decoder._move_back
    monkeypatch.setattr(_decode.Decoder, "_move_back", lambda self: (moved.append(1), move(self))[1])
    done = backend.generate(prompts, Sampling(max_new_tokens=24))
    assert moved
    assert [one.token_ids for one in done] == [alone(model, tokenizer, one, 24, backend.eos_ids) for one in prompts]


@pytest.mark.parametrize("refill", [1, 2, 8])
def test_a_row_that_has_ended_and_waits_to_leave_takes_no_room(
    refill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row with the first column ended; others that entered later fill the buffers before enough rows have ended."""
    monkeypatch.setattr(_decode, "SLACK", 0)
    monkeypatch.setattr(_decode, "REFILL", refill)
    model, tokenizer = load(family_model("llama", tmp_path))
    draw = torch.Generator().manual_seed(4)
    lengths, caps = (torch.randint(1, 20, (70,), generator=draw).tolist() for _ in range(2))
    prompts = [
        Prompt(messages=(), token_ids=tuple(range(10 + i, 10 + i + n)), max_new_tokens=cap)
        for i, (n, cap) in enumerate(zip(lengths, caps, strict=True))
    ]
    done = HfBackend(model, tokenizer, batch_size=24).generate(prompts, Sampling(max_new_tokens=24))
    singly = HfBackend(model, tokenizer, batch_size=1).generate(prompts, Sampling(max_new_tokens=24))
    assert [one.token_ids for one in done] == [one.token_ids for one in singly]
    assert max(one.n_tokens for one in done) > 15


def test_a_sampled_answer_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    model, tokenizer = load(family_model("qwen2", tmp_path))
    prompts = prompts_of(model.config.vocab_size)
    sampling = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9, seed=3)
    together = HfBackend(model, tokenizer).generate(prompts, sampling)
    few = HfBackend(model, tokenizer, batch_size=2).generate(prompts[:7], sampling)
    assert [one.token_ids for one in together[:7]] == [one.token_ids for one in few]
    other = HfBackend(model, tokenizer).generate(prompts, Sampling(max_new_tokens=12, temperature=0.8, seed=4))
    assert [one.token_ids for one in together] != [one.token_ids for one in other]


def test_a_prompt_asked_twice_is_sampled_twice(tmp_path: Path) -> None:
    model, tokenizer = load(family_model("qwen2", tmp_path))
    prompt = prompts_of(model.config.vocab_size)[0]
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    made = {one.token_ids for one in HfBackend(model, tokenizer).generate([prompt] * 4, sampling)}
    assert len(made) == 4


def test_samples_follow_the_models_distribution_within_top_p(tmp_path: Path) -> None:
    model, tokenizer = load(family_model("qwen2", tmp_path))
    prompt = prompts_of(model.config.vocab_size)[1]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt.token_ids])).logits[0, -1].float()
    p, order = torch.softmax(logits / 0.05, -1).sort(descending=True)
    n_kept = int((p.cumsum(0) - p < 0.6).sum())
    kept = dict(zip(order[:n_kept].tolist(), (p[:n_kept] / p[:n_kept].sum()).tolist(), strict=True))
    n = 600
    backend = HfBackend(model, tokenizer, batch_size=200)
    done = backend.generate([prompt] * n, Sampling(max_new_tokens=1, temperature=0.05, top_p=0.6))
    counts = {token: sum(one.token_ids == (token,) for one in done) for token in kept}
    assert sum(counts.values()) == n
    for token, expected in kept.items():
        assert abs(counts[token] / n - expected) < 4 * (expected * (1 - expected) / n) ** 0.5 + 1 / n


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_folders_repetition_penalty_does_not_change_what_greedy_means(family: str, tmp_path: Path) -> None:
    model, tokenizer = load(family_model(family, tmp_path))
    prompt = prompts_of(model.config.vocab_size)[1]
    expected = alone(model, tokenizer, prompt, 24, {tokenizer.eos_token_id})
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    backend = HfBackend(model, tokenizer)
    assert backend.generate([prompt], Sampling(max_new_tokens=24))[0].token_ids == expected
    *_, last = backend.stream(prompt, 24)
    assert last.token_ids == expected


def test_the_batch_follows_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(family_model("llama", tmp_path))
    prompts = prompts_of(model.config.vocab_size)
    assert _decode.row_bytes(model, 100) == 2 * 2 * 1 * 16 * 100 * 4
    monkeypatch.setattr("tokenskip.backends.hf.free_memory", lambda _: 5 * _decode.row_bytes(model, 114))
    rows: list[int] = []
    init = _decode.Decoder.__init__

    def noting(self: Any, *args: Any, **named: Any) -> None:
        rows.append(named["rows"])
        init(self, *args, **named)

    monkeypatch.setattr(_decode.Decoder, "__init__", noting)
    HfBackend(model, tokenizer).generate(prompts, Sampling(max_new_tokens=24))
    assert rows == [2]
