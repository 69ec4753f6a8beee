"""Stage 7: every arm on the same problems. Writes `eval/ARM.jsonl`, one graded completion a line.

Times go to `eval/timings.jsonl`, apart from the completions, so that those are the same bytes in every run. A greedy
chain that is cut off is a prefix of the original's, so truncation reads the original's rows instead of decoding again.

    tokenskip evaluate runs/NAME
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from tokenskip.arms import Arm, label
from tokenskip.config import RunConfig
from tokenskip.errors import StageError
from tokenskip.generation.generate import TokenCount, answer, complete_samples, repeat_pass, trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.progress import Progress
from tokenskip.prompts import Prompts
from tokenskip.ratio import RatioMap
from tokenskip.store import CALIBRATION, EVAL, Row, RunFolder, Work, read_rows, trajectory_from_row, trajectory_row
from tokenskip.types import Backend, Completion, Problem, Prompt, Sampling, Task, Trajectory

TIMINGS = f"{EVAL}/timings.jsonl"
ANSWER_CAP = 48
"""Tokens that a forced answer may take."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all arms share."""

    folder: RunFolder
    task: Task
    prompts: Prompts
    count: TokenCount
    problems: Callable[[], Iterable[Problem]]
    backend: Callable[[str], Backend]
    progress: Progress
    map: Callable[[Callable[[Bench], Work], Iterable[Sequence[Any]]], Iterable[Sequence[Row]]]

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.folder.config

    @property
    def sampling(self) -> Sampling:
        """How every arm decodes: greedily unless `evaluate.temperature` says otherwise, under one cap."""
        settings = self.config.evaluate
        return Sampling(
            max_new_tokens=full_cap(self.config),
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=self.config.seed,
        )

    def repeated(self) -> Iterator[Problem]:
        """Every problem as often as it is sampled, one pass after the other."""
        for k in range(self.config.evaluate.samples):
            yield from repeat_pass(self.problems(), k, self.config.evaluate.samples)


def full_cap(config: RunConfig) -> int:
    """The token cap of a completion that nothing shortens."""
    return config.evaluate.max_new_tokens or config.generate.max_new_tokens


def run_arm(bench: Bench, arm: Arm, ratio: float) -> None:
    """Complete and grade all problems under one arm; goes on where a killed run stopped."""
    name = label(arm, ratio)
    inputs: Iterable[Any] = (
        zip(bench.repeated(), read_arm(bench.folder, "original"), strict=True)
        if arm.cut
        else ((problem, None) for problem in bench.repeated())
    )

    bench.folder.grow(
        f"{EVAL}/{name}.jsonl",
        inputs,
        partial(answering, arm=arm, ratio=ratio),
        window=4 * bench.config.evaluate.batch_size,
        progress=bench.progress,
        title=f"evaluate {name}",
        mapper=bench.map,
        notes=TIMINGS,
    )


def answering(bench: Bench, arm: Arm, ratio: float) -> Work:
    """The work of an arm: (problem, original's trajectory where chains are cut) -> graded rows, and one of the time."""
    backend = bench.backend(arm.weights)

    def work(items: Sequence[tuple[Problem, Trajectory | None]]) -> list[Row]:
        times: list[Row] = []
        if arm.cut:
            done = _cut_off(bench, arm, ratio, items, backend)
        else:
            prompts = [prompt_of(bench, arm, ratio, problem) for problem, _ in items]
            start = time.perf_counter()
            done = _complete(bench, ratio, [problem for problem, _ in items], prompts, backend)
            seconds = time.perf_counter() - start
            times = [_timing(arm, ratio, bench.config.evaluate.batch_size, len(items), seconds, backend)]
        return [trajectory_row(grade_trajectory(one, bench.task)) for one in done] + times

    return work


def time_arm(bench: Bench, arm: Arm, ratio: float) -> None:
    """Time a few problems one by one, after one that does not count; nothing when it was done before."""
    n = bench.config.evaluate.latency_samples
    if not n or arm.cut or any(_is_timing_of(row, arm, ratio, 1) for row in read_timings(bench.folder)):
        return
    problems = list(islice(bench.problems(), n + 1))
    for times in bench.map(partial(timing, arm=arm, ratio=ratio), [problems]):
        bench.folder.append(TIMINGS, times)


