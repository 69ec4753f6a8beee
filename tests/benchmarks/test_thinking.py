"""The stand-in for a thinking model: its thoughts are true and end, and the page says what the rows say."""

from __future__ import annotations

import random
from typing import Any

import pytest
import thinking

from tokenskip.config import PromptConfig
from tokenskip.embedded.family import stories
from tokenskip.generation.split import split_completion
from tokenskip.pruning.equations import equations


def test_a_thought_is_closed_true_and_of_many_lengths() -> None:
    lengths = []
    for story in stories("dev", 40):
        texts = [thinking.thought(story, random.Random(seed)) for seed in range(4)]
        for text in texts:
            parts = split_completion(text, "stop", PromptConfig(answer="think"))
            assert parts.reason is None
            assert "[" not in text
            assert parts.tail.endswith(f"The final answer is {story.answer}.")
            stated = [str(equation) for equation in equations(parts.cot)]
            assert set(stated) == {event.equation for event in story.events}, "nothing false, nothing left out"
            lengths.append(len(parts.cot.splitlines()) / len(story.events))
    assert min(lengths) <= 2
    assert max(lengths) >= 3


def row(recipe: str, arm: str, ratio: float | None, accuracy: float) -> dict[str, Any]:
    return {"recipe": recipe, "arm": arm, "ratio": ratio, "n": 100, "accuracy": accuracy, "cot_tokens_mean": 90.4,
            "achieved_ratio": 0.61}  # fmt: skip


def test_the_page_has_every_row_and_an_example() -> None:
    rows = [
        row("prune", "original", None, 0.98),
        row("prune", "tokenskip", 0.6, 0.9),
        row("own", "tokenskip", 0.6, 0.95),
    ]
    against = [{"recipe": "own", "ratio": 0.6, "gained": 7, "lost": 2, "p": 0.0898}]
    text = thinking.page({"rows": rows, "chosen": {"own": {"0.6": 1234}}, "against": against})
    assert "| `own` | 0.6 | 95.0% | 90 | 0.61 | 1,234 |" in text
    assert "| `own` | 0.6 | 7 / 2 | 0.090 |" in text
    assert "- `own`: 0.61 to 0.61 of the thought for a γ of 0.6 to 0.6; off by 0.01 at most" in text
    assert "98.0% of 100 held-out problems" in text
    assert "</think>" in text


def test_an_unknown_recipe_is_named(capsys: Any, tmp_path: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        thinking.main(["--only", "prun", "--out", str(tmp_path)])
    assert "unknown recipe 'prun' (did you mean 'prune'?)" in capsys.readouterr().err
