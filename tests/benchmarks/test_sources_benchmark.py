"""The page of the sources' benchmark says what its rows say, and the verdict finds the arm that is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sources

from tokenskip.types import Grade, Trajectory


def written(pattern: str) -> list[Trajectory]:
    """Completions that are right where `pattern` has a 1."""
    return [
        Trajectory(id=str(k), question="?", gold="1", grade=Grade(correct=mark == "1", reason=""))
        for k, mark in enumerate(pattern)
    ]


def row(arm: str, tokens: float, ratio: float | None = None, **more: Any) -> dict[str, Any]:
    shown = {"n": 10, "accuracy": 0.5, "achieved_ratio": 0.4}
    return {"recipe": "splice", "seed": 0, "arm": arm, "ratio": ratio, "cot_tokens_mean": tokens, **shown, **more}


def test_the_verdict_is_the_surest_arm_with_as_few_tokens() -> None:
    ours = row("tokenskip", 50.0, 0.5), written("0000011111")
    better, worse = written("1111111111"), written("0000001111")
    others = [(row("concise", 40.0), better), (row("longer", 60.0), better), (row("worse", 30.0), worse)]
    found = sources.verdict(*ours, others)
    assert (found["arm"], found["gained"], found["lost"]) == ("concise", 5, 0)
    assert found["p"] == pytest.approx(1 / 32, abs=1e-4)
    assert not found["met"]
    assert sources.verdict(*ours, others[1:])["met"]
    assert sources.verdict(*ours, others[1:2])["arm"] is None, "an arm with more tokens says nothing"
    assert sources.one_sided(0, 0) == 1


def test_the_page_has_every_row() -> None:
    info = {"missing": {"0.5": 3}, "sources": {"prune": {"won": {"0.5": 7}}, "prompt": {"won": {}}}}
    rows = [row("prompt_be_concise", 40.0, seed=None), row("tokenskip", 50.0, 0.5), row("random_matched", 50.0, 0.5)]
    verdicts = [sources.verdict(rows[1], written("01"), [(rows[0], written("11"))])]
    spent = {"recipe": "splice", "seed": 0, "candidates": 1.0, "train": 2.0, "rounds": 0.0, "grpo": 0.0}
    text = sources.page(
        {
            "n": 10,
            "ratios": [0.5],
            "rows": rows,
            "verdicts": verdicts,
            "pools": {"splice": info},
            "train": 7,
            "cpu_seconds": [spent],
        }
    )
    assert "| `splice` | 0 | 50.0% / 0.40 |" in text
    assert "| `prompt_be_concise` | – | 50.0% | 40.0 | 0.400 |" in text
    assert "| `splice` | 0 | 0.5 | `prompt_be_concise` | 1 / 0 | 0.500 | yes |" in text
    assert "| `prompt` | 0 |" in text
    assert "| `splice` | 0 | 1 | 2 | – | – |" in text
    assert "| no candidate | 3 |" in text


def test_an_unknown_recipe_is_named(capsys: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        sources.main(["--only", "splic", "--out", str(tmp_path)])
    assert "unknown recipe 'splic' (did you mean 'splice'?)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_trial_runs_whole_and_again_without_work(monkeypatch: Any, tmp_path: Path) -> None:
    trial = ["--limit", "8", "--seeds", "0", "--only", "round", "--out", str(tmp_path)]
    sources.main(trial)
    found = json.loads((tmp_path / "published/sources.json").read_text(encoding="utf-8"))
    assert {one["arm"] for one in found["rows"]} >= {"original", "tokenskip", "random_matched", "prompt_draft"}
    assert {one["recipe"] for one in found["rows"]} == {"none", "splice", "round"}, "a round begins with the pool"
    assert {"recipe", "seed", "arm", "ratio", "n", "accuracy", "cot_tokens_mean", "achieved_ratio"} == set(
        found["rows"][0]
    )
    assert len(found["verdicts"]) == 2 * len(sources.RATIOS)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr("tokenskip.plugins.load_model", again)
    monkeypatch.setattr("tokenskip.training.train.load_model", again)
    sources.main(trial)
