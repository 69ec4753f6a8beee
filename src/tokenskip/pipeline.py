"""The whole run, top to bottom: this file reads as the method.

    generate   the target model answers the training problems            completions.jsonl
    grade      right, wrong, or impossible to tell                       trajectories.jsonl
    score      an importance for every part of every right chain         scores.jsonl
    prune      every chain cut to its ratios, then the training rows     pruned.jsonl, train.jsonl
    train      LoRA on `question <eos> ratio <eos> -> pruned chain`      adapter/
    rounds     the same again on the model's own short chains, if asked  round-1/ ...
    evaluate   all arms on the same problems                             eval/
    report     every number, and a page to open                          results.json, report.html

Names become objects in `tokenskip.plugins`; stages receive objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenskip.arms import WEIGHTS, rows_of
from tokenskip.config import EngineConfig, RoundsConfig, RunConfig
from tokenskip.distributed import alone, rank
from tokenskip.errors import StageError
from tokenskip.evaluation.evaluate import Bench, load_map, run_arm, time_arm
from tokenskip.generation.generate import complete, one_by_one, repeat
from tokenskip.generation.grade import grade_trajectory
from tokenskip.plugins import check_adapters, check_arms, check_scorer, make_scorer
from tokenskip.pruning.corpus import corpus_thresholds, draw_ratio, prune_trajectory
from tokenskip.run import Run as Run
from tokenskip.store import (
    ADAPTER,
    COMPLETIONS,
    PRUNED,
    SCORES,
    TRAIN,
    TRAJECTORIES,
    Row,
    Work,
    copy_atomically,
    pruned_row,
    read_rows,
    scores_row,
    trajectory_from_row,
    trajectory_row,
    write_rows,
)
from tokenskip.tracking import log_results
from tokenskip.training.controls import train_full_chain, train_longer
from tokenskip.training.dataset import training_rows
from tokenskip.training.rounds import first_weights, run_rounds
from tokenskip.training.train import train as train_adapter
from tokenskip.types import Problem, Sampling, Scores, Trajectory

CONTROL = WEIGHTS["random"]

SCORE_WINDOW = 256
"""Trajectories between two writes of `scores.jsonl`: sorted by length and batched inside, lost at most on a kill."""


def run(job: Run) -> None:
    """All stages; each is skipped over as far as it has been done before."""
    generate(job)
    grade(job)
    score(job)
    prune(job)
    train(job)
    rounds(job)
    evaluate(job)
    report(job)


def generate(job: Run) -> None:
    """Stage 1. Raises DataError when the task has no problems."""
    settings = job.config.generate
    total = sum(1 for _ in job.problems("train")) * settings.samples  # a bad line is told before any work
    problems = repeat(job.problems("train"), settings.samples)
    _grow(job, COMPLETIONS, problems, completing, 4 * settings.batch_size, "generate", total)


def completing(job: Run) -> Work:
    """The work of stage 1: problems -> rows of `completions.jsonl`."""
    settings = job.config.generate
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=job.config.seed,
    )
    backend = job.backend()

    def work(problems: Sequence[Problem]) -> list[Row]:
        prompts = [job.prompts.prompt(problem.question) for problem in problems]
        done = complete(problems, prompts, backend, sampling, job.config.prompt, job.count)
        return [trajectory_row(one) for one in done]

    return work


def grade(job: Run) -> None:
    """Stage 2."""
    completions = map(trajectory_from_row, read_rows(job.folder.require(COMPLETIONS)))

    _grow(job, TRAJECTORIES, completions, grading, SCORE_WINDOW, "grade")


def grading(job: Run) -> Work:
    """The work of stage 2: ungraded trajectories -> rows of `trajectories.jsonl`."""
    return lambda window: [trajectory_row(grade_trajectory(one, job.task)) for one in window]


def score(job: Run) -> None:
    """Stage 3. Raises StageError when there is no correct trajectory."""
    _score_into(job, SCORES, job.config)


def distill(
    job: Run,
    teachers: Sequence[str],
    out: Path,
    *,
    encoder: str | None = None,
    epochs: float = 3.0,
    pool: bool = False,
    **options: Any,
) -> Row:
    """A compressor that learned the importance by `teachers` on this run's correct chains; returns its metrics.

    `options` go to every teacher; one named after a teacher holds those of that teacher alone. A teacher's scores stay
    in `scores-TEACHER.jsonl` of the run folder, so that a second student costs no scoring.
    """
    from tokenskip.training.distill import Settings
    from tokenskip.training.distill import distill as fit

    configs = {}
    shared = {key: value for key, value in options.items() if key not in teachers}
    for teacher in teachers:
        chosen = {**shared, **options.get(teacher, {})}
        score_config = job.config.score.model_copy(update={"scorer": teacher, "model": None, "options": chosen})
        config = job.config.model_copy(update={"score": score_config})
        check_scorer(config)
        configs[f"scores-{teacher.rpartition(':')[2]}.jsonl"] = config
    for name, config in configs.items():
        _score_into(job, name, config)
    with job.progress.stage("distill", None) as advance:
        seen = 0

        def step(done: int, total: int, loss: float) -> None:
            nonlocal seen
            advance(done - seen, total=total)
            seen = done

        return fit(
            [job.folder.trajectories(name) for name in configs],
            out,
            Settings(encoder=encoder, epochs=epochs, pool=pool, seed=job.config.seed),
            device=job.config.model.device,
            progress=step,
        )


def _score_into(job: Run, name: str, config: RunConfig) -> None:
    _need_correct(job)
    make = partial(scoring, config=config)
    _grow(job, name, job.folder.trajectories(), make, SCORE_WINDOW, f"score ({config.score.scorer})")


def scoring(job: Run, config: RunConfig) -> Work:
    """The work of stage 3: trajectories -> rows of `scores.jsonl`, by the scorer that `config` names."""
    job.free()  # one model in memory at a time
    scorer = make_scorer(config, job.prompts)

    def failed(error: Exception) -> str:
        return f"scorer error: {type(error).__name__}: {error}"[:200]

    def work(window: Sequence[Trajectory]) -> list[Row]:
        alive = [one for one in window if not one.dropped]
        scores: list[Scores | str] = one_by_one(scorer.score, alive, failed)
        by_id = dict(zip((one.id for one in alive), scores, strict=True))
        return [scores_row(_scored(one, by_id.get(one.id))) for one in window]

    return work


def _scored(trajectory: Trajectory, scores: Scores | str | None) -> Trajectory:
    return trajectory.drop(scores) if isinstance(scores, str) else replace(trajectory, scores=scores)


def prune(job: Run) -> None:
    """Stages 4 and 5: the pruned chains, and from them the training rows."""
    prune_chains(job)
    write_dataset(job)


def prune_chains(job: Run) -> None:
    """Stage 4: every correct chain cut to its ratios."""
    _need_correct(job)
    job.folder.require(SCORES)
    _grow(job, PRUNED, job.folder.trajectories(SCORES), pruning, SCORE_WINDOW, "prune")


def pruning(job: Run) -> Work:
    """The work of stage 4: scored trajectories -> rows of `pruned.jsonl`."""
    settings = job.config.prune
    thresholds = None
    if settings.cut == "corpus":
        scored = ((one.cot, one.scores) for one in job.folder.trajectories(SCORES) if one.scores)
        thresholds = corpus_thresholds(scored, settings.ratios, job.count, settings)
    return lambda window: [pruned_row(_prune_one(job, one, thresholds)) for one in window]


def write_dataset(job: Run) -> None:
    """Stage 5: the training rows, written anew as a whole."""
    trajectories = job.folder.trajectories(PRUNED)
    rows = (row for trajectory in trajectories for row in training_rows(trajectory, job.prompts))
    write_rows(job.folder.file(TRAIN), rows)


def train(job: Run) -> None:
    """Stage 6; also the adapters of the controls whose arms the evaluation asks for."""
    job.free()
    if first_weights(job.folder) == "tokenskip":
        train_adapter(job.folder, job.prompts, job.progress)
    if job.config.name == CONTROL:
        return
    asked = {arm.weights for arm in job.config.chosen_arms()}
    if "random" in asked:
        train_control(job)
    if "full_chain" in asked:
        train_full_chain(job)


def rounds(job: Run) -> None:
    """Stage 6b: on-policy rounds, where the recipe asks for them; then the control that trains as long."""
    run_rounds(job)
    if any(arm.weights == "longer" for arm in job.config.chosen_arms()):
        train_longer(job)


def train_control(job: Run) -> None:
    """The adapter of the `random` arm: the same trajectories, budget and training, importance by chance."""
    path = job.folder.path / CONTROL
    if (path / ADAPTER).exists():
        return
    control_score = job.config.score.model_copy(update={"scorer": "random", "model": None, "options": {}})
    changes = {"name": CONTROL, "score": control_score, "engine": EngineConfig(), "rounds": RoundsConfig()}
    config = job.config.model_copy(update=changes)
    while rank() and not (path / TRAIN).exists():  # the first of several launched processes prepares it for all
        time.sleep(0.5)
    with Run(path, config, job.progress) as control:
        if not rank():
            _prepare_control(job, control)
        train(control)


def _prepare_control(job: Run, control: Run) -> None:
    """Score and prune by chance what the run has generated."""
    for name in (COMPLETIONS, TRAJECTORIES):
        if not control.folder.file(name).exists():
            copy_atomically(job.folder.file(name), control.folder.file(name))
    with alone():
        score(control)
        prune(control)


def evaluate(job: Run) -> None:
    """Stage 7. Raises ConfigError when the backend cannot do one of the arms."""
    check_arms(job.config)
    bench = bench_of(job)
    arms = sorted(
        job.config.chosen_arms(), key=lambda arm: (arm.weights != "base", arm.weights, arm.name != "original")
    )
    check_adapters(job.config, [job.adapter(weights) for weights in dict.fromkeys(arm.weights for arm in arms)])
    for _, ratio in rows_of([arm for arm in arms if arm.calibrated], job.config.evaluate.ratios):
        load_map(job.folder).prompted(ratio)  # out of reach, or not calibrated: said before any model loads
    for arm, ratio in rows_of(arms, job.config.evaluate.ratios):
        run_arm(bench, arm, ratio)
        time_arm(bench, arm, ratio)


def bench_of(job: Run) -> Bench:
    """What the arms of the evaluation share, of this job or of an actor's own."""
    return Bench(
        folder=job.folder,
        task=job.task,
        prompts=job.prompts,
        count=job.count,
        problems=lambda: job.problems("test"),
        backend=job.backend,
        progress=job.progress,
        map=lambda make, windows: job.map(partial(_on_bench, make), windows),
    )


