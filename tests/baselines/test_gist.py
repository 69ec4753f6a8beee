"""The gist mask hides the prompt, and an answer from the cut cache is the masked model's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_llama import embedded_prompts, random_llama

from tokenskip.baselines import gist
from tokenskip.baselines.decode import greedy, prefill
from tokenskip.baselines.rows import Solved, collate
from tokenskip.prompting.prompts import Prompts
from tokenskip.types import Sampling

SOLVED = Solved([5, 9, 33], [[20, 21]], [24, 2])
GIST = 7


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


@pytest.fixture
def model() -> Any:
    return random_llama()


@pytest.fixture
def shallow() -> Any:
    return random_llama(layers=1)


def test_what_follows_sees_the_gist_and_not_the_prompt() -> None:
    mask = gist.gist_mask(3, 2, 2)
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1, 1],
    ]


def influence(model: Any, k: int) -> Any:
    """How much the logits that follow the gist move with each token of the prompt: (prompt,)."""
    batch = collate([gist.gist_row(SOLVED, k, GIST)], pad=0)
    embeds = model.model.embed_tokens(batch.ids).detach().requires_grad_()
    out = model(inputs_embeds=embeds, attention_mask=batch.visible, position_ids=batch.positions)
    out.logits[0, len(SOLVED.prompt) + k :].pow(2).sum().backward()
    return embeds.grad[0, : len(SOLVED.prompt)].abs().sum(1)


def test_the_prompt_reaches_the_answer_through_the_gist_alone(shallow: Any, model: Any) -> None:
    assert (influence(shallow, 2) == 0).all(), "in one layer nothing can have passed through the gist yet"
    assert (influence(model, 2) > 0).all()


def test_the_first_token_is_foretold_by_the_last_gist_position() -> None:
    row = gist.gist_row(SOLVED, 2, GIST)
    assert row.ids == [5, 9, 33, GIST, GIST, 20, 21, 24, 2]
    assert row.labels == [-100] * 5 + [20, 21, 24, 2]


def test_decoding_from_the_cut_cache_is_the_masked_forward(model: Any) -> None:
    n, k = len(SOLVED.prompt), 2
    with torch.no_grad():
        state = gist.only_gist(prefill(model, [[*SOLVED.prompt, GIST, GIST], [3] * 9 + [GIST, GIST]], 0), k)
        assert state.cache.get_seq_length() == k
        made = greedy(model, state, 6, ())[0]
        ids = torch.tensor([[*SOLVED.prompt, GIST, GIST, *made]])
        logits = model(input_ids=ids, attention_mask=gist.gist_mask(n, k, len(made))[None, None]).logits[0]
    assert logits[n + k - 1 : -1].argmax(-1).tolist() == made


def test_the_backend_answers_alike_alone_and_beside_others(model: Any, prompts: Prompts) -> None:
    backend = gist.GistBackend(model, prompts.tokenizer, k=4, batch_size=2)
    asked = [prompts.prompt(text) for text in ("Tom has 3 apples.", "How many?", "Anna has 12 books and a pen.")]
    together = backend.generate(asked, Sampling(max_new_tokens=5))
    assert together == [backend.generate([one], Sampling(max_new_tokens=5))[0] for one in asked]
