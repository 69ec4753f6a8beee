"""The cost model: linear where it should be, and the table of the page is the one that the code prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reliability
import scale
from pages import fill

from tokenskip.commands.estimate import Rates, Workload, count_parameters, estimate, line, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def test_twice_the_trajectories_cost_twice_but_for_the_evaluation() -> None:
    one, two = (estimate(Workload(n_train=n)) for n in (1000, 2000))
    for stage in ("generate", "score", "train"):
        assert two.gpu_hours[stage] == pytest.approx(2 * one.gpu_hours[stage])
    assert two.gpu_hours["evaluate"] == one.gpu_hours["evaluate"]
    assert one.wall_hours(8) == pytest.approx(one.wall_hours(1) / 8)
    assert estimate(Workload(n_train=1000), Rates(dollars_per_gpu_hour=5)).dollars == pytest.approx(2 * one.dollars)


def test_the_arithmetic_by_hand() -> None:
    """1,000 chains of 350 tokens, 2 x 8e9 FLOP each, at 12% of 989 TFLOP/s."""
    assert estimate(Workload(n_train=1000)).gpu_hours["generate"] == pytest.approx(
        1000 * 350 * 1.6e10 / (0.12 * 989e12) / 3600
    )
    lora, full = (estimate(Workload(n_train=1000, train_passes=passes)).gpu_hours["train"] for passes in (3, 4))
    assert full == pytest.approx(lora * 4 / 3)


def test_parameters_are_counted_in_the_headers(model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    assert count_parameters(model_folder) == sum(one.numel() for one in model.parameters())
    assert count_parameters(tmp_path) == 0
    assert line(Workload(n_train=7473)).startswith("estimate for 8B parameters: ")


def test_the_page_has_the_table_that_the_code_prints() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "run python -m tokenskip.commands.estimate for it"


def test_the_page_of_reliability_shows_what_was_measured() -> None:
    result = json.loads((PAGE.parent / "results" / "scale.json").read_text(encoding="utf-8"))
    page = (PAGE.parent / "reliability.md").read_text(encoding="utf-8")
    assert fill(page, "scale", scale.markdown(result)) == page
    assert result["peak_rss_mib"] < 1024
    seconds = sum(1 / result["rows_per_cpu_s"][stage] for stage in ("grade", "score", "prune"))
    assert Rates().cpu_rows_per_s == round(1 / seconds)


def test_the_page_of_reliability_shows_what_was_counted() -> None:
    result = json.loads((PAGE.parent / "results" / "reliability.json").read_text(encoding="utf-8"))
    page = (PAGE.parent / "reliability.md").read_text(encoding="utf-8")
    assert fill(page, "measured", reliability.markdown(result)) == page
    killed = result["kills"]
    assert sum(killed["by_stage"].values()) >= 20
    assert killed["rows_lost"] == killed["rows_doubled"] == killed["files_differing"] == 0


def test_the_benchmark_runs_the_real_stages(tmp_path: Path) -> None:
    result = scale.measure(60, tmp_path)
    assert set(result["rows_per_s"]) == {"grade", "score", "prune", "dataset"}
    assert result["peak_rss_mib"] > 0
    assert 0 < result["training_rows"] <= 60
