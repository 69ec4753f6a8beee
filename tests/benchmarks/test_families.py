"""The families' page says what its rows say, a setting survives being stored, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import families_page
import pytest
from families_train import FAMILIES, N_ROWS, Setting, Size


def row(family: str, setting: str, accuracy: float, tokens: float, **more: Any) -> dict[str, Any]:
    shown = {
        "part": "reference", "family": family, "setting": setting, "about": "", "owners": 1, "train_cpu_s": 0.0,
        "n": 500, "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02, "tokens": tokens,
        "critical_tokens": tokens, "prompt_tokens": 60.0, "latency_s": 0.1, "to_original": None, "to_rival": None,
    }  # fmt: skip
    return {**shown, **more}


def lacking(part: str, rows: int, of: int) -> dict[str, Any]:
    return {"part": part, "rows": rows, "of": of}


def paired(difference: float, p: float) -> dict[str, Any]:
    return {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "p_value": p}


def test_the_page_has_every_row_and_what_is_missing() -> None:
    rival = {**paired(-0.5, 0.0001), "rival": "tokenskip γ = 0.5", "rival_tokens": 75.0}
    rows = [
        row("original", "whole chain", 0.97, 148.0),
        row("internalised", "gradual", 0.4, 0.0, to_original=paired(-0.59, 0.02), to_rival=rival),
    ]
    text = families_page.page({"n": 500, "rows": rows, "missing": [lacking("gist", 0, 2), lacking("parallel", 1, 3)]})
    assert "| original | whole chain | 97.0% | [95.0%, 99.0%]" in text
    assert "−59.0 [" in text
    assert "p = 0.020" in text
    assert "tokenskip γ = 0.5 (75 tokens)" in text
    assert "p < 0.001" in text
    assert "Gist tokens (0 of 2 rows); parallel steps (1 of 3 rows)." in text


def test_the_verdict_needs_intervals_that_are_apart() -> None:
    original = row("original", "whole chain", 0.97, 148.0)
    explicit, none = row("explicit", "short chain", 0.98, 49.0), row("internalised", "at once", 0.2, 0.0)
    between = [original, explicit, none, row("internalised", "gradual", 0.5, 0.0)]
    assert "above none: yes" in families_page.page({"n": 500, "rows": between, "missing": []})
    alike = [original, explicit, none, row("internalised", "gradual", 0.21, 0.0)]
    text = families_page.page({"n": 500, "rows": alike, "missing": []})
    assert "above none: **no**" in text
    assert "not apart from an answer without a chain" in text


def test_a_setting_survives_being_stored() -> None:
    setting = Setting(part="gist", family="gist", name="4 positions", about="", options={"k": 4}, visible=4.0)
    assert Setting.read({**setting.stored(), "prompt_tokens": 4.0}) == setting
    config = families.config_of(setting, Size(n=7))
    assert config.task.test_limit == 7
    assert config.evaluate.define["family"].weights == "base"


def test_every_part_is_on_the_page() -> None:
    assert set(FAMILIES) == set(families_page.PARTS) == set(N_ROWS)
    assert families.missing([row("gist", "4", 0.5, 9.0, part="gist")])[-1] == lacking("gist", 1, 2)


def test_an_unknown_part_is_named(capsys: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        families.main(["--only", "gists", "--out", str(tmp_path)])
    assert "unknown part 'gists' (did you mean 'gist'?)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_trial_runs_to_its_end(tmp_path: Path) -> None:
    families.main(["--limit", "8", "--out", str(tmp_path)])
    text = (tmp_path / "published" / "families.md").read_text(encoding="utf-8")
    assert "Not measured yet" not in text
    assert all(name in text for name in ("fork", "gradual", "8 thoughts", "16 positions", "2 left out"))
