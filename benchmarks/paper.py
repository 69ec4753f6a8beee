"""The paper's tables on three sizes of the embedded model, all trained and compressed in the same way.

For each size: pretraining from random weights, then the recipe `embedded` with smaller settings and the paper's
baselines. Works in `--out` (runs/paper), a folder per size, and goes on where it stopped; writes docs/results/paper.md
and paper.json with every size that is finished there.

    python benchmarks/paper.py
    python benchmarks/paper.py --size xs       # this size only
    python benchmarks/paper.py --limit 40      # a trial: the shipped model stands in for every size
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from headline import EMBEDDED, Lines
from pages import RESULTS, ROOT
from paper_page import GAMMAS, SHIPPED, page

from tokenskip import pipeline
from tokenskip.arms import ARMS, label, rows_of
from tokenskip.config import RunConfig, load_recipe
from tokenskip.embedded import model_path
from tokenskip.errors import TokenskipError
from tokenskip.evaluation.evaluate import read_arm
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.results import funnel
from tokenskip.evaluation.schema import ArmResult, load_results
from tokenskip.evaluation.shorten import full_cap
from tokenskip.evaluation.stats import bootstrap_mean
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, RunFolder, read_manifest, write_atomically

Row = dict[str, Any]
SIZES = ("xs", "s", "b")
TOKENS = 20_000_000
"""Of the pretraining, one run from random weights on the same documents for every size."""
SEED, CHECKPOINTS = 0, 4
SHIPPED_TOKENS = 54_000_000
"""Of the model that the package ships (its card has the three runs)."""
CHAINS, STEPS, TEST = 1000, 1500, 500
"""Problems that make chains, optimiser steps of the fine-tuning (24 rows each), problems of the evaluation."""
PASSES: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("original", "tokenskip", "truncation", "truncation_forced"), (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    (("prompt_be_concise", "prompt_only_numbers", "prompt_abbreviate", "prompt_lc"), (0.5, 0.7, 0.9)),
    (("marker_only",), (0.6,)),
)
"""Arms of the evaluation and the ratios that they are asked for; the paper's length-control prompt has three."""
KEYS = (
    *("arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean", "achieved_ratio"),
    *("difference", "difference_low", "difference_high", "lost", "gained", "p_value"),
)


def model_of(size: str, out: Path, limit: int | None = None) -> Path:
    """The folder of a size's model, trained as far as it is not; in a trial the shipped one."""
    if limit is not None:
        return model_path().resolve()
    sys.path.append(str(ROOT / "tools"))  # what built the embedded model is in no package
    from embedded_model.pretrain import Recipe
    from embedded_model.pretrain import Run as Pretraining

    folder = (out / size / "model").resolve()
    pretraining = Pretraining(folder, Recipe(size=size, tokens=TOKENS, seed=SEED))
    pretraining.train(eval_every=TOKENS // CHECKPOINTS, eval_n=200)
    return folder


def config_of(size: str, model: Path, limit: int | None = None) -> RunConfig:
    """The recipe `embedded` on a size's model, made smaller; the same for all sizes but for the model."""
    return load_recipe(
        EMBEDDED,
        [
            f"name=paper-{size}",
            f"model.path={json.dumps(str(model))}",
            f"task.train_limit={limit or CHAINS}",
            f"task.test_limit={limit or TEST}",
            f"train.trainer.max_steps={STEPS if limit is None else 2}",
            f"evaluate.arms=[{', '.join(PASSES[0][0])}]",
            "evaluate.latency_samples=0",
        ],
    )


def compress(folder: Path, config: RunConfig, passes: Sequence[tuple[Sequence[str], Sequence[float]]]) -> None:
    """Every stage of the pipeline up to the evaluation, a pass after the other."""
    for arms, ratios in passes:
        compared = tuple(dict.fromkeys(("original", *arms)))  # every evaluation has it; its rows are there already
        settings = config.evaluate.model_copy(update={"arms": compared, "ratios": tuple(ratios)})
        with Run(folder, config.model_copy(update={"evaluate": settings}), Lines()) as run:
            for stage in ("generate", "grade", "score", "prune", "train", "evaluate"):
                pipeline.STAGES[stage](run)


def measured(folder: RunFolder, ratios: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)) -> list[Row]:
    """One row per arm and ratio that was evaluated on all problems."""
    original = list(read_arm(folder, "original"))
    rows = []
    for arm, ratio in rows_of(list(folder.config.known_arms().values()), sorted(ratios)):
        name = label(arm, ratio)
        if folder.file(f"eval/{name}.jsonl").exists():
            found = list(read_arm(folder, name))
            if len(found) == len(original):
                summary = summarise_arm(arm, ratio if arm.per_ratio else None, found, original)
                rows.append(row_of(summary))
    return rows


def row_of(arm: ArmResult) -> Row:
    """What the page keeps of an arm's numbers."""
    return {key: getattr(arm, key) for key in KEYS}


