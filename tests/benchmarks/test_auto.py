"""benchmarks/auto.py: policies by hand, against fixed ratios at equal tokens."""

from __future__ import annotations

from typing import Any

import auto
import numpy as np
import pytest

from tokenskip.config import PAPER_RATIOS


def rows(n: int = 200, *, seen: bool) -> list[dict[str, Any]]:
    """Easy problems are right at any ratio, hard ones at 1 only; `seen`: the question's length tells them apart."""
    made = []
    for i in range(n):
        hard = i % 4 > 1
        words = (30 if hard else 10) if seen else 10 + i // 4 % 20
        made.append(
            {
                "id": f"p{i}",
                "question": "word " * words + ".",
                "level": "3",
                "right": [not hard] * 5 + [True],
                "tokens": [round(100 * ratio) for ratio in PAPER_RATIOS],
            }
        )
    return made


def test_a_difficulty_that_can_be_seen_pays() -> None:
    text, pays = auto.page(auto.measured(rows(seen=True)))
    assert pays
    assert "| length of the question (5 classes) | 75% | 0.5, 1.0 | 75.0 | 100.0% | 50.0% (0.7 / 0.8) | +50.0 [" in text


def test_a_difficulty_that_cannot_be_seen_does_not() -> None:
    text, pays = auto.page(auto.measured(rows(seen=False)))
    assert not pays
    assert 'so γ="auto" is left out' in text
    assert "| oracle (shortest right answer) | – | per problem | 75.0 | 100.0% |" in text


def test_a_fixed_ratio_between_two_is_a_coin() -> None:
    data = auto.measured(rows(seen=True))
    mixed, between = auto.fixed_at(data, 95.0)
    assert between == "0.9 / 1.0"
    assert np.unique(mixed).tolist() == pytest.approx([0.5, 1.0])  # a hard one is right where the coin says 1
    assert auto.fixed_at(data, 10.0)[1] == "0.5"
    assert auto.fixed_at(data, 500.0)[1] == "1.0"


def test_no_policy_spends_more_than_its_budget() -> None:
    data = auto.measured(rows(seen=True))
    for name, classes in data.classes.items():
        for budget in (50.0, 60.0, 80.0, 100.0):
            policy = auto.fit(data, classes, budget)
            spent = np.mean([data.tokens[i, policy[one]] for i, one in enumerate(classes)])
            assert spent <= budget, name
