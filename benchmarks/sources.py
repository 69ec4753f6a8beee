"""Short chains from every source on the embedded model: one recipe, several pools of chains to train on.

The recipe is `any-ratio`; only where its chains come from differs. One set of chains, a training for each pool and
seed, and every arm on the same held-out problems, also those without training: is one of them more accurate with as few
tokens (paired by problem, one-sided)? Works in `--out` (runs/sources) and goes on there; writes docs/results/sources.md
and sources.json with what is finished.

    python benchmarks/sources.py                  # a seed of all: six hours of one core
    python benchmarks/sources.py --only splice --seeds 0,1,2
    python benchmarks/sources.py --limit 12       # a trial
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline import RECIPE, Lines
from pages import RESULTS, ROOT, table

from tokenskip import pipeline
from tokenskip.arms import label, rows_of
from tokenskip.candidates.choose import load_info
from tokenskip.config import RunConfig, load_recipe
from tokenskip.errors import TokenskipError, unknown_name
from tokenskip.evaluation.evaluate import read_arm
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.report.text import pct
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, CANDIDATES, CHOSEN, TRAIN, Row, RunFolder, write_atomically
from tokenskip.types import Trajectory

RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PRUNE: Row = {"prune": {}}
CONCISE: Row = {"prompt": {"instructions": ["be_concise"]}}
SPLICE: Row = {"prompt": {"instructions": ["be_concise"], "splice": True}}
TWO: Row = {"prompt": {"instructions": ["be_concise", "Use plain words."], "splice": True}}
ROUND: Row = {"on_policy": {"rounds": 1, "temperature": 0.7, "samples": 1}}


@dataclass(frozen=True, slots=True)
class Pool:
    """What is trained on, and the arm that is judged.

    `start`: the pool whose adapter, once trained, is gone on from; in this run it is the arm `first`.
    """

    about: str
    sources: Row
    prefer: str = "listed"
    arm: str = "tokenskip"
    start: str | None = None
    first: str = ""
    overrides: tuple[str, ...] = ()


RECIPES = {
    "prune": Pool("pruned chains alone, as in the paper", PRUNE),
    "concise": Pool('answers under "Be concise." where one is near the ratio, else pruned', CONCISE | PRUNE),
    "splice": Pool("these and their splices with the whole chain, else pruned: `any-ratio`", SPLICE | PRUNE),
    "likely": Pool("the same pool, the likeliest near each ratio", SPLICE | PRUNE, prefer="likely"),
    "two": Pool('splices with "Use plain words." between the two as well', TWO | PRUNE),
    "round": Pool(
        "`splice`, then a round with the tuned model's own chains first",
        ROUND | SPLICE | PRUNE,
        start="splice",
        first="tokenskip_round_0",
    ),
    "grpo": Pool(
        "`splice`, then 200 steps of reinforcement learning",
        SPLICE | PRUNE,
        arm="tokenskip_grpo",
        start="splice",
        first="tokenskip",
        overrides=("grpo={steps: 200, length: near}",),
    ),
}
UNTRAINED = ("original", "prompt_be_concise", "prompt_plain", "prompt_draft", "prompt_budget", "prompt_seeded")
TRAINED = ("original", "tokenskip", "random_matched")
SHARED = ("completions.jsonl", "trajectories.jsonl", "scores.jsonl", "pruned.jsonl")
FROM_START = (*SHARED, CANDIDATES, CHOSEN, TRAIN, ADAPTER)
CPU = "cpu.json"
SPENT = ("candidates", "train", "rounds", "grpo")
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: training problems, held-out problems, and steps (None: the recipe's epochs)."""

    train: int = 15000
    test: int = 2000
    steps: int | None = None


