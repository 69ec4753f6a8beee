"""The speed benchmarks run on a tiny shape, and what they compare comes out equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def result_of(main: Any, file: Path, *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json", str(file)])
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def test_generation_says_the_same_as_the_official_loop(tmp_path: Path) -> None:
    import generation

    result = result_of(generation.main, tmp_path / "r.json", "--shape", "tiny", "-n", "20", "--max-new-tokens", "6")
    assert result["identical"]
    assert result["same_texts"] == 20
    assert result["speedup"] > 0


def test_both_trainings_learn_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    import train_speed

    losses = []
    for name in ("before", "float32"):
        train_speed.main(["--shape", "tiny", "--measure", name, "--steps", "2"])
        measured = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert measured["tokens_per_s"] > 0
        assert measured["peak_rss_mib"] > 50
        losses.append(measured["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_script_for_a_card_runs_on_a_cpu(tmp_path: Path) -> None:
    import gpu

    result = result_of(gpu.main, tmp_path / "r.json", "--tiny", "--device", "cpu")
    assert set(result["rates"]["tiny"]) == {"generate", "score", "train_lora", "train_full"}
    assert all(rate > 0 for rate in result["rates"]["tiny"].values())
    assert not result["skipped"]
