"""Every number the report shows: run folder -> `results.json`, in the shape that `schema.Results` describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from tokenskip.answers.thoughts import closing
from tokenskip.arms import ORIGINAL, label, round_number, rows_of
from tokenskip.candidates.choose import load_info
from tokenskip.candidates.settings import ON_POLICY
from tokenskip.config import RunConfig
from tokenskip.errors import StageError
from tokenskip.evaluation.comparisons import headline, main_arm, monotone, pareto
from tokenskip.evaluation.evaluate import read_arm, read_timings
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.schema import (
    SCHEMA,
    ArmResult,
    ChosenChain,
    ChosenChains,
    FunnelStep,
    Output,
    Pool,
    PoolSource,
    Results,
    Round,
    RoundRatio,
    Sample,
    ShownProblem,
)
from tokenskip.evaluation.shorten import full_cap
from tokenskip.evaluation.warnings import warnings
from tokenskip.evaluation.word_importance import word_levels
from tokenskip.storage.store import (
    ADAPTER,
    CHOSEN,
    EVAL,
    PRUNED,
    RESULTS,
    SCORES,
    TRAIN,
    Row,
    RunFolder,
    read_manifest,
    read_rows,
    write_atomically,
)
from tokenskip.training.dataset import few_steps
from tokenskip.training.rounds import round_infos
from tokenskip.types import Trajectory

N_SAMPLES = 4
SAMPLE_CHARS = 8_000
"""Of a training chain, what a sample shows: its pieces take a hundred bytes each on the page."""
N_PROBLEMS = 200
OUTPUT_CHARS = 20_000
"""Of a completion, what the report's browser shows; its tokens and its grade are of the whole."""
PROBLEMS_CHARS = 6_000_000
"""Of all outputs together: fewer problems are shown where chains are long, so that the page stays one that opens."""