def config_of(size: Size, recipe: str, seed: int, arms: Sequence[str]) -> RunConfig:
    """The recipe `any-ratio` with another source of chains; `seed` is the training's, the chains are the same."""
    pool = RECIPES[recipe]
    overrides = [
        f"name=sources-{recipe}-{seed}",
        f"task.train_limit={size.train}",
        f"task.test_limit={size.test}",
        f"candidates={json.dumps({'sources': pool.sources, 'prefer': pool.prefer, 'tolerance': 0.1})}",
        f"train.seed={seed}",
        f"evaluate.arms={list(arms)}",
        f"evaluate.ratios={list(RATIOS)}",
        "evaluate.latency_samples=0",
        *pool.overrides,
    ]
    if size.steps:
        overrides += [f"train.trainer.max_steps={size.steps}", *(["grpo.steps=2"] if recipe == "grpo" else ())]
    return load_recipe(RECIPE, overrides)


def chains(out: Path, size: Size) -> None:
    """The chains, their cuts, and the arms without training."""
    with Run(out / "chains", config_of(size, "prune", 0, UNTRAINED), Lines()) as run:
        for stage in ("generate", "grade", "score", "prune", "evaluate"):
            pipeline.STAGES[stage](run)


def on_shared(source: Path, folder: Path, files: Sequence[str]) -> Path:
    """`folder`, begun with copies of these files and folders of `source` and the untouched model's answers there."""
    draft = folder.with_name(f"{folder.name}.tmp")
    if not folder.exists():
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "eval").mkdir(parents=True)
        for name in (*files, "eval/original.jsonl"):
            (shutil.copytree if (source / name).is_dir() else shutil.copyfile)(source / name, draft / name)
        draft.replace(folder)
    return folder


def train(out: Path, size: Size, recipe: str, seed: int) -> None:
    """A recipe's training and its arms, on the shared chains; the CPU seconds of every stage go into `cpu.json`."""
    start = RECIPES[recipe].start
    if start:
        train(out, size, start, seed)
    source, files = (out / f"{start}-{seed}", FROM_START) if start else (out / "chains", SHARED)
    folder = on_shared(source, out / f"{recipe}-{seed}", files)
    spent: dict[str, float] = json.loads((folder / CPU).read_text()) if (folder / CPU).exists() else {}
    with Run(folder, config_of(size, recipe, seed, TRAINED), Lines()) as run:
        for stage in ("generate", "grade", "score", "prune", "candidates", "train", "rounds", "grpo", "evaluate"):
            if stage == "evaluate" and start:  # the same weights, so the same answers
                for file in (source / "eval").glob("tokenskip-*.jsonl"):
                    target = folder / "eval" / file.name.replace("tokenskip", RECIPES[recipe].first)
                    if not target.exists():
                        shutil.copyfile(file, target)
            before = time.process_time()
            pipeline.STAGES[stage](run)
            spent[stage] = spent.get(stage, 0.0) + time.process_time() - before
            write_atomically(folder / CPU, json.dumps(spent))


def measured(path: Path, config: RunConfig, recipe: str, seed: int | None) -> Iterator[tuple[Row, list[Trajectory]]]:
    """Row and completions of every arm that is finished there."""
    folder = RunFolder(path, config)
    original = list(read_arm(folder, "original")) if folder.file("eval/original.jsonl").exists() else []
    for arm, ratio in rows_of(config.chosen_arms(), config.evaluate.ratios):
        name = label(arm, ratio)
        if not folder.file(f"eval/{name}.jsonl").exists() or (seed is not None and arm.name == "original"):
            continue
        found = list(read_arm(folder, name))
        if original and len(found) == len(original):
            one = summarise_arm(arm, ratio if arm.per_ratio else None, found, original)
            row = {
                "recipe": recipe,
                "seed": seed,
                "arm": arm.name,
                "ratio": one.ratio,
                "n": one.n,
                "accuracy": one.accuracy,
                "cot_tokens_mean": one.cot_tokens_mean,
                "achieved_ratio": one.achieved_ratio,
            }
            yield row, found


