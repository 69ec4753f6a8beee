"""What a run folder sums up to: bounded where chains are long, whole in its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_runs import recipe

from tokenskip.config import load_recipe
from tokenskip.evaluation import results as summing
from tokenskip.evaluation.schema import load_results
from tokenskip.report.page import write_report
from tokenskip.run import Run
from tokenskip.storage.store import RunFolder, dump_row, trajectory_row
from tokenskip.types import Grade, Trajectory

N = 160
LONG = "".join(f"Step {i}: {i} + {i} = {2 * i}, and so it goes on and on. " for i in range(900))


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Iterator[RunFolder]:
    """A run whose outputs have 45,000 characters each: 14 MB in all."""
    file = recipe(
        tmp_path, model_folder, evaluate={"arms": ["original", "marker_only"], "ratios": [0.5], "latency_samples": 0}
    )
    with Run(tmp_path / "run", load_recipe(file)) as run:
        for name in ("original", "marker_only-0.5"):
            rows = (
                Trajectory(
                    id=f"p{i}",
                    question=f"How many is {i}?",
                    gold=str(i),
                    output=LONG,
                    cot=LONG,
                    n_tokens=40_000,
                    n_cot_tokens=40_000,
                    grade=Grade(correct=None if i == 7 else i % 3 == 0, reason="no answer" if i == 7 else ""),
                )
                for i in range(N)
            )
            target = run.folder.file(f"eval/{name}.jsonl")
            target.parent.mkdir(exist_ok=True)
            target.write_text("".join(dump_row(trajectory_row(row)) for row in rows), encoding="utf-8")
        (run.folder.path / "trajectories.jsonl").write_text("", encoding="utf-8")
        (run.folder.path / "completions.jsonl").write_text("", encoding="utf-8")
        yield run.folder


def test_a_report_of_very_long_chains_is_a_page_that_opens(folder: RunFolder) -> None:
    results = summing.write_results(folder)
    assert results == load_results(folder.path)
    original = results.arms[0]
    assert (original.n, original.cot_tokens_mean) == (N, 40_000), "the numbers are of all"
    assert original.accuracy == pytest.approx(len(range(0, N, 3)) / N)
    assert original.ungradable_reasons == {"no answer": 1}
    assert 100 <= len(results.problems) < N
    shown = results.problems[0].arms["original"].output
    assert shown.startswith(LONG[: summing.OUTPUT_CHARS])
    assert shown.endswith(f" … ({len(LONG) - summing.OUTPUT_CHARS:,} more characters)")
    page = write_report(folder.path)
    assert page.stat().st_size < 10_000_000
    assert (folder.path / "results.json").stat().st_size < 10_000_000


def test_a_very_long_training_chain_is_drawn_in_part(tmp_path: Path) -> None:
    from synthetic_results import arm_result, results_of

    from tokenskip.evaluation.schema import Sample
    from tokenskip.report.pictures import draw_example

    for cot in (LONG[:8_000], "\n" * 8_000, "x" * 8_000, "汤姆" * 4_000):
        sample = Sample(
            id="a",
            question=LONG,
            gold="1",
            cot=cot,
            n_chars_left_out=len(LONG) - 8_000,
            kept_by_ratio={"0.5": ((0, 4_000),)},
            importance=((0, 8_000, 1.0),),
        )
        draw_example(results_of([arm_result("original", None)], samples=(sample,)), tmp_path / "example.png")
        assert (tmp_path / "example.png").stat().st_size > 1_000
