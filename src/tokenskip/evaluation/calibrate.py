"""Measure what a run's adapter makes of a ratio, and put the correction into its chat template.

On development problems (the task's own, or the tail of the training problems) the adapter answers at a grid of ratios;
half of the problems fit the map (`ratio_map`), the other half says what it is worth: the achieved ratio at each asked
one, prompted as it is and through the map, and how many tokens its answers need (`budgets`). An adapter that takes an
untrained ratio between two trained ones for something else is prompted with none between or above them.

    achieved ratio = CoT tokens of the adapter / CoT tokens of the untouched model, both summed over the problems

Reads the run's `adapter/`; writes `calibration/` (graded completions), `calibration.json` and the map into
`adapter/chat_template.jinja`, so that servers ask through it.

    tokenskip calibrate runs/NAME
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenskip import ratio as ratio_map
from tokenskip.engine import Work
from tokenskip.errors import StageError
from tokenskip.evaluation.budgets import QUANTILE, token_budget
from tokenskip.generation.generate import complete
from tokenskip.generation.grade import grade_trajectory
from tokenskip.prompting.chat_template import set_ratio_map
from tokenskip.ratio import Ratio, RatioMap
from tokenskip.run import Run
from tokenskip.storage.store import CALIBRATION, Row, read_rows, trajectory_row, write_atomically
from tokenskip.types import HasDevelopment, Problem, Sampling

FOLDER, TEMPLATE = "calibration", "chat_template.jinja"


def run(run: Run) -> None:
    """Stage 6d: as the section `calibrate` of the configuration asks; nothing where it asks for no problems."""
    settings = run.config.calibrate
    if settings.n:
        calibrate(run, n=settings.n, grid=settings.grid, clamp=settings.clamp)


def calibrate(run: Run, *, n: int = 300, grid: Sequence[float] = (), clamp: bool = False) -> Row:
    """Fit, check and store the map; returns what `calibration.json` holds.

    Args: `n` development problems, half of them for the check; `grid`: prompted ratios to measure (default: those of
    the training, those between them, and up to .2 below).

    Raises:
        StageError: no adapter, an adapter that was trained since, or one that the ratio does not move.
    """
    adapter = run.adapter("tokenskip")
    assert adapter is not None
    _check_adapter(run, adapter)
    problems, source = development_problems(run, n)
    half = len(problems) // 2  # fitted on one half and checked on the other, so that the check is not of its own fit
    lengths = [row["n_cot_tokens"] for row in _answers(run, problems, "base", 1.0)]
    points, trained = [], ratio_map.spaced(run.config.prune.ratios)
    for prompted in sorted(grid) or default_grid(trained):
        rows = _answers(run, problems[:half], "tokenskip", prompted)
        points.append((prompted, _achieved(rows, lengths[:half])))
    usable = ratio_map.understood(points, trained)
    misread = [point[0] for point in points if point not in usable]
    steps = any(prompted > min(trained) for prompted in misread)
    if steps:
        usable = [point for point in usable if point[0] in trained or point[0] < min(trained)]
    fitted = ratio_map.fit(usable, clamp=clamp, steps=steps)
    if fitted is None:
        reached = ", ".join(f"{prompted:g}: {achieved:.2f}" for prompted, achieved in points)
        raise StageError(f"the ratio does not move the length of {adapter} ({reached}): there is nothing to calibrate")
    checks = [
        _check(run, problems[half:], lengths[half:], fitted, asked)
        for asked in asked_ratios(trained)
        if fitted.reaches(asked)
    ]
    summary: Row = {
        "knots": [list(knot) for knot in fitted.knots],
        "clamp": clamp,
        "steps": steps,
        "problems": source,
        "n_fit": half,
        "n_check": len(problems) - half,
        "measured": [{"prompted": prompted, "achieved": round(achieved, 4)} for prompted, achieved in points],
        "checks": checks,
        "out_of_reach": [asked for asked in asked_ratios(trained) if not fitted.reaches(asked)],
        "misread": misread,
        "budget_quantile": QUANTILE,
        "budgets": _budgets(run, problems[half:], fitted, [check["asked"] for check in checks]),
        "error_before": _mean_error(checks, "before"),
        "error_after": _mean_error(checks, "after"),
    }
    write_atomically(run.folder.file(CALIBRATION), json.dumps(summary, indent=1) + "\n")
    template = (adapter / TEMPLATE).read_text(encoding="utf-8")
    write_atomically(adapter / TEMPLATE, set_ratio_map(template, fitted))
    return summary


def development_problems(run: Run, n: int) -> tuple[list[Problem], str]:
    """At most `n` problems that the run neither trains on nor is judged by, where there are such; and their origin."""
    if isinstance(run.task, HasDevelopment) and not run.config.task.options.get("dev"):
        return list(run.task.development(n)), "the task's development split"
    problems = list(run.task.problems("train", None))
    used = run.config.task.train_limit or len(problems)
    if len(problems) - used >= 20:
        return problems[used : used + n], "training problems that the run leaves out"
    return problems[-n:], "the last training problems, which the adapter has seen"


def default_grid(trained: Sequence[float]) -> list[float]:
    """The ratios below 1 to measure at, ascending: the training's, their midpoints, and two steps of .1 below."""
    ordered = sorted(trained)
    between = [(a + b) / 2 for a, b in pairwise(ordered)]
    below = [ordered[0] - step for step in (0.1, 0.2)]
    return sorted({round(ratio, 2) for ratio in (*ordered, *between, *below) if 0.05 <= ratio < 1})


