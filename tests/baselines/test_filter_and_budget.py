"""Families that change the question alone: filtering it, and choosing an instruction for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_llama import embedded_prompts, random_llama

from tokenskip.baselines import budget, filter_prompt
from tokenskip.prompting.prompts import Prompts
from tokenskip.scorers.random import RandomScorer
from tokenskip.tokens import token_counter
from tokenskip.types import Problem, Scores, Span, Trajectory

QUESTION = (
    "It is a busy Saturday morning. Tom has 12 apples. Then Tom buys 3 more apples. How many apples does he have now?"
)
PROBLEM = Problem(id="a", question=QUESTION, gold="15", level="1")


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


@pytest.fixture
def model() -> Any:
    return random_llama()


class Digits:
    """Numbers are important, words by their place."""

    name = "digits"

    def score(self, trajectories: list[Trajectory]) -> list[Scores]:
        [one] = trajectories
        spans = [Span(at, at + 1, 99.0 if char.isdigit() else at / 1000) for at, char in enumerate(one.cot)]
        return [Scores(scorer=self.name, spans=tuple(spans))]


def test_a_question_is_cut_to_its_share_of_tokens_and_nothing_else_changes(prompts: Prompts) -> None:
    count = token_counter(prompts.tokenizer)
    cuts = filter_prompt.filtered([PROBLEM], RandomScorer(), (1.0, 0.7, 0.4), count)
    assert cuts[1.0] == [PROBLEM]
    for ratio in (0.7, 0.4):
        [cut] = cuts[ratio]
        assert abs(count(cut.question) / count(QUESTION) - ratio) < 0.08
        assert (cut.id, cut.gold, cut.level) == ("a", "15", "1")


def test_what_the_scorer_finds_important_stays(prompts: Prompts) -> None:
    [cut] = filter_prompt.filtered([PROBLEM], Digits(), (0.4,), token_counter(prompts.tokenizer))[0.4]  # type: ignore[arg-type]
    assert "12" in cut.question
    assert "3" in cut.question
    assert "Saturday" not in cut.question


def test_the_cheapest_instruction_that_is_likely_enough_is_chosen() -> None:
    chances = torch.tensor([[0.99, 0.99], [0.2, 0.99], [0.3, 0.4], [0.5, 0.5]])
    assert budget.choose(chances, (10.0, 100.0), 0.9) == [0, 1, 1, 0]
    assert budget.choose(chances, (100.0, 10.0), 0.9) == [1, 1, 1, 1]


def test_the_head_learns_which_questions_are_easy() -> None:
    torch.manual_seed(0)
    seen = torch.randn(400, 6)
    right = torch.stack(((seen[:, 0] > 0).float(), torch.ones(400)), 1)
    head = budget.fit_head(seen[:300], right[:300])
    chances = head.chances(seen[300:])
    assert ((chances[:, 0] > 0.5) == (seen[300:, 0] > 0)).float().mean() > 0.9
    assert (chances[:, 1] > 0.9).all()


def test_features_are_of_the_question_alone(model: Any, prompts: Prompts) -> None:
    asked = [prompts.prompt(text) for text in ("Tom has 3 apples.", "Anna has 12 books and a pen.")]
    together = budget.features(model, asked)
    assert together.shape == (2, 32)
    assert torch.allclose(together[0], budget.features(model, asked[:1])[0], atol=1e-5)


def test_an_instruction_follows_the_question_and_none_changes_nothing() -> None:
    said = budget.instructed([PROBLEM, PROBLEM], ("", "Be concise."), (0, 1))
    assert said[0] == PROBLEM
    assert said[1].question == f"{QUESTION} Be concise."
