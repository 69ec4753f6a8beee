"""What a latent thought is fed with, what it sees, and how many there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_llama import embedded_prompts, random_llama

from tokenskip.baselines import latent
from tokenskip.baselines.rows import Solved, spare_tokens
from tokenskip.prompting.prompts import Prompts
from tokenskip.types import Sampling

PROMPT = [5, 9, 33, 12]


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


@pytest.fixture
def model() -> Any:
    return random_llama()


def by_hand(model: Any, prompt: list[int], n: int) -> Any:
    """The input embeddings of prompt and thoughts, each thought the last hidden state before it; no cache."""
    embeds = model.model.embed_tokens(torch.tensor([prompt]))
    for _ in range(n):
        hidden = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        embeds = torch.cat((embeds, hidden[:, -1:]), 1)
    return embeds


def test_a_thought_is_fed_with_the_hidden_state_before_it_and_sees_all_that_came(model: Any) -> None:
    fed: list[Any] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        fed.append(kwargs.get("inputs_embeds"))

    model.model.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        cache, mask, after = latent.think(model, [PROMPT], 3, pad=0)
        thoughts = torch.cat([one for one in fed if one is not None], 1)
        expected = by_hand(model, PROMPT, 3)
    assert torch.allclose(thoughts, expected[:, len(PROMPT) :], atol=1e-5)
    assert cache.get_seq_length() == len(PROMPT) + 3
    assert mask.tolist() == [[1] * 7]
    assert after.tolist() == [[7]]


def test_padding_changes_nothing(model: Any) -> None:
    with torch.no_grad():
        alone, _, _ = latent.think(model, [PROMPT], 2, pad=0)
        beside, mask, after = latent.think(model, [[3] * 9, PROMPT], 2, pad=0)
    assert mask[1].tolist() == [0] * 5 + [1] * 6
    assert after[1].tolist() == [6]
    assert torch.allclose(alone.layers[1].keys[0], beside.layers[1].keys[1, :, 5:], atol=1e-5)


def test_the_loss_reaches_the_prompt_only_through_the_thoughts_it_may(model: Any) -> None:
    solved = Solved(PROMPT, [[20, 21], [22, 23]], [24, 2])
    latent.latent_loss(model, [solved, solved], 1, 2, (7, 8), pad=0).backward()
    seen = model.model.embed_tokens.weight.grad
    assert seen[PROMPT].abs().sum() > 0
    assert seen[7].abs().sum() > 0
    assert torch.isfinite(seen).all()


def test_the_steps_of_a_stage_are_gone_from_what_is_learned(model: Any) -> None:
    with torch.no_grad():
        first = [Solved(PROMPT, [[20, 21], [22, 23]], [24, 2]), Solved(PROMPT, [[40, 41], [22, 23]], [24, 2])]
        stage_0 = [float(latent.latent_loss(model, [one], 0, 0, (7, 8), pad=0)) for one in first]
        stage_1 = [float(latent.latent_loss(model, [one], 1, 1, (7, 8), pad=0)) for one in first]
    assert stage_0[0] != stage_0[1]
    assert stage_1[0] == stage_1[1], "the first step is a thought now, whatever it said"


def test_stages_come_in_order_and_the_last_one_has_the_most_updates() -> None:
    stages = [latent.stage_of(step, 1000, 4) for step in range(1000)]
    assert stages == sorted(stages)
    counts = [stages.count(stage) for stage in range(5)]
    assert all(counts)
    assert counts[4] > max(counts[:4])


def test_a_completion_shows_and_counts_its_thoughts(model: Any, prompts: Prompts) -> None:
    backend = latent.LatentBackend(model, prompts.tokenizer, thoughts=3, batch_size=2)
    asked = [prompts.prompt(text) for text in ("Tom has 3 apples.", "How many?", "Anna has 12 books and a pen.")]
    together = backend.generate(asked, Sampling(max_new_tokens=5))
    assert all(one.text.startswith("~~~") and 3 <= one.n_tokens <= 8 for one in together)
    assert len(prompts.ids("~~~")) == 3, "a thought counts as one token of the chain"
    assert together == [backend.generate([one], Sampling(max_new_tokens=5))[0] for one in asked]
    assert set(spare_tokens(prompts.tokenizer, 2)) == set(backend.marks)
