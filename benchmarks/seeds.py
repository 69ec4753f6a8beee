"""One recipe, several seeds: what a training of it is worth, and how much the next one may differ.

The recipe's chains are made, scored and cut once, and the untouched model answers once, also under terse prompts of the
recipe; then every seed trains and answers anew. Finished seeds are kept in the page's JSON file and not repeated unless
the recipe has changed, so the script may be stopped at any time. Writes docs/results/seeds.md and seeds.json.

    python benchmarks/seeds.py                                        # demo and any-ratio, five seeds each: hours
    python benchmarks/seeds.py --recipe demo --seeds 0,1 --n 500      # other numbers: also into seeds.json
    python benchmarks/seeds.py --dev --results /tmp/try --set train.average=0.5    # to choose a recipe by
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from headline import Lines
from pages import RESULTS, ROOT, fill_file, met_or_not, table
from sources import LEVEL, measured, verdict

from tokenskip import pipeline
from tokenskip.commands.prune import share_scores
from tokenskip.config import RunConfig, TrainConfig, load_recipe
from tokenskip.evaluation.stats import wilson
from tokenskip.report.text import pct, signed
from tokenskip.storage.layout import EVAL
from tokenskip.storage.store import CANDIDATES, CHOSEN, PRUNED, TRAIN

RECIPES = ("demo", "any-ratio")
SHARED = ("generate", "grade", "score", "prune", "candidates", "evaluate")
SHARED_FILES = (PRUNED, TRAIN, CHOSEN, CANDIDATES)
Row = dict[str, Any]
BOUNDS = {
    "demo": {0.8: 1.5, 0.6: 4.0},
    "any-ratio": {1.0: 1.0, 0.9: 1.0},
}
"""Points that the worst seed may lose at a ratio: the targets that the recipes were chosen by."""
MEANS = {"demo": {}, "any-ratio": {0.6: 0.4, 0.5: 1.5, 0.4: 0.4}}
"""Points that may be lost on average."""
RATIOS = {"any-ratio": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
"""Where fewer ratios are measured than the recipe measures."""
UNTRAINED = {"any-ratio": ("prompt_be_concise", "prompt_plain", "prompt_draft")}
"""Arms without training that no trained row should be less accurate than with as many tokens."""
README = "any-ratio"
"""The recipe of README.md's table."""
WITHIN = 0.03
"""How far any seed's achieved ratio may be from the ratio asked for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="default: both")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="seeds to train, with commas between")
    parser.add_argument("--n", type=int, default=2000, help="held-out problems")
    parser.add_argument("--dev", action="store_true", help="development problems, to choose by")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="section.key=value; may repeat")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "seeds", help="where run folders are")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of seeds.md and seeds.json")
    options = parser.parse_args(arguments)
    file = options.results / "seeds.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"recipes": {}, "rows": []}
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.recipe or RECIPES:
        config = recipe(name, options.n, options.dev, options.overrides)
        stored = json.loads(config.model_dump_json())
        before = known["recipes"].get(name)
        known["recipes"][name] = stored
        if before is None or RunConfig.model_validate(before) != config:  # another recipe's seeds say nothing here
            known["rows"] = [row for row in known["rows"] if row["recipe"] != name]
        for seed in map(int, options.seeds.split(",")):
            if any((row["recipe"], row["seed"]) == (name, seed) for row in known["rows"]):
                continue
            known["rows"] += train(config, options.runs / name, name, seed)
            file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            (options.results / "seeds.md").write_text(page(known), encoding="utf-8")
            if options.results == RESULTS and README in known["recipes"]:
                fill_file(ROOT / "README.md", "seeds", readme_table(known["rows"]))
    print(page(known))


def recipe(name: str, n: int, dev: bool, overrides: Sequence[str]) -> RunConfig:
    """The recipe with only the arms that are compared here."""
    fixed = [f"task.test_limit={n}", f"task.options={{dev: {str(dev).lower()}}}", "evaluate.latency_samples=0"]
    if name in RATIOS:
        fixed.append(f"evaluate.ratios={list(RATIOS[name])}")
    return load_recipe(ROOT / "src/tokenskip/recipes" / f"{name}.yaml", [*fixed, *overrides])


def train(config: RunConfig, folder: Path, name: str, seed: int) -> list[Row]:
    """The rows of one training, on a copy of what all trainings share; both are gone on with where they are there."""
    base, own = folder / "base", folder / f"seed-{seed}"
    shared = _with(config.model_copy(update={"train": TrainConfig()}), arms=("original", *UNTRAINED.get(name, ())))
    if base.exists() and json.loads((base / "shared.json").read_text(encoding="utf-8")) != _made_by(config):
        shutil.rmtree(folder)  # chains of another recipe
    with pipeline.Run(base, shared, Lines()) as run:
        (base / "shared.json").write_text(json.dumps(_made_by(config)), encoding="utf-8")
        for stage in SHARED:
            pipeline.STAGES[stage](run)
    if not own.exists():
        share_scores(base, own, [f"train={config.train.model_dump_json()}", f"train.seed={seed}"])
        for file in filter(Path.exists, (base / name for name in SHARED_FILES)):
            (shutil.copytree if file.is_dir() else shutil.copyfile)(file, own / file.name)
    print(f"{config.name}: seed {seed}", file=sys.stderr, flush=True)
    settings = _with(config, arms=("original", "tokenskip"), seed=seed)
    with pipeline.Run(own, settings, Lines()) as run:
        for stage in ("prune", "candidates", "train"):
            pipeline.STAGES[stage](run)
        (own / EVAL).mkdir(exist_ok=True)
        shutil.copyfile(base / EVAL / "original.jsonl", own / EVAL / "original.jsonl")
        pipeline.evaluate(run)
    others = list(measured(base, shared, name, None))
    trained = list(measured(own, settings, name, seed))
    rows = [{**row, "seed": seed} for row, _ in others]
    for row, found in trained:
        beaten = verdict(row, found, [pair for pair in others if pair[0]["arm"] != "original"])
        rows.append({**row, "rival": beaten["arm"], "rival_p": beaten["p"]})
    shutil.rmtree(own)  # the next recipe under this seed must not find it
    return rows


def _with(config: RunConfig, arms: Sequence[str], seed: int | None = None) -> RunConfig:
    evaluate = config.evaluate.model_copy(update={"arms": tuple(arms)})
    settings = config.train.model_copy(update={"seed": seed})
    return config.model_copy(update={"evaluate": evaluate, "train": settings})


def _made_by(config: RunConfig) -> dict[str, Any]:
    """The settings that what all trainings share depends on."""
    return json.loads(config.model_dump_json(exclude={"train", "evaluate"}))  # type: ignore[no-any-return]


def page(known: dict[str, Any]) -> str:
    """docs/results/seeds.md."""
    sections = [section(name, known["recipes"][name], known["rows"]) for name in RECIPES if name in known["recipes"]]
    return "\n".join(
        [
            "# How much trainings differ",
            "",
            "The same recipe trained with several seeds (`train.seed`): the seed decides the order of the chains, and",
            "rounding does the rest. Change: accuracy minus that of the untouched model on the same problems, in",
            "points, over trainings. Problems: the 95% Wilson interval of the mean accuracy, which no number of",
            "trainings makes narrower. Made by `python benchmarks/seeds.py`; every training:",
            "[seeds.json](seeds.json).",
            "",
            *sections,
        ]
    )


def readme_table(rows: Sequence[Row]) -> str:
    """What README.md has under its table, which is of one training."""
    mine = [row for row in rows if row["recipe"] == README]
    original = next(row for row in mine if row["arm"] == "original")
    changes: dict[float, list[float]] = {}
    for row in mine:
        if row["arm"] == "tokenskip":
            changes.setdefault(row["ratio"], []).append(100 * (row["accuracy"] - original["accuracy"]))
    ratios = sorted(changes, reverse=True)
    n = len(changes[ratios[0]])
    head = (f"{n} trainings, {original['n']:,} problems: change of accuracy, in points, at γ =", *map(str, ratios))
    lines = [(name, *(signed(float(of(changes[ratio]))) for ratio in ratios))
             for name, of in (("mean", np.mean), ("[worst training](docs/results/seeds.md)", min))]  # fmt: skip
    return f"\n{table(head, lines)}"


def section(name: str, config: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table of one recipe, and what it promised."""
    mine = [row for row in rows if row["recipe"] == name]
    original = next(row for row in mine if row["arm"] == "original")
    trained = [row for row in mine if row["arm"] == "tokenskip"]
    others = [row for row in mine if row["arm"] not in ("original", "tokenskip") and row["seed"] == mine[0]["seed"]]
    ratios = sorted({row["ratio"] for row in trained}, reverse=True)
    seeds = sorted({row["seed"] for row in trained})
    lines, verdicts = [], []
    for ratio in ratios:
        of_ratio = [row for row in trained if row["ratio"] == ratio]
        changes = [100 * (row["accuracy"] - original["accuracy"]) for row in of_ratio]
        achieved = [row["achieved_ratio"] for row in of_ratio]
        mean = float(np.mean([row["accuracy"] for row in of_ratio]))
        low, high = wilson(round(mean * original["n"]), original["n"])
        deviation = f"{np.std(changes, ddof=1):.2f}" if len(changes) > 1 else "–"
        lines.append(
            (
                f"{ratio:g}" + ("" if ratio in _ratios(config) else " (untrained)"),
                pct(mean),
                f"[{pct(low)}, {pct(high)}]",
                *(signed(value) for value in (float(np.mean(changes)), min(changes), max(changes))),
                deviation,
                f"{np.mean(achieved):.3f}",
                f"{min(achieved):.3f} – {max(achieved):.3f}",
            )
        )
        if (bound := BOUNDS[name].get(ratio)) is not None:
            met = min(changes) >= -bound
            verdicts.append(f"- γ = {ratio:g}: the worst seed loses at most {bound:g} points: {met_or_not(met)}.")
        if (bound := MEANS[name].get(ratio)) is not None:
            met = float(np.mean(changes)) >= -bound
            verdicts.append(f"- γ = {ratio:g}: the mean loses at most {bound:g} points: {met_or_not(met)}.")
    error = max((abs(row["achieved_ratio"] - row["ratio"]) for row in trained), default=0.0)
    verdicts.append(
        f"- every seed follows every ratio within {WITHIN:g}: {met_or_not(error <= WITHIN)} (at most {error:.3f})."
    )
    if others:
        verdicts.append(_unbeaten(trained))
    head = ("γ", "accuracy", "problems", "change", "worst", "best", "sd", "achieved", "from – to")
    told = ", ".join(
        f"`{row['arm']}` {pct(row['accuracy'])} with {row['cot_tokens_mean']:.1f} tokens" for row in others
    )
    heading = f"## `{name}`: {len(seeds)} training{'s' * (len(seeds) > 1)}, {original['n']:,} problems"
    untrained = f"The untouched model: {pct(original['accuracy'])}{f'; prompted: {told}' if told else ''}."
    return f"{heading}\n\n{untrained}\n\n{table(head, lines)}\n" + "\n".join(verdicts) + "\n"


def _unbeaten(trained: Sequence[Row]) -> str:
    """Whether an arm without training is more accurate than a trained row that has at least as many tokens."""
    lost = [row for row in trained if row["rival"] and row["rival_p"] < LEVEL]
    where = ", ".join(f"seed {row['seed']} at γ = {row['ratio']:g}" for row in lost)
    return (
        f"- of {len(trained)} trained rows none is less accurate than an arm without training that has at most as many "
        f"tokens (paired, one-sided p < {LEVEL:g}): {met_or_not(not lost)}{f' ({where})' if lost else ''}."
    )


def _ratios(config: dict[str, Any]) -> tuple[float, ...]:
    return RunConfig.model_validate(config).prune.ratios


if __name__ == "__main__":
    main()
