"""Length protocols and sampling in the evaluation, and what several samples of a problem are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.arms import ARMS, Arm
from tokenskip.config import check_config, load_recipe
from tokenskip.errors import ConfigError
from tokenskip.evaluation.stats import clustered_wilson, wilson
from tokenskip.storage.store import read_rows
from tokenskip.types import Completion, Prompt, Sampling


class Coin:
    """Writes its cap and its seed; an even seed gets the answer right."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`."""
        return [self._complete(prompt, sampling) for prompt in prompts]

    def close(self) -> None:
        """Nothing to free."""

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        a, b = (int(word) for word in prompt.messages[-1]["content"].replace("?", "").split() if word.isdigit())
        cap = prompt.max_new_tokens or sampling.max_new_tokens
        text = f"cap {cap} seed {sampling.seed}\nThe final answer is {a + b + sampling.seed % 2}."
        return Completion(text=text, n_tokens=len(self.tokenizer(text)["input_ids"]))


def run(folder: Path, model_folder: Path, **evaluate: Any) -> tuple[Path, dict[str, Any]]:
    settings = {"arms": ["original", "marker_only", "prompt_lc", "truncation"], "ratios": [0.5], **evaluate}
    recipe_file = recipe(folder, model_folder, generate={"backend": "test_protocols:Coin"}, evaluate=settings)
    with pipeline.Run(folder / "run", load_recipe(recipe_file)) as a_run:
        pipeline.generate(a_run)
        pipeline.grade(a_run)
        pipeline.evaluate(a_run)
        pipeline.report(a_run)
    return folder / "run", json.loads((folder / "run" / "results.json").read_text())


def test_the_papers_protocol_shrinks_the_cap_of_what_carries_the_ratio(tmp_path: Path, model_folder: Path) -> None:
    path, results = run(tmp_path, model_folder, length="paper", latency_samples=0)
    caps = {arm["arm"]: (arm["length"], arm["token_cap"]) for arm in results["arms"]}
    assert caps == {
        "original": ("full", 160),
        "marker_only": ("paper", 80),
        "prompt_lc": ("full", 160),
        "truncation": ("paper", 80),
    }
    written = {row["output"].split()[1] for row in read_rows(path / "eval" / "marker_only-0.5.jsonl")}
    assert written == {"80"}
    assert any("The token cap of marker_only shrinks with the ratio" in text for text in results["warnings"])


def test_the_full_cap_is_the_default(tmp_path: Path, model_folder: Path) -> None:
    path, results = run(tmp_path, model_folder, latency_samples=0)
    assert {arm["length"] for arm in results["arms"] if arm["arm"] != "truncation"} == {"full"}
    assert {row["output"].split()[1] for row in read_rows(path / "eval" / "marker_only-0.5.jsonl")} == {"160"}
    assert not any("shrinks" in text for text in results["warnings"])


@pytest.mark.parametrize(
    ("arm", "run_says", "cap"),
    [
        (ARMS["tokenskip"], "full", 512),
        (ARMS["tokenskip"], "paper", 307),
        (ARMS["prompt_lc"], "paper", 512),
        (Arm(name="a", per_ratio=True, length="paper"), "full", 307),
        (ARMS["tokenskip"].model_copy(update={"length": "full"}), "paper", 512),
        (ARMS["truncation"], "full", 307),
    ],
)
def test_an_arm_may_say_its_own_cap(arm: Arm, run_says: str, cap: int) -> None:
    assert arm.token_cap(512, 0.6, run_says) == cap


def test_samples_are_rows_of_one_problem(tmp_path: Path, model_folder: Path) -> None:
    path, results = run(tmp_path, model_folder, samples=3, temperature=0.7, latency_samples=0)
    rows = list(read_rows(path / "eval" / "original.jsonl"))
    assert [(row["id"], row["sample"]) for row in rows] == [(f"p{i}", k) for k in range(3) for i in range(100, 110)]
    assert [row["output"].split()[3] for row in rows] == ["0"] * 10 + ["1"] * 10 + ["2"] * 10, "a seed a pass"
    original = results["arms"][0]
    assert (original["n"], original["n_problems"]) == (30, 10)
    assert original["accuracy"] == pytest.approx(2 / 3)  # seeds 0 and 2
    assert (original["accuracy_low"], original["accuracy_high"]) == pytest.approx(wilson(20, 30))


def test_the_worth_of_samples_by_hand() -> None:
    # means 1, .5, .5, 0: p = .5, variance over problems (.25 + .25) / 3 / 4 = 1/24, so .25 / (1/24) = 6 rows' worth
    assert clustered_wilson(np.array([1, 0.5, 0.5, 0]), 8) == pytest.approx(wilson(3, 6))
    # every problem the same each time: as many as problems
    assert clustered_wilson(np.array([1.0] * 30 + [0.0] * 30), 600) == pytest.approx(wilson(30, 60))
    # problems do not differ at all: every row counts
    assert clustered_wilson(np.array([0.5] * 10), 40) == pytest.approx(wilson(20, 40))
    # all right: no more certain than one sample each
    assert clustered_wilson(np.array([1.0] * 10), 40) == wilson(10, 10)
    assert clustered_wilson(np.array([]), 0) == (0.0, 1.0)


def test_its_intervals_hold_what_they_promise() -> None:
    """Of 400 draws with problems of different difficulty, about 95% of the intervals hold the truth."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        difficulty = rng.beta(1, 1, size=60)  # mean .5: the truth
        low, high = clustered_wilson(rng.binomial(4, difficulty) / 4, 240)
        inside += low <= 0.5 <= high
    assert 0.92 <= inside / 400 <= 0.98
    naive = sum(
        low <= 0.5 <= high
        for low, high in (wilson(int(rng.binomial(4, rng.beta(1, 1, size=60)).sum()), 240) for _ in range(400))
    )
    assert naive / 400 < 0.9, "as if rows were independent"


def test_several_samples_need_a_temperature() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.samples=4 needs evaluate\.temperature above 0"):
        check_config({"evaluate": {"samples": 4}}, "recipe")
