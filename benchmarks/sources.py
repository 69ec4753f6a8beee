"""Short chains from every source on the embedded model: pruning alone, the pool, the pool with an on-policy round.

One set of chains and candidates, a training for each recipe and seed, and every arm on the same held-out problems. The
question is whether an arm without training is more accurate with as few tokens (paired by problem, one-sided). Works in
`--out` (runs/sources) and goes on there; writes docs/results/sources.md and sources.json with what is finished.

    python benchmarks/sources.py --seeds 0 --n 500
    python benchmarks/sources.py --only pool --seeds 0,1,2
    python benchmarks/sources.py --limit 12       # a trial
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline import EMBEDDED, Lines
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
from tokenskip.storage.store import CHOSEN, Row, RunFolder, write_atomically
from tokenskip.types import Trajectory

RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PLAIN = "Use plain words."
SOURCES = {"prune": {}, "prompt": {"instructions": ["be_concise", PLAIN]}}
ON_POLICY = {"on_policy": {"rounds": 1, "temperature": 0.7, "samples": 2}}
RECIPES = {
    "prune": {"sources": {"prune": {}}},
    "pool": {"sources": SOURCES, "tolerance": 0.06},
    "pool_nearest": {"sources": SOURCES, "tolerance": 0.06, "prefer": "nearest"},
    "pool_skip": {"sources": {**SOURCES, "skip_steps": {}}, "tolerance": 0.06},
    "pool_round": {"sources": {**SOURCES, **ON_POLICY}, "tolerance": 0.06, "limit": 1000},
}
"""Name -> `candidates`."""
ABOUT = {
    "prune": "pruned chains alone",
    "pool": "pruned, and written under two terse instructions; the likeliest near each ratio",
    "pool_nearest": "the same pool, the nearest to each ratio",
    "pool_skip": "the pool, and chains with whole steps left out",
    "pool_round": "the pool, then a round with the tuned model's own chains in it",
}
UNTRAINED = ("original", "prompt_be_concise", "prompt_plain", "prompt_draft", "prompt_budget", "prompt_seeded")
DEFINE = {"prompt_plain": {"about": f'untrained, "{PLAIN}" in the prompt', "instruction": PLAIN}}
TRAINED = ("original", "tokenskip", "random_matched")
SHARED = ("completions.jsonl", "trajectories.jsonl", "scores.jsonl", "pruned.jsonl", "candidates")
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: training problems, held-out problems, and steps (None: the recipe's epochs)."""

    train: int = 3000
    test: int = 500
    steps: int | None = None


def config_of(size: Size, recipe: str, seed: int, arms: Sequence[str]) -> RunConfig:
    """The recipe `embedded` with another source of chains; `seed` is the training's, the chains are the same."""
    overrides = [
        f"name=sources-{recipe}-{seed}",
        f"task.train_limit={size.train}",
        f"task.test_limit={size.test}",
        f"prune.ratios={[*RATIOS, 1.0]}",
        f"candidates={json.dumps(RECIPES[recipe])}",
        f"train.seed={seed}",
        f"evaluate.arms={list(arms)}",
        f"evaluate.define={json.dumps(DEFINE)}",
        f"evaluate.ratios={list(RATIOS)}",
        "evaluate.latency_samples=0",
    ]
    if size.steps:
        overrides.append(f"train.trainer.max_steps={size.steps}")
    return load_recipe(EMBEDDED, overrides)


def chains(out: Path, size: Size) -> None:
    """The chains, their cuts, every candidate of the largest pool, and the arms without training."""
    with Run(out / "chains", config_of(size, "pool_skip", 0, UNTRAINED), Lines()) as run:
        for stage in ("generate", "grade", "score", "prune", "candidates", "evaluate"):
            pipeline.STAGES[stage](run)


def on_shared(out: Path, name: str) -> Path:
    """The folder `name`, begun with a copy of the shared chains, their candidates and the untouched model's answers."""
    folder, draft = out / name, out / f"{name}.tmp"
    if not folder.exists():
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "eval").mkdir(parents=True)
        for shared in (*SHARED, "eval/original.jsonl"):
            source = out / "chains" / shared
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, draft / shared)
        draft.replace(folder)
    return folder


def train(out: Path, size: Size, recipe: str, seed: int) -> None:
    """A recipe's training and its arms, on the shared chains."""
    with Run(on_shared(out, f"{recipe}-{seed}"), config_of(size, recipe, seed, TRAINED), Lines()) as run:
        for stage in ("generate", "grade", "score", "prune", "candidates", "train", "rounds", "evaluate"):
            pipeline.STAGES[stage](run)


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
    untrained = list(measured(out / "chains", config_of(size, "pool_skip", 0, UNTRAINED), "none", None))
    rows, verdicts, pools = [row for row, _ in untrained], [], {}
    for path in sorted(out.glob("*-[0-9]*")):
        recipe, _, seed = path.name.rpartition("-")
        if recipe not in RECIPES or not seed.isdigit():
            continue
        trained = list(measured(path, config_of(size, recipe, int(seed), TRAINED), recipe, int(seed)))
        rows += [row for row, _ in trained]
        others = [*untrained, *(pair for pair in trained if pair[0]["arm"] != "tokenskip")]
        verdicts += [verdict(row, found, others) for row, found in trained if row["arm"] == "tokenskip"]
        file = max([path / CHOSEN, *path.glob(f"round-*/{CHOSEN}")])
        if file.exists():
            pools[recipe] = load_info(file)
    return {"n": rows[0]["n"] if rows else 0, "ratios": RATIOS, "rows": rows, "verdicts": verdicts, "pools": pools}


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
    for arm in ("tokenskip", "random_matched"):
        cells = []
        for recipe, seed in names:
            at = {
                row["ratio"]: row for row in trained if (row["recipe"], row["seed"], row["arm"]) == (recipe, seed, arm)
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
    listed = "\n".join(f"- `{name}`: {ABOUT[name]}" for name in dict.fromkeys(name for name, _ in names))
    return f"""# Short chains from every source

Made by `python benchmarks/sources.py`: the embedded model, {results["n"]:,} held-out problems, all arms greedy; every
number: [sources.json](sources.json). An extension of the paper, which prunes only. A seed is that of the training;
chains and candidates are the same.

{listed}

Accuracy / achieved ratio of the trained model:

{tables[0]}
The original's chains with units left out at random until as long as that arm's on each problem, then made to answer:

{tables[1]}
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
    parser.add_argument("--seeds", default="0,1,2", help="seeds of the training, such as 0,1,2")
    parser.add_argument("--n", type=int, default=2000, help="held-out problems")
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
