"""The benchmark's verdicts come from the rows of the run, and what it publishes is what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import headline
import pytest
from synthetic_results import results_of

from tokenskip import arms
from tokenskip.config import RunConfig
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.schema import Results, load_results
from tokenskip.storage.store import RunFolder, dump_row, trajectory_row
from tokenskip.types import Grade, Trajectory

ROOT = Path(__file__).resolve().parents[2]
N = 1000
ARMS: dict[str, tuple[str, float | None, int, int]] = {  # label: arm, ratio, solved, tokens
    "original": ("original", None, 990, 100),
    "tokenskip-1.0": ("tokenskip", 1.0, 990, 100),
    "tokenskip-0.6": ("tokenskip", 0.6, 986, 62),
    "tokenskip-0.5": ("tokenskip", 0.5, 960, 54),
    "truncation-0.6": ("truncation", 0.6, 100, 60),
    "random_matched-0.6": ("random_matched", 0.6, 700, 60),
}


def rows_of(solved: int, n_tokens: int) -> list[Trajectory]:
    return [
        Trajectory(
            id=f"p{i}",
            question="q",
            gold="1",
            cot="c",
            n_tokens=n_tokens,
            n_cot_tokens=n_tokens,
            grade=Grade(correct=i < solved, reason=""),
        )
        for i in range(N)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "eval").mkdir()
    for label, (_, _, solved, n_tokens) in ARMS.items():
        lines = (dump_row(trajectory_row(row)) for row in rows_of(solved, n_tokens))
        (tmp_path / "eval" / f"{label}.jsonl").write_text("".join(lines))
    return RunFolder(tmp_path, RunConfig())


@pytest.fixture
def results() -> Results:
    original = rows_of(*ARMS["original"][2:])
    rows = [summarise_arm(arms.ARMS[arm], ratio, rows_of(*size), original) for arm, ratio, *size in ARMS.values()]
    problem = {"question": "q", "gold": "1", "level": None, "arms": {}}
    return results_of(
        rows,
        funnel=({"reason": "generated", "count": 1000},),
        warnings=("One thing.",),
        problems=tuple({"id": f"p{i}", **problem} for i in range(200)),
    )


def test_each_target_is_judged_by_the_rows(folder: RunFolder, results: Results) -> None:
    found = headline.targets(folder, results)
    assert [one.met for one in found] == [True, True, False, None, False, True, True, True]
    assert found[1].value.startswith("−0.4 points")
    assert "4 lost, 0 gained" in found[1].value
    assert found[4].value == "at most 0.040, on average 0.020, at 3 ratios"
    assert found[5].value == "at all 3 ratios"


def test_ratios_that_are_near_but_in_disorder(folder: RunFolder, results: Results) -> None:
    arms = [one for one in results.arms if one.arm == "tokenskip"]
    shorter = arms[1].model_copy(update={"achieved_ratio": 0.53})
    found = headline.targets(folder, results_of((results.arms[0], arms[0], shorter, arms[2])))
    assert found[5].met is False
    assert found[5].value == "0.540 at 0.5, 0.530 at 0.6"


def test_an_arm_that_was_not_run_is_not_called_met(folder: RunFolder, results: Results) -> None:
    folder.file("eval/random_matched-0.6.jsonl").unlink()
    found = headline.targets(folder, results_of(results.arms[:1]))
    assert found[-1].met is None
    assert found[4].met is None


def test_publishing_twice_gives_the_same_files(folder: RunFolder, results: Results, tmp_path: Path) -> None:
    for name in headline.IMAGES:
        (folder.path / name).write_bytes(b"png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "README.md").write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    found = headline.targets(folder, results)
    headline.publish(folder.path, results, found, root)
    once = (root / "README.md").read_text()
    headline.publish(folder.path, results, found, root)
    assert (root / "README.md").read_text() == once
    assert once.startswith("before\n")
    assert "old" not in once
    assert "5 of 8 targets" in once
    saved = json.loads((root / "docs/results/embedded.json").read_text())
    assert len(saved["problems"]) == headline.N_PROBLEMS
    assert len(saved["targets"]) == 8
    assert load_results(root / "docs/results/embedded.json").arms == results.arms
    assert "**not met**" in (root / "docs/results/embedded.md").read_text()


def test_the_shipped_adapter_names_the_embedded_model(results: Results, tmp_path: Path) -> None:
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/someone/model", "r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    target = tmp_path / "shipped"
    assert headline.ship(tmp_path / "run", results, RunConfig(), target) > 0
    assert json.loads((target / "adapter_config.json").read_text()) == {"base_model_name_or_path": "embedded", "r": 8}
    assert (target / "adapter_model.safetensors").read_bytes() == b"weights"
    assert "tokenskip ask" in (target / "README.md").read_text()
