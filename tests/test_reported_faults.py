"""The folder of reported faults, where it is at hand: every case has a check and comes out as wanted."""

from pathlib import Path

import faults
import pytest
from reported import measuring

ROOT = Path(__file__).resolve().parents[2] / "shared" / "faults"
FOUND = faults.cases(ROOT) if ROOT.is_dir() else {}
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="the reported faults are not at ../shared/faults")


def test_every_case_has_a_check() -> None:
    unchecked = [
        name for name, path in FOUND.items() if name not in faults.CASES and not (path / "want.json").is_file()
    ]
    assert FOUND
    assert not unchecked
    assert set(faults.CASES) <= FOUND.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in faults.SLOW else [])
        for name in FOUND
        if name not in measuring.CASES  # these are tests of their own
    ],
)
def test_a_reported_fault_is_mended(name: str) -> None:
    assert faults.run_case(name, FOUND[name]) == []
