"""Token budgets of a calibrated run: what an answer at a ratio needs, as the limits that engines have.

`tokenskip calibrate` measures them (`calibration.json`). The ratio is the soft wish, the budget the hard guard: it
stops a chain that loops, and hardly ever one that would have come to an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tokenskip.ratio import Ratio
from tokenskip.serving.merge import Trained
from tokenskip.storage.store import CALIBRATION

THINK_TAGS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of a chain, and of a chain with its answer."""

    chain: int
    answer: int


def budgets_of(trained: Trained) -> dict[float, Budget]:
    """Ratio -> budget, ascending; empty where the run has no calibration (or one of an earlier version)."""
    file = trained.run / CALIBRATION if trained.run else None
    if file is None or not file.is_file():
        return {}
    measured = json.loads(file.read_text(encoding="utf-8")).get("budgets", {})
    return {float(Ratio(ratio)): Budget(**measured[ratio]) for ratio in sorted(measured, key=float)}


def vllm_options(trained: Trained, budgets: Mapping[float, Budget]) -> list[str]:
    """What vLLM needs at its start so that requests may have a `thinking_token_budget`; nothing without think tags."""
    if not budgets or trained.config.prompt.answer != "think":
        return []
    start, end = trained.config.prompt.think or THINK_TAGS
    return ["--reasoning-config", json.dumps({"reasoning_start_str": start, "reasoning_end_str": end})]


def llamacpp_options(trained: Trained, budgets: Mapping[float, Budget]) -> list[str]:
    """llama.cpp's limits are the server's, so they are those of the greatest ratio."""
    if not budgets:
        return []
    most = budgets[max(budgets)]
    thinks = trained.config.prompt.answer == "think"
    return [*(["--reasoning-budget", str(most.chain)] if thinks else []), "--predict", str(most.answer)]


def request_notes(trained: Trained, budgets: Mapping[float, Budget], engine: str) -> list[str]:
    """A line for each ratio: the fields of a request that keep it within its budget."""
    thinks = trained.config.prompt.answer == "think"
    field = {"vllm": "thinking_token_budget", "llamacpp": "thinking_budget_tokens"}.get(engine) if thinks else None
    return [
        f"budget at {Ratio(ratio)}: " + (f'"{field}": {one.chain}, ' if field else "") + f'"max_tokens": {one.answer}'
        for ratio, one in budgets.items()
    ]