def collect(out: Path, size: Size) -> Row:
    """Every finished row, the verdicts, and what each pool has chosen."""
    untrained = list(measured(out / "chains", config_of(size, "prune", 0, UNTRAINED), "none", None))
    rows, verdicts, pools, seconds = [row for row, _ in untrained], [], {}, []
    for path in sorted(out.glob("*-[0-9]*")):
        recipe, _, seed = path.name.rpartition("-")
        if recipe not in RECIPES or not seed.isdigit():
            continue
        arm = RECIPES[recipe].arm
        found = list(measured(path, config_of(size, recipe, int(seed), TRAINED), recipe, int(seed)))
        controls = [pair for pair in found if pair[0]["arm"] == "random_matched"] if arm == "tokenskip" else []
        trained = [pair for pair in found if pair[0]["arm"] == arm]
        rows += [row for row, _ in (*trained, *controls)]
        verdicts += [verdict(row, written, [*untrained, *controls]) for row, written in trained]
        if (path / CPU).exists():
            seconds.append({"recipe": recipe, "seed": int(seed), **json.loads((path / CPU).read_text())})
        file = max([path / CHOSEN, *path.glob(f"round-*/{CHOSEN}")])
        if file.exists():
            pools[recipe] = load_info(file)
    return {
        "n": rows[0]["n"] if rows else 0,
        "train": size.train,
        "ratios": RATIOS,
        "rows": rows,
        "verdicts": verdicts,
        "pools": pools,
        "cpu_seconds": seconds,
    }


def verdict(row: Row, found: Sequence[Trajectory], others: Sequence[tuple[Row, list[Trajectory]]]) -> Row:
    """The untrained arm that is most surely more accurate than a trained row with at most as many tokens."""
    right = [bool(one.grade and one.grade.correct) for one in found]
    worst: Row = {"arm": None, "p": 1.0, "gained": 0, "lost": 0}
    for other, written in others:
        if other["cot_tokens_mean"] > row["cot_tokens_mean"]:
            continue
        theirs = [bool(one.grade and one.grade.correct) for one in written]
        gained = sum(their and not own for own, their in zip(right, theirs, strict=True))
        lost = sum(own and not their for own, their in zip(right, theirs, strict=True))
        p = one_sided(gained, lost)
        if p < worst["p"] or worst["arm"] is None:
            name = other["arm"] if other["ratio"] is None else f"{other['arm']} {other['ratio']}"
            worst = {"arm": name, "p": round(p, 4), "gained": gained, "lost": lost}
    return {**{key: row[key] for key in ("recipe", "seed", "ratio")}, **worst, "met": worst["p"] >= LEVEL}


def one_sided(gained: int, lost: int) -> float:
    """Exact McNemar: how likely at least so many problems are gained if gains and losses were equally likely."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0


def page(results: Row) -> str:
    """docs/results/sources.md."""
    trained = [row for row in results["rows"] if row["seed"] is not None]
    names = list(dict.fromkeys((row["recipe"], row["seed"]) for row in trained))
    head = ("recipe", "seed", *(f"γ = {ratio}" for ratio in results["ratios"]))
    tables = []
    for arms in (("tokenskip", "tokenskip_grpo"), ("random_matched",)):
        cells = []
        for recipe, seed in names:
            at = {
                row["ratio"]: row
                for row in trained
                if (row["recipe"], row["seed"]) == (recipe, seed) and row["arm"] in arms
            }
            if at:
                texts = [f"{pct(at[r]['accuracy'])} / {at[r]['achieved_ratio']:.2f}" if r in at else "–"
                         for r in results["ratios"]]  # fmt: skip
                cells.append((f"`{recipe}`", seed, *texts))
        tables.append(table(head, cells, 1))
    others = [
        (f"`{row['arm']}`", "–" if row["ratio"] is None else row["ratio"], pct(row["accuracy"]),
         f"{row['cot_tokens_mean']:.1f}", f"{row['achieved_ratio']:.3f}")
        for row in results["rows"] if row["seed"] is None
    ]  # fmt: skip
    against = [
        (f"`{one['recipe']}`", one["seed"], one["ratio"], f"`{one['arm']}`" if one["arm"] else "none",
         f"{one['gained']} / {one['lost']}", f"{one['p']:.3f}", "yes" if one["met"] else "**no**")
        for one in results["verdicts"]
    ]  # fmt: skip
    spent = [
        (f"`{one['recipe']}`", one["seed"], *(f"{one[stage]:,.0f}" if one[stage] >= 1 else "–" for stage in SPENT))
        for one in results["cpu_seconds"]
    ]
    listed = "\n".join(f"- `{name}`: {RECIPES[name].about}" for name in dict.fromkeys(name for name, _ in names))
    return f"""# Short chains from every source