def _on_bench(make: Callable[[Bench], Work], job: Run) -> Work:
    return make(bench_of(job))


def report(job: Run) -> Path:
    """Stage 8: the path of `report.html`."""
    from tokenskip.evaluation.results import write_results
    from tokenskip.report.page import write_report

    log_results(job.config.train.report_to, job.folder.path, write_results(job.folder))
    return write_report(job.folder.path)


def _prune_one(job: Run, trajectory: Trajectory, thresholds: dict[float, float] | None) -> Trajectory:
    if trajectory.dropped:
        return trajectory
    settings = job.config.prune
    ratios = settings.ratios
    if settings.per_trajectory == "one":
        ratios = (draw_ratio(trajectory.id, ratios, job.config.seed),)
    return prune_trajectory(trajectory, ratios, job.count, settings, thresholds)


def _need_correct(job: Run) -> None:
    """StageError unless something is left to learn from, with the reasons of what is not."""
    dropped: dict[str, int] = {}
    total = correct = 0
    for row in read_rows(job.folder.require(TRAJECTORIES)):
        total += 1
        if row["dropped"]:
            dropped[row["dropped"]] = dropped.get(row["dropped"], 0) + 1
        else:
            correct += 1
    if not correct:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items(), key=lambda one: -one[1])[:3])
        raise StageError(
            f"0 of {total} trajectories are correct: nothing to train on ({reasons or 'no problems'}); "
            f"everything is kept in {job.folder.path}. Try a stronger model, another prompt or a higher token cap"
        )


def _grow(
    job: Run,
    name: str,
    inputs: Iterable[Any],
    make: Callable[[Run], Work],
    window: int,
    title: str,
    total: int | None = None,
) -> int:
    """Let a file of the run grow by the work that `make` builds of a job, wherever the engine has that done."""
    return job.folder.grow(
        name, inputs, make, window=window, progress=job.progress, title=title, total=total, mapper=job.map
    )