def asked_ratios(trained: Sequence[float]) -> list[float]:
    """The ratios that the map is checked at: the training's, and .4, .55 and .65, which the paper never trains on."""
    return sorted({*(ratio for ratio in trained if ratio < 1), 0.4, 0.55, 0.65})


def measuring(run: Run, weights: str, prompted: float) -> Work:
    """The work of one measurement: problems -> graded rows, greedily, at one prompted ratio."""
    cap = run.config.evaluate.max_new_tokens or run.config.generate.max_new_tokens
    backend = run.backend(weights)

    def work(problems: Sequence[Problem]) -> list[Row]:
        prompts = [run.prompts.prompt(problem.question, prompted) for problem in problems]
        done = complete(problems, prompts, backend, Sampling(max_new_tokens=cap), run.config.prompt, run.count)
        return [trajectory_row(grade_trajectory(trajectory, run.task)) for trajectory in done]

    return work


def _answers(run: Run, problems: Sequence[Problem], weights: str, prompted: float) -> list[Row]:
    which = hashlib.sha256("\n".join(problem.id for problem in problems).encode()).hexdigest()[:8]
    name = f"{FOLDER}/{weights}-{prompted:g}-{which}.jsonl"
    pending = run.folder.pending(name, problems, 4 * run.config.evaluate.batch_size)
    build = partial(measuring, weights=weights, prompted=prompted)
    for rows in run.map(build, pending, f"calibrate {weights} {prompted:g}"):
        run.folder.append(name, rows)
    return list(read_rows(run.folder.file(name)))


def _achieved(rows: Sequence[Row], lengths: Sequence[int]) -> float:
    return float(sum(row["n_cot_tokens"] for row in rows) / (sum(lengths) or 1))


def _check(
    run: Run, problems: Sequence[Problem], lengths: Sequence[int], fitted: RatioMap, asked: float
) -> dict[str, Any]:
    """What asking for `asked` achieves, prompted as it is and through the map; with the accuracy of both."""
    row: dict[str, Any] = {"asked": asked, "prompted": fitted.prompted(asked)}
    for name, prompted in (("before", asked), ("after", row["prompted"])):
        rows = _answers(run, problems, "tokenskip", prompted)
        row[name] = round(_achieved(rows, lengths), 4)
        n_correct = sum(bool(answer["grade"] and answer["grade"]["correct"]) for answer in rows)
        row[f"accuracy_{name}"] = n_correct / len(rows)
    return row


def _budgets(run: Run, problems: Sequence[Problem], fitted: RatioMap, asked: Sequence[float]) -> dict[str, Any]:
    """Ratio -> tokens that its answers need, through the map; the whole chain among them."""
    found = {
        str(Ratio(ratio)): token_budget(_answers(run, problems, "tokenskip", fitted.prompted(ratio)))
        for ratio in (*asked, 1.0)
    }
    return {ratio: budget for ratio, budget in found.items() if budget}


def _mean_error(checks: Sequence[Row], name: str) -> float | None:
    errors = [abs(check[name] - check["asked"]) for check in checks]
    return round(sum(errors) / len(errors), 4) if errors else None


def _check_adapter(run: Run, adapter: Path) -> None:
    """StageError when `calibration/` holds answers of other weights than the adapter's present ones."""
    weights = sorted(adapter.glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in weights)).hexdigest()
    note = run.folder.file(f"{FOLDER}/adapter.sha256")
    if note.exists() and note.read_text(encoding="utf-8").strip() != digest:
        raise StageError(f"{note.parent} was measured with another adapter: remove that folder, then calibrate again")
    note.parent.mkdir(exist_ok=True)
    write_atomically(note, digest + "\n")
