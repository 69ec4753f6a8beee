"""The benchmark on SmolLM2: its parts' configurations, and its page from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import smollm2
from smollm2_page import page, readme_section

from tokenskip.storage.store import read_rows


def test_every_part_has_a_configuration_and_small_ones_are_a_third(tmp_path: Path) -> None:
    bench = smollm2.Bench(tmp_path, smollm2.SIZES["small"], None)
    configs = {part: bench.config(part) for part in smollm2.PARTS}
    assert configs["teach"].generate.source == "solutions"
    assert configs["stories"].model.path == str(tmp_path / "taught")
    assert configs["gsm8k"].model.path == str(tmp_path / "gsm8k-taught")
    assert configs["random"].score.scorer == "random"
    assert configs["surprisal"].task.train_limit == configs["stories"].task.train_limit // 3
    assert configs["paper"].train.learning_rate == 5e-5
    assert (configs["paper"].prompt.template, configs["paper"].prompt.answer) == ("{question}", "trigger")


def test_taught_stories_are_wordy_and_no_held_out_one_is_among_them(tmp_path: Path) -> None:
    smollm2.Bench(tmp_path, smollm2.SIZES["small"], None).config("teach")
    train, test = (list(read_rows(tmp_path / f"stories-{split}.jsonl")) for split in ("train", "test"))
    assert len(train) == 2000
    assert not {row["question"] for row in train} & {row["question"] for row in test}
    assert all(f"The final answer is {row['gold']}." in row["solution"] for row in train)
    assert min(len(row["solution"]) for row in train) > 150


def test_page_has_a_table_per_part() -> None:
    row = {"task": "stories", "recipe": "stories", "seed": 0, "n": 60, "accuracy": 0.5, "accuracy_low": 0.4}
    row |= {"accuracy_high": 0.6, "difference": None, "cot_tokens_mean": 90.0, "achieved_ratio": 0.61}
    paired = {"difference": -0.1, "difference_low": -0.2, "difference_high": 0.0}
    part: dict[str, Any] = {"task": "stories", "recipe": "stories", "seed": 0, "train_limit": 150, "steps": None}
    part["train"] = {"batch_size": 8, "rank": 10, "learning_rate": 2e-3, "scheduler": "linear"}
    rows = [{**row, "arm": "original", "ratio": None}, {**row, **paired, "arm": "tokenskip", "ratio": 0.5}]
    rows.append({**row, **paired, "arm": "truncation", "ratio": 0.6})
    found = {"parts": [part], "rows": rows}
    text = page(found)
    assert "| stories | stories | 0 | 150 | not finished | 8 | 10 | 0.002 | linear |" in text
    assert "n = 60 held-out problems" in text
    line = "| tokenskip | 0.5 | 0.61 | 90.0 | 50.0% [40.0%, 60.0%] | -10.0 [-20.0, +0.0] |"
    assert line in text.replace("−", "-")
    assert "What was promised" not in text, "no target is judged by so few problems"
    text = page({"parts": [part], "rows": [{**row, "n": 500} for row in rows]})
    assert "γ = 0.5 loses at most 3 points: **not met**" in text
    assert "every achieved ratio is within 0.03 of γ: **not met** (0.110 at most)" in text
    assert "truncation at .6 loses at least 40 points: **not met**" in text
    shown = readme_section(found)
    assert "LoRA (r 10) on its own chains of 150" in shown
    assert "| `tokenskip` | 0.5 | 50.0% [40.0%, 60.0%] | 90.0 | 0.61 |" in shown
    assert "| `truncation` | 0.6 |" in shown