def parameters(model: Path) -> int:
    """Weights in a model's folder, tied ones once."""
    from safetensors import safe_open

    with safe_open(str(model / "model.safetensors"), "np") as weights:
        return sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118


def about(size: str, model: Path, folder: RunFolder) -> Row:
    """What a size is, and how its pretraining and the funnel to its training rows went."""
    log = model / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    tried = [line for line in lines if "dev_accuracy" in line]
    counts = {step.reason: step.count for step in funnel(folder)}
    return {
        "size": size,
        "parameters": parameters(model),
        "pretraining_tokens": tried[-1]["tokens"] if tried else None,
        "dev_accuracy": tried[-1]["dev_accuracy"] if tried else None,
        "generated": counts["generated"],
        "correct": counts["correct"],
        "training_rows": counts["training rows"],
    }


def changes(folder: RunFolder, name: str) -> dict[str, float]:
    """Problem -> 1 solved only by row `name`, -1 only by the original, 0 by both or none."""
    before, after = ({one.id: bool(one.grade and one.grade.correct) for one in read_arm(folder, row)}
                     for row in ("original", name))  # fmt: skip
    return {id: float(after[id]) - float(before[id]) for id in before}


def held_up(folders: Mapping[str, RunFolder]) -> list[Row]:
    """How much less the larger of two sizes loses against its own original, in accuracy, on the same problems."""
    names = list(folders)
    pairs = list(dict.fromkeys([*pairwise(names), *([(names[0], names[-1])] if len(names) > 1 else [])]))
    found = []
    for ratio in GAMMAS:
        for small, large in pairs:
            less, more = (changes(folders[size], label(ARMS["tokenskip"], ratio)) for size in (small, large))
            gap = np.array([more[id] - less[id] for id in less])
            low, high = bootstrap_mean(gap)
            found.append({"ratio": ratio, "smaller": small, "larger": large, "n": len(gap),
                          "difference": float(gap.mean()), "low": low, "high": high})  # fmt: skip
    return found


def collect(out: Path) -> Row:
    """Everything that the finished sizes under `out` give."""
    folders, rows, sizes = {}, [], []
    for size in SIZES:
        path = out / size / "run"
        if not (path / ADAPTER).exists() or not (path / f"eval/{PASSES[-1][0][0]}-{PASSES[-1][1][0]}.jsonl").exists():
            continue
        config = RunConfig.model_validate(read_manifest(path)["config"])
        folders[size] = RunFolder(path, config)
        rows += [{"size": size, **row} for row in measured(folders[size])]
        sizes.append(about(size, Path(config.model.path), folders[size]))
    found = shipped(RESULTS / "embedded.json")
    held = held_up(folders)
    if found:
        sizes.append(found[0])
        rows += found[1]
    shared = RunConfig.model_validate(read_manifest(next(iter(folders.values())).path)["config"])
    return {
        "sizes": sizes,
        "rows": rows,
        "held_up": held,
        "absent": [size for size in SIZES if size not in folders],
        "settings": {
            "seed": SEED,
            "chains": shared.task.train_limit,
            "steps": shared.train.trainer["max_steps"],
            "scorer": shared.score.scorer,
            "token_cap": full_cap(shared),
            "train": shared.train.model_dump(
                mode="json", exclude={"trainer", "rank", "alpha", "dropout", "target_modules"}
            ),
            "prune": shared.prune.model_dump(mode="json"),
        },
    }


def shipped(file: Path) -> tuple[Row, list[Row]] | None:
    """The package's own model as the headline run has it: what it is, and its rows; None before that run."""
    if not file.exists():
        return None
    results = load_results(file)
    counts = {step.reason: step.count for step in results.funnel}
    arms = {name for names, _ in PASSES for name in names}
    rows = [row_of(arm) for arm in results.arms if arm.arm in arms]
    size = {"size": SHIPPED, "parameters": parameters(model_path()), "pretraining_tokens": SHIPPED_TOKENS,
            "dev_accuracy": None, "generated": counts["generated"], "correct": counts["correct"],
            "training_rows": counts["training rows"]}  # fmt: skip
    return size, [{"size": SHIPPED, **row} for row in rows]


def publish(results: Row, folder: Path) -> None:
    """paper.md and paper.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "paper.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "paper.md", page(results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", action="append", choices=SIZES, help="work on this size only; may repeat")
    parser.add_argument("--limit", type=int, help="a trial with N training and N evaluation problems, two steps")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/paper)")
    args = parser.parse_args(arguments)
    out = args.out or ROOT / "runs" / ("paper" if args.limit is None else f"paper-{args.limit}")
    try:
        for size in args.size or SIZES:
            compress(out / size / "run", config_of(size, model_of(size, out, args.limit), args.limit), PASSES)
        results = collect(out)
    except TokenskipError as error:
        print(f"paper: {error}", file=sys.stderr)
        sys.exit(2)
    folder = RESULTS if args.limit is None else out / "published"
    publish(results, folder)
    print(f"{folder / 'paper.md'}: {len(results['sizes'])} sizes, {len(results['rows'])} rows")


if __name__ == "__main__":
    main()