def write_results(folder: RunFolder) -> Results:
    """Sum up the run and write `results.json`; returns what it holds.

    Raises:
        StageError: the original model has not been evaluated yet.
    """
    manifest = read_manifest(folder.path)
    config = folder.config
    rows = _finished_rows(folder)
    if ORIGINAL.name not in rows:
        raise StageError(f"{folder.path} has no evaluation yet: run `tokenskip evaluate {folder.path}` first")
    arms = _arms(folder, rows)
    steps = funnel(folder)
    problems = _problems(arms, rows)
    pool, chosen = _pool(folder)
    results = Results(
        schema_version=SCHEMA,
        run=config.name,
        tokenskip_version=version("tokenskip"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=manifest["hardware"],
        versions=manifest["versions"],
        config=config.model_dump(mode="json"),
        backend=config.generate.backend,
        funnel=tuple(steps),
        arms=tuple(arms),
        monotone=monotone(arms),
        matched=tuple(pareto(arms)),
        rounds=tuple(_rounds(folder, arms)),
        pool=pool,
        chosen=chosen,
        samples=tuple(_samples(folder)),
        problems=tuple(problems),
        word_levels=_word_levels(folder, problems),
        warnings=(*warnings(arms), *_data_warnings(folder, steps, pool)),
    )
    write_atomically(folder.file(RESULTS), results.to_json())
    return results


def _finished_rows(folder: RunFolder) -> dict[str, list[Trajectory]]:
    """Label of a file -> its rows, of every arm and ratio that was evaluated on all problems."""
    found = {}
    for arm, ratio in rows_of(list(folder.config.known_arms().values()), folder.config.evaluate.ratios):
        name = label(arm, ratio)
        if folder.file(f"{EVAL}/{name}.jsonl").exists():
            found[name] = list(read_arm(folder, name))
    size = len(found.get(ORIGINAL.name, ()))
    return {name: rows for name, rows in found.items() if rows and len(rows) == size}


def _arms(folder: RunFolder, rows: Mapping[str, list[Trajectory]]) -> list[ArmResult]:
    """The numbers of every finished row, in the order of the arms."""
    known = folder.config.known_arms()
    # An arm with one row only has no ratio in its summary, so none in its times
    timings = [
        row if known[row["arm"]].per_ratio else {**row, "ratio": None}
        for row in read_timings(folder)
        if row["arm"] in known  # one that the recipe no longer defines
    ]
    full, original = full_cap(folder.config), rows[ORIGINAL.name]
    arms = []
    for arm, ratio in rows_of(list(known.values()), folder.config.evaluate.ratios):
        if (name := label(arm, ratio)) in rows:
            cap = arm.token_cap(full, ratio, folder.config.evaluate.length)
            arms.append(
                summarise_arm(
                    arm,
                    ratio if arm.per_ratio else None,
                    rows[name],
                    original,
                    timings,
                    length="full" if cap == full else "paper",
                    token_cap=cap,
                    is_closed=_closing(folder.config),
                )
            )
    return arms


def _closing(config: RunConfig) -> Callable[[str], bool] | None:
    """Whether an output's thinking came to an end; None where the answer is marked otherwise."""
    tags = config.prompt.think
    return (lambda output: closing(output, tags) is not None) if config.prompt.answer == "think" else None


def _data_warnings(folder: RunFolder, steps: Sequence[FunnelStep], pool: Pool | None) -> Iterator[str]:
    """Too short a fine-tuning for the ratio to mean anything; a source or a ratio that came to nothing."""
    rows = next((step.count for step in steps if step.reason == "training rows"), None)
    few = few_steps(rows, folder.config.train) if rows and folder.file(ADAPTER).exists() else None
    if few:
        yield f"{few}."
    for source in pool.sources if pool else ():
        if not any(source.near.values()):
            yield (
                f"The source {source.source} has no candidate near any ratio ({source.right:,} right of "
                f"{source.candidates:,}): nothing of it is trained on."
            )
    for ratio in pool.missing if pool else ():
        if pool and not pool.rows[ratio]:
            yield f"No candidate came near the ratio {ratio}: it is not trained."


def _rounds(folder: RunFolder, arms: Sequence[ArmResult]) -> Iterator[Round]:
    """Every on-policy round: what was sampled and kept at each ratio, and how its adapter then did on the test."""
    measured = ("n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean", "achieved_ratio", "ratio_error")
    for info in round_infos(folder):
        of_round = [arm for arm in arms if round_number(arm.weights) == info["round"]]
        if info["round"] == folder.config.candidates.rounds:
            main = main_arm(arms)
            of_round = [arm for arm in arms if arm.arm == main]
        own = info["sources"][ON_POLICY]
        by_ratio: dict[str, Row] = {ratio: {"near": n, "kept": own["won"][ratio]} for ratio, n in own["near"].items()}
        for arm in of_round:
            by_ratio.setdefault(str(arm.ratio), {}).update({key: getattr(arm, key) for key in measured})
        yield Round(
            round=info["round"],
            arm=of_round[0].arm if of_round else None,
            sampled=own["candidates"],
            correct=own["right"],
            near=sum(own["near"].values()),
            kept=sum(own["won"].values()),
            train_tokens=info["train_tokens"],
            by_ratio={ratio: RoundRatio.model_validate(row) for ratio, row in by_ratio.items()},
        )


def _pool(folder: RunFolder) -> tuple[Pool | None, tuple[ChosenChains, ...]]:
    """What the last training had to choose from, and a few questions with all that it chose."""
    last = [f"round-{number}/" for number in range(folder.config.candidates.rounds, 0, -1)] + [""]
    place = next((place for place in last if folder.file(f"{place}{CHOSEN}").exists()), None)
    if place is None:
        return None, ()
    info = load_info(folder.file(f"{place}{CHOSEN}"))
    sources = [PoolSource(source=source, **counts) for source, counts in info["sources"].items()]
    pool = Pool(sources=tuple(sources), **{key: info[key] for key in Pool.model_fields if key != "sources"})
    return pool, tuple(_chosen(folder.file(f"{place}{TRAIN}")))


def _chosen(train_file: Path) -> list[ChosenChains]:
    """Of the first questions those with the most sources, each with the chains that it is trained on."""
    shown = []
    for id, group in islice(groupby(read_rows(train_file), itemgetter("id")), 64):
        rows = list(group)
        chains = [
            ChosenChain(
                ratio=row["ratio"],
                source=row.get("source", "whole"),
                achieved_ratio=row["achieved_ratio"],
                text=shortened(row["completion"][0]["content"], SAMPLE_CHARS),
            )
            for row in rows
        ]
        shown.append(ChosenChains(id=id, question=rows[0]["prompt"][-1]["content"], chains=tuple(chains)))
    return sorted(shown, key=lambda question: -len({chain.source for chain in question.chains}))[:N_SAMPLES]


def funnel(folder: RunFolder) -> list[FunnelStep]:
    """From generated trajectories to training rows: how many were left out at each step, and why."""
    reasons: Counter[str] = Counter()
    generated = rejected = cuts = 0
    for trajectory in folder.trajectories():
        generated += 1
        reasons[trajectory.dropped or "correct"] += 1
    steps = [("generated", generated), ("correct", reasons.pop("correct", 0)), *reasons.most_common()]
    if folder.file(PRUNED).exists():
        for row in read_rows(folder.file(PRUNED)):
            cuts += len(row.get("pruned", ()))
            rejected += sum(1 for cut in row.get("pruned", ()) if cut["rejected"])
        steps += [("pruned texts", cuts), ("rejected by the equation check or for its ratio", rejected)]
    if folder.file(TRAIN).exists():
        steps.append(("training rows", sum(1 for _ in read_rows(folder.file(TRAIN)))))
    return [FunnelStep(reason=reason, count=count) for reason, count in steps]


def _samples(folder: RunFolder) -> Iterator[Sample]:
    """A few training chains with what was kept of them at each ratio, and how important every part is."""
    if not (folder.file(PRUNED).exists() and folder.file(SCORES).exists()):
        return
    alive = (row for row in folder.trajectories(SCORES, PRUNED) if row.scores and row.pruned)
    for row in sorted(islice(alive, 64), key=lambda row: -len(row.pruned))[:N_SAMPLES]:
        assert row.scores is not None
        yield Sample(
            id=row.id,
            question=row.question,
            gold=row.gold,
            cot=row.cot[:SAMPLE_CHARS],
            n_chars_left_out=max(0, len(row.cot) - SAMPLE_CHARS),
            kept_by_ratio={str(cut.ratio): _within(cut.kept) for cut in row.pruned if cut.ratio < 1},
            importance=tuple(
                (start, min(end, SAMPLE_CHARS), float(f"{value:.3g}"))
                for start, end, value in row.scores.spans
                if start < SAMPLE_CHARS
            ),
        )


def _within(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The part of some character ranges that a sample shows."""
    return tuple((start, min(end, SAMPLE_CHARS)) for start, end in ranges if start < SAMPLE_CHARS)


def shortened(text: str, limit: int) -> str:
    """`text`, or its first `limit` characters and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def _problems(arms: Sequence[ArmResult], rows: Mapping[str, list[Trajectory]]) -> list[ShownProblem]:
    """The first problems with every row's output, for the report's browser; flips from right to wrong come first."""
    shown = {arm.label: rows[_file(arm)] for arm in arms if arm.shortened_by != "truncation"}
    original, pair = rows[ORIGINAL.name], headline(arms)
    main = shown[pair[1].label] if pair else original
    order = sorted(range(len(main)), key=lambda i: (_is_right(main[i]) or not _is_right(original[i]), i))
    problems: list[ShownProblem] = []
    room = PROBLEMS_CHARS
    for i in order[:N_PROBLEMS]:
        outputs = {name: _output(written[i]) for name, written in shown.items()}
        room -= sum(len(output.output) for output in outputs.values()) + len(original[i].question)
        if problems and room < 0:
            break
        row = original[i]
        problem = ShownProblem(id=row.id, question=row.question, gold=row.gold, level=row.level, arms=outputs)
        problems.append(problem)
    return problems


def _file(arm: ArmResult) -> str:
    """The name of an arm's file of rows."""
    return arm.label.replace(" ", "-")


def _word_levels(folder: RunFolder, problems: Sequence[ShownProblem]) -> dict[str, int]:
    """How important the run's scorer finds the words of the problems' outputs; empty before anything is scored."""
    if not folder.file(SCORES).exists():
        return {}
    outputs = (shown.output for problem in problems for shown in problem.arms.values())
    return word_levels((row for row in folder.trajectories(SCORES) if row.scores), outputs)


def _output(row: Trajectory) -> Output:
    correct = row.grade.correct if row.grade else None
    return Output(correct=correct, n_cot_tokens=row.n_cot_tokens, output=shortened(row.output, OUTPUT_CHARS))


def _is_right(row: Trajectory) -> bool:
    return bool(row.grade and row.grade.correct)
