"""How many tokens of a chain are gone at every update, and that the answer never is."""

from __future__ import annotations

import random

from tokenskip.baselines.internalise import LAST_STAGE, PER_STAGE, more, removed, without
from tokenskip.baselines.rows import Solved

SOLVED = Solved(prompt=[1, 2], steps=[[3, 4, 5], [6, 7]], answer=[8, 9])


def test_the_chain_goes_from_the_left_in_stages_until_nothing_is_left() -> None:
    gone = [removed(step, 200, 31, "gradual") for step in range(200)]
    assert gone[0] == 0
    assert gone == sorted(gone)
    assert set(gone) == {*range(0, 31, PER_STAGE), 31}
    assert gone[int(LAST_STAGE * 200)] == 31, "the rest of the training is on the answer alone"
    assert gone[int(LAST_STAGE * 200) - 1] < 31


def test_the_two_references_take_all_or_nothing() -> None:
    assert {removed(step, 50, 31, "explicit") for step in range(50)} == {0}
    assert {removed(step, 50, 31, "at_once") for step in range(50)} == {31}


def test_what_goes_is_the_left_of_the_chain_and_never_the_answer() -> None:
    whole, some, none = (without(SOLVED, n) for n in (0, 2, 99))
    assert whole.ids == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert some.ids == [1, 2, 5, 6, 7, 8, 9]
    assert none.ids == [1, 2, 8, 9]
    assert none.labels == [-100, -100, 8, 9]


def test_removal_is_smoothed_now_and_then() -> None:
    rng = random.Random(0)
    extra = [more(rng) for _ in range(5000)]
    assert 0.01 < sum(one > 0 for one in extra) / 5000 < 0.03, "exp(-4) = 1.8%"
