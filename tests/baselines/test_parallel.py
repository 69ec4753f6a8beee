"""Branches do not see each other, the join sees all, and the critical path counts the longest branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_llama import embedded_prompts, random_llama

from tokenskip.baselines import parallel
from tokenskip.baselines.rows import collate
from tokenskip.embedded import owners
from tokenskip.prompting.prompts import Prompts
from tokenskip.types import Problem, Sampling

CHAIN = "Tom, Anna\nTom: 12 + 3 = 15, 15 * 2 = 30\nAnna: 5 + 4 = 9\nSo 30 + 9 = 39"
PROBLEM = Problem(id="a", question="How many?", gold="39", solution=f"{CHAIN}\n\nThe final answer is 39.")


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


@pytest.fixture
def model() -> Any:
    return random_llama()


@pytest.fixture
def forked(prompts: Prompts) -> parallel.Forked:
    return parallel.fork(PROBLEM, prompts)


def spans(one: parallel.Forked) -> list[slice]:
    """Where each branch is in the row."""
    at, found = len(one.prompt) + len(one.plan), []
    for branch in one.branches:
        found.append(slice(at, at + len(branch)))
        at += len(branch)
    return found


def logits_of(model: Any, row: Any) -> Any:
    batch = collate([row], pad=0)
    with torch.no_grad():
        return model(input_ids=batch.ids, attention_mask=batch.visible, position_ids=batch.positions).logits[0]


def test_the_pieces_are_the_ids_of_the_text(forked: parallel.Forked, prompts: Prompts) -> None:
    assert forked.text == prompts.completion_ids(PROBLEM.solution or "")
    assert [prompts.tokenizer.decode(b[:n]) for b, n in zip(forked.branches, forked.n_given, strict=True)] == [
        "Tom:", "Anna:",
    ]  # fmt: skip


def test_branches_are_hidden_from_each_other_and_the_join_sees_both(model: Any, forked: parallel.Forked) -> None:
    first, second = spans(forked)
    row = parallel.fork_row(forked)
    changed = list(row.ids)
    changed[first.start + 3] += 1
    before, after = logits_of(model, row), logits_of(model, row._replace(ids=changed))
    assert torch.equal(before[second], after[second])
    assert not torch.allclose(before[second.stop :], after[second.stop :])
    assert not torch.allclose(before[first][3:], after[first][3:])


def test_branches_begin_together_and_the_join_behind_the_longest(forked: parallel.Forked) -> None:
    places = parallel.fork_row(forked).positions
    assert places is not None
    first, second = spans(forked)
    assert places[first.start] == places[second.start] == places[first.start - 1] + 1
    assert places[second.stop] == places[first.start] + max(map(len, forked.branches))


def test_what_is_given_is_not_learned(forked: parallel.Forked, prompts: Prompts) -> None:
    labels = parallel.fork_row(forked).labels
    learned = prompts.tokenizer.decode([token for token in labels if token >= 0])
    assert learned == CHAIN.replace("\nTom:", "\n").replace("\nAnna:", "\n").replace("\nSo", "\n") + (
        "\n\nThe final answer is 39.<|im_end|>"
    )


def test_a_branch_alone_reads_as_it_does_beside_others(model: Any, forked: parallel.Forked) -> None:
    _, second = spans(forked)
    alone = forked._replace(branches=forked.branches[1:], n_given=forked.n_given[1:])
    whole, part = logits_of(model, parallel.fork_row(forked)), logits_of(model, parallel.fork_row(alone))
    assert torch.allclose(whole[second], part[spans(alone)[0]], atol=1e-5)


def test_the_join_goes_on_from_the_state_that_was_trained(
    model: Any, forked: parallel.Forked, prompts: Prompts
) -> None:
    backend = parallel.ForkBackend(model, prompts.tokenizer)
    with torch.no_grad():
        # a second, longer row in the batch: padding on the left must change nothing
        state = backend._joined([forked.prompt, [3] * 90], [forked.plan, [4]], [forked.branches, [[5, 6]]])
    row = parallel.fork_row(forked)
    at = len(row.ids) - len(forked.join)  # the join's first word, which is given
    assert torch.allclose(state.logits[0], logits_of(model, row)[at], atol=1e-4)
    assert row.positions is not None
    assert int(state.positions[0]) == row.positions[at] + 1


def test_the_backend_forks_by_the_plan(model: Any, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is scripted, since a random model names nobody; all else is the backend's own."""
    made = parallel.greedy
    calls: list[int] = []

    def planned(model: Any, state: Any, cap: int, stops: Any) -> list[list[int]]:
        calls.append(len(state.mask))
        return [prompts.ids("Tom, Anna\n") for _ in state.mask] if len(calls) % 3 == 1 else made(model, state, 6, stops)

    monkeypatch.setattr(parallel, "greedy", planned)
    backend = parallel.ForkBackend(model, prompts.tokenizer)
    [one, two] = backend.generate([prompts.prompt("How many?")] * 2, Sampling(max_new_tokens=6))
    assert calls == [2, 4, 2], "two plans, the branches of both as one batch, two joins"
    assert one.text == two.text
    lines = one.text.split("\n")
    assert lines[0] == "Tom, Anna"
    assert lines[1].startswith("Tom:")
    assert any(line.startswith("Anna:") for line in lines)
    assert any(line.startswith("So") for line in lines)


def test_the_critical_path_has_the_longest_branch_only(prompts: Prompts) -> None:
    def count(text: str) -> int:
        return len(prompts.ids(text))

    shorter = count("Anna: 5 + 4 = 9\n")
    assert parallel.critical_tokens(CHAIN, count) == count(CHAIN) - shorter
    assert parallel.critical_tokens("12 + 3 = 15", count) == count("12 + 3 = 15")


def test_every_story_of_several_owners_can_be_forked(prompts: Prompts) -> None:
    for problem in owners.problems("dev", 40, most=3):
        one = parallel.fork(problem, prompts)
        assert one.text == prompts.completion_ids(problem.solution or "")
        assert len(one.branches) == int(problem.level or 0)
