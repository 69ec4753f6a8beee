"""Solved problems as ids, and the batches that are made of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from random_llama import embedded_prompts, random_llama

from tokenskip.baselines import rows
from tokenskip.baselines.fit import about, fit, loss_of, save
from tokenskip.config import ModelConfig
from tokenskip.errors import ModelError
from tokenskip.models.loading import load_model
from tokenskip.prompting.prompts import Prompts
from tokenskip.types import Grade, Trajectory

CHAIN = "[Start] 12.\nStep 1: add 3, 12 + 3 = 15.\nStep 2: twice, 15 * 2 = 30."


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


@pytest.fixture
def model() -> Any:
    return random_llama()


def chain(**fields: Any) -> Trajectory:
    grade = Grade(correct=True, reason="")
    return Trajectory(id="a", question="Tom has 12 apples.", gold="30", cot=CHAIN, grade=grade, **fields)


def test_a_chain_becomes_its_steps_and_the_ids_of_one_text(prompts: Prompts) -> None:
    solved = rows.solve(chain(), prompts)
    text = f"{CHAIN}\n\nThe final answer is 30."
    assert [*solved.chain, *solved.answer] == prompts.completion_ids(text), "what a model reads is one text, not pieces"
    assert len(solved.steps) == 2
    assert solved.prompt == list(prompts.prompt("Tom has 12 apples.").token_ids)


def test_steps_are_lines_with_an_equation_and_nothing_is_lost() -> None:
    first, second = CHAIN.split("\n")[1:]
    assert rows.steps_of(CHAIN) == [f"[Start] 12.\n{first}", second]
    assert rows.steps_of(f"{CHAIN}\nThat is all.") == [f"[Start] 12.\n{first}", f"{second}\nThat is all."]
    assert rows.steps_of("Twelve, so thirty.") == rows.steps_of("") == []


def test_only_right_chains_with_steps_are_used() -> None:
    wrong = Trajectory(id="b", question="", gold="1", cot=CHAIN, grade=Grade(correct=False, reason=""))
    empty = Trajectory(id="c", question="", gold="1", cot="So.", grade=Grade(correct=True, reason=""))
    assert list(rows.right([chain(), wrong, empty])) == [chain()]


def test_only_the_target_is_learned_and_padding_never() -> None:
    batch = rows.collate([rows.learn([5, 6], [7]), rows.learn([5], [8, 9, 10])], pad=0)
    assert batch.ids.tolist() == [[5, 6, 7, 0], [5, 8, 9, 10]]
    assert batch.labels.tolist() == [[-100, -100, 7, -100], [-100, 8, 9, 10]]
    assert batch.visible is None


def test_a_mask_is_padded_with_positions_that_see_themselves_alone() -> None:
    row = rows.Row([5, 6], [-100, 6], rows.triangle(2))
    batch = rows.collate([row, rows.Row([5, 6, 7], [-100, 6, 7], rows.triangle(3))], pad=0)
    assert batch.visible is not None
    assert batch.visible.shape == (2, 1, 3, 3)
    assert batch.visible[0, 0].tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_every_item_comes_once_an_epoch_with_others_of_its_length() -> None:
    items = ["x" * (i % 7) for i in range(40)]
    numbered = list(enumerate(items))
    drawn = list(islice(rows.draws(numbered, 4, seed=1, length=lambda one: len(one[1])), 10))
    assert sorted(one for batch in drawn for one in batch) == numbered
    assert all(len({len(text) for _, text in batch}) <= 2 for batch in drawn)
    again = list(islice(rows.draws(numbered, 4, seed=1, length=lambda one: len(one[1])), 10))
    assert drawn == again


def test_spare_tokens_are_in_no_text(prompts: Prompts) -> None:
    spare = rows.spare_tokens(prompts.tokenizer, 2)
    assert len(set(spare)) == 2
    every_character = "".join(map(chr, (*range(32, 0x2FF), *range(0x4E00, 0x4E40), 0x1F600)))
    assert not set(spare) & set(prompts.ids(every_character))

    class Words:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    with pytest.raises(ModelError, match="0 tokens that no text uses, 1 are needed"):
        rows.spare_tokens(Words(), 1)


def test_a_training_lowers_the_loss_and_its_folder_is_a_whole_model(
    model: Any, prompts: Prompts, tmp_path: Path
) -> None:
    batch = rows.collate([rows.learn(*pair) for pair in (([3, 4], [5, 6]), ([7], [8, 9]))], pad=0)
    before = loss_of(model, batch).detach()
    noted: list[str] = []
    seconds = fit(model, 100, lambda _: loss_of(model, batch), rate=0.05, resets=(50,), note=noted.append)
    assert loss_of(model, batch).detach() < 0.5 * before
    assert seconds > 0
    assert len(noted) == 1
    save(model, tmp_path / "trained", train_cpu_s=1.5)
    assert about(tmp_path / "trained") == {"train_cpu_s": 1.5}
    again = load_model(ModelConfig(path=str(tmp_path / "trained"), device="cpu"))
    assert torch.equal(again.model.norm.weight, model.model.norm.weight)
