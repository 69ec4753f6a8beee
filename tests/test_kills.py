"""Killed at any moment of any stage, a run ends in the same bytes and repeats no more than what was in flight."""

from __future__ import annotations

from pathlib import Path

import pytest
from killing import SAVE_STEPS, STAGES, WINDOWS, survive


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_at_seeded_moments_of_every_stage(tmp_path: Path, model_folder: Path) -> None:
    found = survive(tmp_path, model_folder, seed=0)
    kills = found["kills"]
    assert sum(kills.values()) >= 20
    assert all(kills[stage] for stage in STAGES), kills
    assert found["differing"] == []
    assert (found["rows_lost"], found["rows_doubled"]) == (0, 0)
    lost_steps = found["again"].pop("steps")
    assert 0 <= lost_steps <= kills["train"] * SAVE_STEPS
    assert all(again >= 0 for again in found["again"].values())
    in_flight = sum(kills[stage] * rows for stage, rows in WINDOWS.items())
    assert sum(found["again"].values()) <= in_flight  # of each kill the window in flight, and nothing else
