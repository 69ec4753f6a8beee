"""On-policy rounds: the tuned model's own short correct chains, and a training from the base on them.

Pruned text is off-policy: the model would not have written it. So after the first fine-tuning the tuned model answers
the training problems again at every ratio below 1; a chain is kept when its answer is right and its length is within
`rounds.tolerance` of its ratio, and the base is fine-tuned on those (expert iteration, as in STaR, arXiv 2203.14465,
and ReST, 2308.08998). Round k + 1 samples from round k's adapter.

    achieved ratio = CoT tokens of the chain / mean CoT tokens of the untouched model's chains of that problem

Reads `trajectories.jsonl` and `train.jsonl` of the run and writes, for every round k, `round-k/`:

    samples.jsonl    one graded completion per ratio, sample and problem
    train.jsonl      the rows it trains on; those of the round say `"round": k`
    round.json       how many were sampled, right, near their ratio and kept, per ratio
    adapter/         as any other

    tokenskip rounds runs/NAME --set rounds.count=2
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from tokenskip.config import RoundsConfig, RunConfig
from tokenskip.engine import Work
from tokenskip.errors import StageError
from tokenskip.generation.generate import complete, repeat_in_passes
from tokenskip.generation.grade import grade_trajectory
from tokenskip.ratio import spaced
from tokenskip.run import Run
from tokenskip.storage.store import (
    ADAPTER,
    EVAL,
    TRAIN,
    Row,
    RunFolder,
    read_rows,
    trajectory_from_row,
    trajectory_row,
    write_atomically,
    write_rows,
)
from tokenskip.training.dataset import round_row
from tokenskip.training.train import first_weights
from tokenskip.training.train import train as train_adapter
from tokenskip.types import Problem, Sampling, Trajectory

SAMPLES, INFO = "samples.jsonl", "round.json"


def run(run: Run) -> None:
    """Stage 6b: all rounds of the configuration; each is skipped over as far as it has been done before.

    Raises:
        StageError: no adapter yet, a round that kept no chain, or a run that was evaluated with its first adapter
            already while `rounds.adopt` is on.
    """
    settings = run.config.rounds
    if not settings.count:
        return
    first = first_weights(run.folder)
    if settings.adopt and first == "tokenskip" and _is_evaluated(run, first):
        raise StageError(
            f"{run.folder.path} was evaluated with its first adapter already: --set rounds.adopt=false keeps that as "
            "the arm tokenskip and adds the rounds beside it"
        )
    for number in range(1, settings.count + 1):
        with run.sub_folder(f"round_{number}", rounds=settings.model_copy(update={"count": 0})) as folder:
            if not folder.file(ADAPTER).exists():
                _round(run, folder, number, first if number == 1 else f"round_{number - 1}")
    if settings.adopt:
        _adopt(run)


def _is_evaluated(run: Run, weights: str) -> bool:
    """Whether an arm with these weights has rows already."""
    names = [arm.name for arm in run.config.known_arms().values() if arm.weights == weights]
    files = [file.stem for file in run.folder.file(EVAL).glob("*.jsonl")]
    return any(file == name or file.startswith(f"{name}-") for file in files for name in names)


def round_infos(folder: RunFolder) -> list[Row]:
    """`round.json` of every round that has chosen its rows, in order."""
    files = [folder.file(f"round-{number}/{INFO}") for number in range(1, folder.config.rounds.count + 1)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def trained_tokens(train_file: Any) -> int:
    """CoT tokens in a file of training rows: what one epoch on it learns from."""
    return sum(int(row["n_cot_tokens"]) for row in read_rows(train_file))


def _round(run: Run, folder: RunFolder, number: int, weights: str) -> None:
    references = _references(run)
    _sample(run, folder, number, weights, references)
    if not folder.file(INFO).exists():
        lengths = {reference.problem.id: reference.n_cot_tokens for reference in references}
        chosen, info = choose(_samples(folder), lengths, _ratios(run.config), run.config.rounds)
        if not chosen:
            raise StageError(
                f"round {number} kept 0 of {info['sampled']} chains ({info['correct']} correct): raise "
                "rounds.tolerance, or sample with rounds.temperature=0.7 and rounds.samples=4"
            )
        write_rows(folder.file(TRAIN), _rows(run, lengths, chosen, number))
        info = {"round": number, **info, "train_tokens": trained_tokens(folder.file(TRAIN))}
        write_atomically(folder.file(INFO), json.dumps(info, indent=1) + "\n")
    run.free()
    train_adapter(folder, run.prompts, run.progress)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A training problem and the mean CoT tokens of the untouched model's finished chains."""

    problem: Problem
    n_cot_tokens: float


def _references(run: Run) -> list[_Reference]:
    """Training problems in order; one whose chains were all cut off or empty has no length to compare with."""
    lengths: dict[str, list[int]] = defaultdict(list)
    problems: dict[str, Problem] = {}
    for trajectory in run.folder.trajectories():
        problems.setdefault(
            trajectory.id,
            Problem(id=trajectory.id, question=trajectory.question, gold=trajectory.gold, level=trajectory.level),
        )
        if trajectory.finish == "stop" and trajectory.n_cot_tokens:
            lengths[trajectory.id].append(trajectory.n_cot_tokens)
    means = {id: sum(lengths[id]) / len(lengths[id]) for id in problems if lengths[id]}
    return [_Reference(problems[id], mean) for id, mean in means.items()][: run.config.rounds.limit]


