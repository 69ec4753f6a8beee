"""The folder of reported faults, where it is at hand: every case that has a check comes out as wanted."""

from pathlib import Path

import faults
import pytest

ROOT = Path(__file__).resolve().parents[2] / "shared" / "faults"
FOUND = faults.cases(ROOT) if ROOT.is_dir() else {}
CHECKED = [name for name, path in FOUND.items() if name in faults.CASES or (path / "want.json").is_file()]


@pytest.mark.skipif(not ROOT.is_dir(), reason="the reported faults are not at ../shared/faults")
def test_the_cases_are_found() -> None:
    assert len(CHECKED) >= 30
    assert set(faults.CASES) <= FOUND.keys()


@pytest.mark.parametrize("name", CHECKED)
def test_a_reported_fault_is_mended(name: str) -> None:
    assert faults.run_case(name, FOUND[name]) == []
