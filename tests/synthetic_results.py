"""Results without a run: records of `evaluation.schema` with every field filled in, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenskip.arms import ARMS, Arm
from tokenskip.evaluation.comparisons import monotone, pareto
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.schema import SCHEMA, ArmResult, Results
from tokenskip.evaluation.warnings import warnings


def arm_result(arm: Arm | str, ratio: float | None, **values: Any) -> ArmResult:
    """A row of an arm (a built-in one by its name) that was not evaluated, but for `values`."""
    value = ARMS[arm] if isinstance(arm, str) else arm
    return ArmResult.model_validate(dict(summarise_arm(value, ratio, [], [])) | values)


def results_of(arms: Sequence[ArmResult], **values: Any) -> Results:
    """A whole file's worth of results, empty but for `arms`, what follows from them, and `values`."""
    filled: dict[str, Any] = {
        "schema_version": SCHEMA,
        "run": "synthetic",
        "tokenskip_version": "0.1.0",
        "created": "2026-01-02T03:04:00+00:00",
        "hardware": {"cores": 2},
        "versions": {"torch": "2.9.0", "trl": None},
        "config": {"name": "synthetic", "seed": 0},
        "backend": "hf",
        "funnel": (),
        "arms": tuple(arms),
        "monotone": monotone(arms),
        "matched": tuple(pareto(arms)),
        "rounds": (),
        "samples": (),
        "problems": (),
        "word_levels": {},
        "warnings": tuple(warnings(arms)),
    }
    return Results.model_validate(filled | values)