def _ratios(config: RunConfig) -> list[float]:
    """The ratios that a round samples at: those trained on below 1, since whole chains are the model's own already."""
    return sorted((ratio for ratio in spaced(config.prune.ratios) if ratio < 1), reverse=True)


def _sample(run: Run, folder: RunFolder, number: int, weights: str, references: Sequence[_Reference]) -> None:
    problems = [reference.problem for reference in references]
    samples = run.config.rounds.samples
    inputs = [
        (problem, ratio) for ratio in _ratios(run.config) for problem in repeat_in_passes(lambda: problems, samples)
    ]
    pending = folder.pending(SAMPLES, inputs, 4 * run.config.generate.batch_size)
    build = partial(sampling, number=number, weights=weights)
    for rows in run.map(build, pending, f"round {number}: sample", len(inputs)):
        folder.append(SAMPLES, rows)


def sampling(run: Run, number: int, weights: str) -> Work:
    """The work of a round's sampling: (problem, ratio) -> graded rows, by the adapter that `weights` names."""
    settings = run.config.rounds
    options = Sampling(
        max_new_tokens=run.config.generate.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=run.config.seed + number,
    )
    backend = run.backend(weights)

    def work(items: Sequence[tuple[Problem, float]]) -> list[Row]:
        prompts = [run.prompts.prompt(problem.question, ratio) for problem, ratio in items]
        problems = [problem for problem, _ in items]
        done = complete(problems, prompts, backend, options, run.config.prompt, run.count)
        return [trajectory_row(grade_trajectory(trajectory, run.task)) for trajectory in done]

    return work


def _samples(folder: RunFolder) -> Iterator[Trajectory]:
    return map(trajectory_from_row, read_rows(folder.require(SAMPLES)))


def choose(
    samples: Iterator[Trajectory], lengths: dict[str, float], ratios: Sequence[float], settings: RoundsConfig
) -> tuple[dict[tuple[str, float], list[Trajectory]], dict[str, Any]]:
    """(problem, ratio) -> the chains to train on, the nearest to the ratio first, and what became of the others.

    `lengths`: problem id -> CoT tokens of the untouched model. Equal texts count once.
    """
    counts: dict[float, dict[str, float]] = {
        ratio: {"sampled": 0, "correct": 0, "near": 0, "kept": 0, "achieved": 0.0} for ratio in ratios
    }
    candidates: dict[tuple[str, float], dict[str, tuple[float, Trajectory]]] = defaultdict(dict)
    for sample in samples:
        counts[sample.ratio]["sampled"] += 1
        if sample.dropped:
            continue
        counts[sample.ratio]["correct"] += 1
        achieved = sample.n_cot_tokens / lengths[sample.id]
        counts[sample.ratio]["achieved"] += achieved
        ratio = sample.ratio
        if settings.label == "achieved":
            ratio = min(ratios, key=lambda asked: abs(asked - achieved))
        if abs(achieved - ratio) <= settings.tolerance:
            counts[ratio]["near"] += 1
            candidates[sample.id, ratio].setdefault(sample.output, (abs(achieved - ratio), sample))
    chosen = {}
    for (id, ratio), texts in candidates.items():
        nearest = sorted(texts.values(), key=lambda scored: scored[0])[: settings.keep]  # stable: earlier samples first
        chosen[id, ratio] = [replace(sample, ratio=ratio) for _, sample in nearest]
        counts[ratio]["kept"] += len(nearest)
    total = {
        name: sum(int(count[name]) for count in counts.values()) for name in ("sampled", "correct", "near", "kept")
    }
    by_ratio = {
        str(ratio): {
            **{name: int(count[name]) for name in ("sampled", "correct", "near", "kept")},
            "achieved_ratio_correct": round(count["achieved"] / count["correct"], 4) if count["correct"] else None,
        }
        for ratio, count in counts.items()
    }
    return chosen, {**total, "by_ratio": by_ratio}


def _rows(
    run: Run, lengths: dict[str, float], chosen: dict[tuple[str, float], list[Trajectory]], number: int
) -> Iterator[Row]:
    """Per problem the run's own rows as far as `rounds.data` keeps them, then the round's, long ones first.

    A problem's rows are together as in the run's own file: a training that reads rows in order sees all its ratios
    side by side in every round. Problems that only the round solved come last.
    """
    waiting: dict[str, dict[float, list[Trajectory]]] = {}
    for id, ratio in sorted(chosen, reverse=True):
        waiting.setdefault(id, {})[ratio] = chosen[id, ratio]

    def own(id: str) -> Iterator[Row]:
        for several in waiting.pop(id, {}).values():
            for trajectory in several:
                yield {**round_row(trajectory, lengths[id], run.prompts), "round": number}

    for id, rows in groupby(read_rows(run.folder.require(TRAIN)), itemgetter("id")):
        for row in rows:
            pruned = row["ratio"] < 1
            kept = {"replace": not pruned, "join": True, "fill": not pruned or (id, row["ratio"]) not in chosen}
            if kept[run.config.rounds.data]:
                yield row
        yield from own(id)
    for id in sorted(waiting):
        yield from own(id)


def _adopt(run: Run) -> None:
    """The last round's adapter as the run's `adapter/`; the first one moves to `round-0/`. Whole or not at all."""
    final, first = run.folder.file(ADAPTER), run.folder.file(f"round-0/{ADAPTER}")
    if not first.exists():
        first.parent.mkdir(exist_ok=True)
        final.replace(first)
    if not final.exists():
        draft = final.with_name(final.name + ".tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(run.folder.file(f"round-{run.config.rounds.count}/{ADAPTER}"), draft)
        draft.replace(final)
