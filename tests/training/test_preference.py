"""The control that prefers the model's own short answers: which pairs it learns from, and that it trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import ChainBackend, recipe

from tokenskip import pipeline
from tokenskip.candidates.pool import Candidate, Question
from tokenskip.config import load_recipe
from tokenskip.errors import StageError
from tokenskip.storage.store import read_rows
from tokenskip.training.controls import train_preference
from tokenskip.training.preference import pair_of
from tokenskip.types import Trajectory

EVALUATE = {"arms": ["original", "preference"], "latency_samples": 0}


class Terse(ChainBackend):
    """The scripted model, which is short where it is asked to be."""

    def _complete(self, prompt: Any) -> Any:
        done = super()._complete(prompt)
        if "Be concise." not in prompt.messages[-1]["content"] or done.finish != "stop":
            return done
        answer = done.text.rpartition("The final answer is ")[2]
        return replace(done, text=f"It is {answer}\n\nThe final answer is {answer}")


def text(n: int, dropped: str | None = None) -> Trajectory:
    return Trajectory(id="q", question="?", gold="1", output=f"text of {n}", n_cot_tokens=n, dropped=dropped)


@pytest.mark.parametrize(
    ("chains", "candidates", "expected"),
    [
        ([100, 60], [], ("text of 60", "text of 100")),
        ([100], [40, 70], ("text of 40", "text of 100")),
        ([100], [81], None),
        ([100], [], None),
    ],
)
def test_a_pair_is_the_shortest_and_the_longest(chains: list[int], candidates: list[int], expected: Any) -> None:
    pool = [Candidate("sample", text(n)) for n in candidates]
    assert pair_of(Question([text(n) for n in chains], pool)) == expected


def test_wrong_answers_are_in_no_pair() -> None:
    wrong = Candidate("sample", text(20, "incorrect"))
    assert pair_of(Question([text(100)], [wrong])) is None
    assert pair_of(Question([text(100), text(50, "incorrect")], [Candidate("sample", text(20))])) is None


def test_without_short_answers_it_is_one_line(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, evaluate=EVALUATE)
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run:
        pipeline.generate(run)
        pipeline.grade(run)
        with pytest.raises(StageError, match=r"needs questions with a short and a long right answer.*sample or"):
            train_preference(run)


@pytest.mark.slow
def test_it_learns_from_what_the_model_wrote_itself(tmp_path: Path, model_folder: Path) -> None:
    sources = {"prune": {}, "skip_steps": {}, "on_policy": {}, "prompt": {"instructions": ["be_concise"]}}
    candidates = {"sources": sources, "prefer": "nearest", "tolerance": 0.5}
    recipe_file = recipe(tmp_path, model_folder, evaluate=EVALUATE, candidates=candidates,
                         train={"scheduler": "warmup_stable_decay"})  # fmt: skip
    overrides = ["generate.backend=test_preference:Terse"]
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file, overrides)) as run:
        for stage in ("generate", "grade", "score", "prune", "candidates"):
            pipeline.STAGES[stage](run)
        train_preference(run)
        train_preference(run)
    pairs = list(read_rows(tmp_path / "run" / "control-preference" / "pairs.jsonl"))
    assert len(pairs) == 17
    assert all(pair["chosen"].startswith("It is ") for pair in pairs), "no cut of a chain"
    assert all(pair["rejected"].startswith("Step 1") for pair in pairs)
    assert (tmp_path / "run" / "control-preference" / "adapter" / "adapter_model.safetensors").exists()
