"""Stage 7: every arm on the same problems. Writes `eval/ARM.jsonl`, one graded completion a line.

Times go to `eval/timings.jsonl`, apart from the completions, so that those are the same bytes in every run. A greedy
chain that is cut off is a prefix of the original's, so truncation reads the original's rows instead of decoding again.

    tokenskip evaluate runs/NAME
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, repeat

from tokenskip.arms import ORIGINAL, Arm, label, rows_of
from tokenskip.config import RunConfig
from tokenskip.engine import Work
from tokenskip.errors import StageError
from tokenskip.generation.generate import ask, repeat_in_passes, trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.generation.split import TRUNCATED
from tokenskip.plugins import check_adapters, check_arms
from tokenskip.ratio import RatioMap
from tokenskip.run import Run
from tokenskip.storage.store import CALIBRATION, EVAL, Row, RunFolder, read_rows, trajectory_from_row, trajectory_row
from tokenskip.types import Backend, Completion, HoldsModel, OnDevice, Problem, Prompt, Sampling, Trajectory

TIMINGS = f"{EVAL}/timings.jsonl"
ANSWER_CAP = 48
"""Tokens that a forced answer may take."""


def run(run: Run) -> None:
    """Stage 7.

    Raises:
        ConfigError: the backend cannot do one of the arms. RunError: other problems than the run was begun with.
    """
    check_arms(run.config)
    run.check_problems("test")
    arms = sorted(
        run.config.chosen_arms(), key=lambda arm: (arm.weights != "base", arm.weights, arm.role != "original")
    )
    check_adapters(run.config, [run.adapter(weights) for weights in dict.fromkeys(arm.weights for arm in arms)])
    for _, ratio in rows_of([arm for arm in arms if arm.calibrated], run.config.evaluate.ratios):
        load_map(run.folder).prompted(ratio)  # out of reach, or not calibrated: reported before any model loads
    for arm, ratio in rows_of(arms, run.config.evaluate.ratios):
        complete_arm(run, arm, ratio)
        time_arm(run, arm, ratio)


def sampling_of(config: RunConfig) -> Sampling:
    """How every arm decodes: greedily unless `evaluate.temperature` says otherwise, under one cap."""
    settings = config.evaluate
    return Sampling(
        max_new_tokens=full_cap(config),
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=config.seed,
    )


def full_cap(config: RunConfig) -> int:
    """The token cap of a completion that nothing shortens."""
    return config.evaluate.max_new_tokens or config.generate.max_new_tokens


def complete_arm(run: Run, arm: Arm, ratio: float) -> None:
    """Complete and grade all problems under one arm, as far as that has not been done before."""
    name = label(arm, ratio)
    file = f"{EVAL}/{name}.jsonl"
    problems = repeat_in_passes(lambda: run.problems("test"), run.config.evaluate.samples)
    inputs: Iterable[tuple[Problem, Trajectory | None]] = (
        zip(problems, read_arm(run.folder, ORIGINAL.name), strict=True) if arm.cut else zip(problems, repeat(None))
    )
    pending = run.folder.pending(file, inputs, 4 * run.config.evaluate.batch_size)
    for rows, times in run.map(partial(answering, arm=arm, ratio=ratio), pending, f"evaluate {name}"):
        run.folder.append(file, rows)
        run.folder.append(TIMINGS, times)


def answering(run: Run, arm: Arm, ratio: float) -> Work:
    """The work of an arm: (problem, original's trajectory where chains are cut) -> graded rows, and one of the time."""
    backend = run.backend(arm.weights)

    def work(items: Sequence[tuple[Problem, Trajectory | None]]) -> tuple[list[Row], list[Row]]:
        times: list[Row] = []
        if arm.cut:
            trajectories = _cut_off(run, arm, ratio, items, backend)
        else:
            problems = [problem for problem, _ in items]
            prompts = [prompt_of(run, arm, ratio, problem) for problem in problems]
            start = time.perf_counter()
            completions = ask(problems, prompts, backend, sampling_of(run.config))
            seconds = time.perf_counter() - start
            if not any(completion.resumed for completion in completions):
                times = [_timing(arm, ratio, run.config.evaluate.batch_size, len(items), seconds, backend)]
            trajectories = [
                trajectory_of(problem, ratio, completion, run.config.prompt, run.count)
                for problem, completion in zip(problems, completions, strict=True)
            ]
        return [trajectory_row(grade_trajectory(trajectory, run.task)) for trajectory in trajectories], times

    return work


def time_arm(run: Run, arm: Arm, ratio: float) -> None:
    """Time a few problems one by one, after one that does not count; nothing when it was done before."""
    n = run.config.evaluate.latency_samples
    if not n or arm.cut or any(_is_timing_of(row, arm, ratio, 1) for row in read_timings(run.folder)):
        return
    problems = list(islice(run.problems("test"), n + 1))
    for times in run.compute(partial(timing, arm=arm, ratio=ratio), [problems]):
        run.folder.append(TIMINGS, times)


def timing(run: Run, arm: Arm, ratio: float) -> Work:
    """The work of timing: problems -> one row of time for each but the first, which warms up."""
    backend = run.backend(arm.weights)

    def work(problems: Sequence[Problem]) -> list[Row]:
        times: list[Row] = []
        for problem in problems:
            prompt = prompt_of(run, arm, ratio, problem)
            start = time.perf_counter()
            [completion] = ask([problem], [prompt], backend, sampling_of(run.config))
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


def prompt_of(run: Run, arm: Arm, ratio: float, problem: Problem) -> Prompt:
    """What the arm asks the model at `ratio`."""
    asked = ratio if arm.marker else 1.0
    if arm.calibrated:
        asked = load_map(run.folder).prompted(ratio)
    full = full_cap(run.config)
    cap = arm.token_cap(full, ratio, run.config.evaluate.length)
    instruction = arm.instruction_at(ratio)
    return run.prompts.prompt(problem.question, asked, instruction=instruction, cap=None if cap == full else cap)


def _cut_off(
    run: Run, arm: Arm, ratio: float, items: Sequence[tuple[Problem, Trajectory | None]], backend: Backend
) -> list[Trajectory]:
    """The original's chains under a cap of `ratio` × token cap; those that fit, or that failed, are untouched.

    A chain that has given its answer within the cap is not made to answer again.
    """
    budget = arm.token_cap(full_cap(run.config), ratio, run.config.evaluate.length)
    trajectories: list[Trajectory] = []
    unanswered: list[tuple[int, Problem, list[int]]] = []
    for i, (problem, original) in enumerate(items):
        assert original is not None
        assert (original.id, original.sample) == (problem.id, problem.sample)
        if original.finish == "error":
            trajectories.append(replace(original, ratio=ratio, grade=None))
            continue
        if original.n_tokens <= budget and original.finish == "stop":
            trajectories.append(replace(original, ratio=ratio, grade=None, dropped=None))
            continue
        ids = run.prompts.ids(original.output)[:budget]
        text = run.prompts.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        cut = Completion(text=text, n_tokens=len(ids), finish="length")
        trajectory = trajectory_of(problem, ratio, cut, run.config.prompt, run.count)
        grade = grade_trajectory(trajectory, run.task).grade
        if arm.forced and grade is not None and grade.reason == TRUNCATED:
            unanswered.append((i, problem, ids))
        trajectories.append(trajectory)
    if unanswered:
        forced = run.prompts.forced_answer()
        prompts = []
        for i, problem, ids in unanswered:
            prompt = run.prompts.prompt(problem.question)
            prompts.append(
                replace(
                    prompt,
                    token_ids=(*prompt.token_ids, *ids, *run.prompts.ids(forced)),
                    prefill=trajectories[i].output + forced,
                    max_new_tokens=ANSWER_CAP,
                )
            )
        answers = ask([problem for _, problem, _ in unanswered], prompts, backend, sampling_of(run.config))
        for (i, _, _), completion in zip(unanswered, answers, strict=True):
            trajectories[i] = _with_answer(trajectories[i], forced, completion)
    return trajectories


def _with_answer(chain: Trajectory, forced: str, answer: Completion) -> Trajectory:
    """A chain that was cut off, with the answer that was then forced out of the model."""
    if answer.error:
        return replace(chain, finish="error").drop(f"backend error: {answer.error}")
    tail = chain.tail + forced + answer.text
    return replace(
        chain,
        output=chain.head + chain.cot + tail,
        tail=tail,
        n_tokens=chain.n_tokens + answer.n_tokens,
        finish=answer.finish,
        dropped=None,
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
