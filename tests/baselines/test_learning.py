"""A handful of problems can be learned by heart, and each family's own decoding then gives the answers back.

What was trained under a mask, or through thoughts, is thereby what its backend computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from random_llama import embedded_prompts

from tokenskip.backends.hf import HfBackend
from tokenskip.baselines import gist, internalise, latent, parallel, skip_steps
from tokenskip.baselines.rows import Solved
from tokenskip.config import ModelConfig
from tokenskip.embedded import family, owners
from tokenskip.models.loading import load_model
from tokenskip.types import Backend, Sampling

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
N = 8
STORIES = list(family.stories("train", N))
PAIRS = list(owners.problems("train", N))


def solved() -> list[Solved]:
    """The stories with their equations, as ids."""
    prompts = embedded_prompts()
    return [
        Solved(
            list(prompts.prompt(story.question).token_ids),
            [prompts.ids(f"\n{event.equation}" if i else event.equation) for i, event in enumerate(story.events)],
            prompts.completion_ids(f"\n\nThe final answer is {story.answer}."),
        )
        for story in STORIES
    ]


def base() -> Any:
    return load_model(ModelConfig(path="embedded", device="cpu"))


def texts(backend: Backend, questions: Sequence[str], instruction: str = "") -> list[str]:
    prompts = embedded_prompts()
    asked = [prompts.prompt(question, instruction=instruction) for question in questions]
    return [one.text for one in backend.generate(asked, Sampling(max_new_tokens=80))]


def n_right(written: Sequence[str], golds: Sequence[object]) -> int:
    return sum(text.endswith(f"The final answer is {gold}.") for text, gold in zip(written, golds, strict=True))


QUESTIONS = [story.question for story in STORIES]
ANSWERS = [story.answer for story in STORIES]


def test_latent_thoughts() -> None:
    model, tokenizer = base(), embedded_prompts().tokenizer
    _, thoughts = latent.train(model, tokenizer, solved(), 1, steps=150, size=N)
    written = texts(latent.LatentBackend(model, tokenizer, thoughts=thoughts), QUESTIONS)
    assert n_right(written, ANSWERS) >= N - 1, written
    assert all(text.startswith("~" * thoughts + "\n\nThe final answer") for text in written)


def test_gist_tokens() -> None:
    model, tokenizer = base(), embedded_prompts().tokenizer
    gist.train(model, tokenizer, solved(), 8, steps=150, size=N)
    written = texts(gist.GistBackend(model, tokenizer, k=8), QUESTIONS)
    assert n_right(written, ANSWERS) >= N - 1, written


@pytest.mark.parametrize("way", ["fork", "sequential"])
def test_parallel_steps(way: parallel.Way) -> None:
    model, prompts = base(), embedded_prompts()
    parallel.train(model, [parallel.fork(problem, prompts) for problem in PAIRS], way, steps=200, size=N)
    backend: Callable[..., Backend] = parallel.ForkBackend if way == "fork" else HfBackend
    written = texts(backend(model, prompts.tokenizer), [problem.question for problem in PAIRS])
    expected = [problem.solution for problem in PAIRS]
    assert sum(map(str.__eq__, written, expected)) >= N - 1, written


@pytest.mark.parametrize(("way", "has_chain"), [("explicit", True), ("gradual", False), ("at_once", False)])
def test_internalised_steps(way: internalise.Way, has_chain: bool) -> None:
    model = base()
    internalise.train(model, solved(), way, steps=120, size=N)
    written = texts(HfBackend(model, embedded_prompts().tokenizer), QUESTIONS)
    assert n_right(written, ANSWERS) >= N - 1, written
    assert all(("=" in text) == has_chain for text in written)


def test_skipped_steps() -> None:
    model, prompts = base(), embedded_prompts()
    whole = [
        skip_steps.Skipped(story.question, tuple(e.equation for e in story.events), 0, str(story.answer))
        for story in STORIES
    ]
    short = [one._replace(steps=one.steps[-1:], left_out=1) for one in whole if len(one.steps) == 2]
    short += [one._replace(steps=one.steps[1:], left_out=1) for one in whole if len(one.steps) > 2]
    skip_steps.train(model, whole + short, prompts, steps=160, size=N)
    backend = HfBackend(model, prompts.tokenizer)
    for left_out in (0, 1):
        written = texts(backend, QUESTIONS, skip_steps.instruction(left_out))
        assert n_right(written, ANSWERS) >= N - 1, written
        counts = [text.count("=") for text in written]
        expected = [len(one.steps) - left_out for one in whole]
        assert sum(map(int.__eq__, counts, expected)) >= N - 1, written