Made by `python benchmarks/sources.py`: the recipe `any-ratio` with {results["train"]:,} questions and
{results["n"]:,} held-out problems, all arms greedy; every number: [sources.json](sources.json). An extension of the
paper, which prunes only. A seed is that of the training; the chains are the same. How much
trainings differ: [seeds](seeds.md).

{listed}

Accuracy / achieved ratio of the trained model:

{tables[0]}
The original's chains with units left out at random until as long as that arm's on each problem, then made to answer:

{tables[1]}
CPU seconds of what each took beyond the shared chains; `round` and `grpo` begin with the adapter of `splice`:

{table(("recipe", "seed", *SPENT), spent, 1)}
## Without training

{table(("arm", "γ", "accuracy", "CoT tokens", "achieved ratio"), others, 1)}
## Is an untrained arm better with as few tokens?

For each trained row, of all arms without training that write at most as many tokens the one that is most surely more
accurate: problems gained and lost against the trained model, and the exact one-sided p. "Yes": none is at {LEVEL:g}.

{table(("recipe", "seed", "γ", "untrained arm", "gained / lost", "p", "holds"), against, 1)}
## What won

{_won(results)}"""


def _won(results: Row) -> str:
    """Per pool how many chains of each source are trained on at each ratio."""
    sections = []
    for name, info in results["pools"].items():
        ratios = list(info["missing"])
        rows = [(f"`{source}`", *(f"{counts['won'].get(ratio, 0):,}" for ratio in ratios))
                for source, counts in info["sources"].items()]  # fmt: skip
        rows.append(("no candidate", *(f"{info['missing'][ratio]:,}" for ratio in ratios)))
        sections.append(f"`{name}`:\n\n{table(('source', *(f'γ = {ratio}' for ratio in ratios)), rows, 1)}")
    return "\n".join(sections) or "No pool is trained yet.\n"


def publish(results: Row, folder: Path) -> None:
    """sources.md and sources.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sources.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "sources.md", page(results).rstrip() + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help=f"a recipe of {', '.join(RECIPES)}; may repeat")
    parser.add_argument("--seeds", default="0", help="seeds of the training, such as 0,1,2")
    parser.add_argument("--n", type=int, default=Size().test, help="held-out problems")
    parser.add_argument("--train", type=int, default=Size().train, help="training problems")
    parser.add_argument("--limit", type=int, help="a trial with at most N problems and two steps")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/sources)")
    args = parser.parse_args(arguments)
    size = Size(args.train, args.n) if args.limit is None else Size(args.limit, args.limit, steps=2)
    out = args.out or ROOT / "runs" / ("sources" if args.limit is None else f"sources-{args.limit}")
    names: list[Any] = args.only or list(RECIPES)
    try:
        for name in names:
            if name not in RECIPES:
                raise TokenskipError(unknown_name("recipe", name, RECIPES))
        chains(out, size)
        for seed in map(int, args.seeds.split(",")):
            for name in names:
                train(out, size, name, seed)
                folder = RESULTS if args.limit is None else out / "published"
                publish(collect(out, size), folder)
    except TokenskipError as error:
        print(f"sources: {error}", file=sys.stderr)
        sys.exit(2)
    print(folder / "sources.md")


if __name__ == "__main__":
    main()