def timing(bench: Bench, arm: Arm, ratio: float) -> Work:
    """The work of timing: problems -> one row of time for each but the first, which warms up."""
    backend = bench.backend(arm.weights)

    def work(problems: Sequence[Problem]) -> list[Row]:
        times: list[Row] = []
        for problem in problems:
            prompt = prompt_of(bench, arm, ratio, problem)
            start = time.perf_counter()
            answer(backend, [prompt], bench.sampling)
            times.append(_timing(arm, ratio, 1, 1, time.perf_counter() - start, backend))
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


def prompt_of(bench: Bench, arm: Arm, ratio: float, problem: Problem) -> Prompt:
    """What the arm asks the model at `ratio`."""
    asked = ratio if arm.marker else 1.0
    if arm.calibrated:
        asked = load_map(bench.folder).prompted(ratio)
    full = full_cap(bench.config)
    cap = arm.token_cap(full, ratio, bench.config.evaluate.length)
    instruction = arm.instruction_at(ratio)
    return bench.prompts.prompt(problem.question, asked, instruction=instruction, cap=None if cap == full else cap)


def _complete(
    bench: Bench, ratio: float, problems: Sequence[Problem], prompts: Sequence[Prompt], backend: Backend
) -> list[Trajectory]:
    samples = bench.config.evaluate.samples
    done = complete_samples(problems, prompts, backend, bench.sampling, bench.config.prompt, bench.count, samples)
    return [replace(one, ratio=ratio) for one in done]


def _cut_off(
    bench: Bench, arm: Arm, ratio: float, items: Sequence[tuple[Problem, Trajectory | None]], backend: Backend
) -> list[Trajectory]:
    """The original's chains under a cap of `ratio` × token cap; those that fit are untouched."""
    budget = arm.token_cap(bench.sampling.max_new_tokens, ratio, bench.config.evaluate.length)
    done: dict[int, Trajectory] = {}
    open_chains: list[tuple[int, Problem, list[int]]] = []
    for i, (problem, original) in enumerate(items):
        assert original is not None
        assert original.id == problem.id
        if original.n_tokens <= budget and original.finish == "stop":
            done[i] = replace(original, ratio=ratio, grade=None, dropped=None)
            continue
        ids = bench.prompts.ids(original.output)[:budget]
        text = bench.prompts.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        cut = Completion(text=text, n_tokens=len(ids), finish="length")
        done[i] = trajectory_of(problem, ratio, cut, bench.config.prompt, bench.count)
        open_chains.append((i, problem, ids))
    if arm.forced and open_chains:
        prompts = []
        forced = bench.prompts.forced_answer()
        for _, problem, ids in open_chains:
            asked = bench.prompts.prompt(problem.question)
            prompts.append(
                replace(
                    asked,
                    token_ids=(*asked.token_ids, *ids, *bench.prompts.ids(forced)),
                    prefill=done[_].output + forced,
                    max_new_tokens=ANSWER_CAP,
                )
            )
        answers = answer(backend, prompts, bench.sampling)
        for (i, _problem, _ids), given in zip(open_chains, answers, strict=True):
            done[i] = _with_answer(done[i], forced, given)
    return [done[i] for i in range(len(items))]


def _with_answer(chain: Trajectory, forced: str, answer: Completion) -> Trajectory:
    """A chain that was cut off, with the answer that was then forced out of the model."""
    if answer.error:
        return replace(chain, finish="error").drop(f"backend error: {answer.error}")
    tail = forced + answer.text
    return replace(
        chain,
        output=chain.head + chain.cot + tail,
        tail=tail,
        n_tokens=chain.n_tokens + answer.n_tokens,
        finish=answer.finish,
    )


def _timing(arm: Arm, ratio: float, batch_size: int, n: int, seconds: float, backend: Backend) -> Row:
    row = {"arm": arm.name, "ratio": ratio, "batch_size": batch_size, "n": n, "seconds": round(seconds, 6)}
    return {**row, "device": device_name(getattr(backend, "model", None))}


def device_name(model: Any) -> str | None:
    """What a loaded model computes on: `cpu`, the accelerator's own name; None where a server has it."""
    device = getattr(model, "device", None)
    if getattr(device, "type", None) == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return None if device is None else str(device)


def _is_timing_of(row: Row, arm: Arm, ratio: float, batch_size: int) -> bool:
    return (row["arm"], row["ratio"], row["batch_size"]) == (arm.name, ratio, batch_size)
