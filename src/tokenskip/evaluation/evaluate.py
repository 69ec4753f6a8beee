"""Stage 7: every arm on the same problems. Writes `eval/ARM.jsonl`, one graded completion a line.

Times go to `eval/timings.jsonl`, apart from the completions, so that those are the same bytes in every run. A greedy
chain that is cut off is a prefix of the original's, so truncation reads the original's rows instead of decoding again.

    tokenskip evaluate runs/NAME
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from tokenskip.arms import ORIGINAL, Arm, label, rows_of
from tokenskip.engine import Work
from tokenskip.errors import ConfigError, StageError
from tokenskip.evaluation.shorten import Item, cut_off, full_cap, left_out, sampling_of
from tokenskip.generation.generate import ask, repeat_in_passes, trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.plugins import check_adapters, check_arms
from tokenskip.prompting.chat_template import unread_kwargs
from tokenskip.prompting.prompts import worked
from tokenskip.prompting.terse import spelled
from tokenskip.ratio import RatioMap
from tokenskip.run import Run
from tokenskip.storage.store import CALIBRATION, EVAL, Row, RunFolder, read_rows, trajectory_from_row, trajectory_row
from tokenskip.types import Backend, HoldsModel, OnDevice, Problem, Prompt, Trajectory

TIMINGS = f"{EVAL}/timings.jsonl"


def run(run: Run) -> None:
    """Stage 7.

    Raises:
        ConfigError: the backend cannot do one of the arms. RunError: other problems than the run was begun with.
    """
    check_arms(run.config)
    for arm in run.config.chosen_arms():
        if unread := unread_kwargs(run.prompts.tokenizer.chat_template, arm.template_kwargs):
            raise ConfigError(f"arm {arm.name}: the chat template of {run.config.model.path} reads no {unread[0]}")
    run.check_problems("test")
    arms = sorted(
        run.config.chosen_arms(),
        key=lambda arm: (bool(arm.matches), arm.weights != "base", arm.weights, arm.role != "original"),
    )
    check_adapters(run.config, [run.adapter(weights) for weights in dict.fromkeys(arm.weights for arm in arms)])
    for _, ratio in rows_of([arm for arm in arms if arm.calibrated], run.config.evaluate.ratios):
        load_map(run.folder).prompted(ratio)  # out of reach, or not calibrated: reported before any model loads
    for arm, ratio in rows_of(arms, run.config.evaluate.ratios):
        complete_arm(run, arm, ratio)
        time_arm(run, arm, ratio)


def complete_arm(run: Run, arm: Arm, ratio: float) -> None:
    """Complete and grade all problems under one arm, as far as that has not been done before."""
    name = label(arm, ratio)
    file = f"{EVAL}/{name}.jsonl"
    problems = repeat_in_passes(lambda: run.problems("test"), run.config.evaluate.samples)
    inputs = _items(run, problems, arm, ratio)
    pending = run.folder.pending(file, inputs, 4 * run.config.evaluate.batch_size)
    for rows, times in run.map(partial(answering, arm=arm, ratio=ratio), pending, f"evaluate {name}"):
        run.folder.append(file, rows)
        run.folder.append(TIMINGS, times)


def _items(run: Run, problems: Iterable[Problem], arm: Arm, ratio: float) -> Iterator[Item]:
    """The problems, with the rows of the original and of a matched arm where this one is made from them."""
    columns: list[Iterable[Any]] = [problems]
    if arm.needs_original:
        columns.append(read_arm(run.folder, ORIGINAL.name))
    if arm.matches:
        columns.append(read_arm(run.folder, label(run.config.known_arms()[arm.matches], ratio)))
    return (Item(*row) for row in zip(*columns, strict=True))


def answering(run: Run, arm: Arm, ratio: float) -> Work:
    """The work of an arm: items -> graded rows, and one of the time."""
    backend = run.backend(arm.weights)

    def work(items: Sequence[Item]) -> tuple[list[Row], list[Row]]:
        times: list[Row] = []
        if arm.cut:
            trajectories = cut_off(run, arm, ratio, items, backend)
        elif arm.matches:
            trajectories = left_out(run, ratio, items, backend)
        else:
            problems = [item.problem for item in items]
            prompts = [prompt_of(run, arm, ratio, item.problem, item.original) for item in items]
            start = time.perf_counter()
            completions = ask(problems, prompts, backend, sampling_of(run.config))
            seconds = time.perf_counter() - start
            if not any(completion.resumed for completion in completions):
                times = [_timing(arm, ratio, run.config.evaluate.batch_size, len(items), seconds, backend)]
            trajectories = [
                trajectory_of(
                    problem, ratio, run.prompts.with_prefill(prompt, completion), run.config.prompt, run.count
                )
                for problem, prompt, completion in zip(problems, prompts, completions, strict=True)
            ]
        return [trajectory_row(grade_trajectory(trajectory, run.task)) for trajectory in trajectories], times

    return work


def time_arm(run: Run, arm: Arm, ratio: float) -> None:
    """Time a few problems one by one, after one that does not count; nothing when it was done before."""
    n = run.config.evaluate.latency_samples
    if not n or arm.cut or arm.matches or any(_is_timing_of(row, arm, ratio, 1) for row in read_timings(run.folder)):
        return
    items = list(islice(_items(run, run.problems("test"), arm, ratio), n + 1))
    for times in run.compute(partial(timing, arm=arm, ratio=ratio), [items]):
        run.folder.append(TIMINGS, times)


def timing(run: Run, arm: Arm, ratio: float) -> Work:
    """The work of timing: items -> one row of time for each but the first, which warms up."""
    backend = run.backend(arm.weights)

    def work(items: Sequence[Item]) -> list[Row]:
        times: list[Row] = []
        for item in items:
            prompt = prompt_of(run, arm, ratio, item.problem, item.original)
            start = time.perf_counter()
            [completion] = ask([item.problem], [prompt], backend, sampling_of(run.config))
            seconds = time.perf_counter() - start
            if not completion.resumed:
                times.append(_timing(arm, ratio, 1, 1, seconds, backend))
        return times[1:]

    return work


def read_arm(folder: RunFolder, name: str) -> Iterator[Trajectory]:
    """The graded completions of one row of the evaluation."""
    return map(trajectory_from_row, read_rows(folder.require(f"{EVAL}/{name}.jsonl")))


def read_timings(folder: RunFolder) -> list[Row]:
    """All that was timed: `{arm, ratio, batch_size, n, seconds, device}`."""
    file = folder.file(TIMINGS)
    return list(read_rows(file)) if file.exists() else []


def load_map(folder: RunFolder) -> RatioMap:
    """The map that `tokenskip calibrate` measured for the run's adapter.

    Raises:
        StageError: the run was not calibrated, or the file is damaged.
    """
    file = folder.file(CALIBRATION)
    if not file.exists():
        raise StageError(f"{folder.path} has no {CALIBRATION} yet: run `tokenskip calibrate {folder.path}` first")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        knots = tuple((float(asked), float(prompted)) for asked, prompted in stored["knots"])
        if not knots:
            raise ValueError
        return RatioMap(knots, bool(stored["clamp"]), bool(stored.get("steps", False)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise StageError(f"{file} is damaged: remove it and run `tokenskip calibrate {folder.path}` again") from None


def prompt_of(run: Run, arm: Arm, ratio: float, problem: Problem, original: Trajectory | None = None) -> Prompt:
    """What the arm asks the model at `ratio`; a token budget is counted from the original's chain."""
    asked = ratio if arm.marker else 1.0
    if arm.calibrated:
        asked = load_map(run.folder).prompted(ratio)
    full = full_cap(run.config)
    cap = arm.token_cap(full, ratio, run.config.evaluate.length)
    way = arm.way
    return run.prompts.prompt(
        problem.question,
        asked,
        instruction=spelled(way.instruction, ratio, original.n_cot_tokens if original else 0),
        system=way.system,
        shots=worked(run.config.prompt, way.shots),
        prefill=way.prefill,
        cap=None if cap == full else cap,
        template_kwargs=arm.template_kwargs,
    )


def _timing(arm: Arm, ratio: float, batch_size: int, n: int, seconds: float, backend: Backend) -> Row:
    row = {"arm": arm.name, "ratio": ratio, "batch_size": batch_size, "n": n, "seconds": round(seconds, 6)}
    return {**row, "device": device_of(backend)}


def device_of(backend: Backend) -> str | None:
    """What a backend computes on: `cpu`, the accelerator's own name; None where a server has the model."""
    model = backend.model if isinstance(backend, HoldsModel) else None
    if not isinstance(model, OnDevice):
        return None
    if model.device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(model.device))
    return str(model.device)


def _is_timing_of(row: Row, arm: Arm, ratio: float, batch_size: int) -> bool:
    return (row["arm"], row["ratio"], row["batch_size"]) == (arm.name, ratio, batch_size)
