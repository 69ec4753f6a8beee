"""What each choice of the recipe `embedded` is worth: the shipped model fine-tuned anew with one thing changed.

All variants share chains, scores and problems with `base`, so that rows compare problem by problem. Works in `--out`
(runs/ablations), a folder per variant, and goes on where it stopped; writes docs/results/ablations.md and
ablations.json with every variant that is finished there.

    python benchmarks/ablations.py
    python benchmarks/ablations.py --only base --only one_ratio
    python benchmarks/ablations.py --limit 40 --only base      # a trial
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ablations_page import page
from headline import EMBEDDED, Lines
from pages import RESULTS, ROOT
from paper import measured

from tokenskip import pipeline
from tokenskip.arms import ARMS, label
from tokenskip.config import RunConfig, load_recipe
from tokenskip.errors import ConfigError, TokenskipError, unknown_name
from tokenskip.evaluation.evaluate import read_arm
from tokenskip.evaluation.metrics import paired_difference
from tokenskip.prompting.prompts import ratio_kwargs
from tokenskip.run import Run
from tokenskip.storage.store import (
    COMPLETIONS,
    EVAL,
    SCORES,
    TRAIN,
    TRAJECTORIES,
    Row,
    RunFolder,
    copy_atomically,
    read_manifest,
    read_rows,
    write_atomically,
    write_rows,
)
from tokenskip.training.train import iter_losses

CHAINS, EPOCHS, TEST = 800, 8, 500
"""Problems that make chains, epochs of base's three rows a chain, problems of the evaluation."""
TRAINED = (0.6, 0.8, 1.0)
"""Base's training ratios: the paper's six take far more steps to be told apart (variant six_ratios)."""
RATIOS = (0.6, 0.8)
BETWEEN = (0.65, 0.7)
"""Ratios that no row of base carries; the variants about ratios and labels are asked for them too."""
SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`base` with one thing changed: settings, the training labels, or the chains that it starts from."""

    group: str
    about: str
    settings: tuple[str, ...] = ()
    chains: int = CHAINS
    rows: int = len(TRAINED)  # a chain; with more or fewer it gets fewer or more epochs, so that all train as long
    achieved_labels: bool = False
    concise: bool = False
    between: bool = False


def _ratios(about: str, ratios: Sequence[float]) -> Variant:
    return Variant(
        group="Ratios", about=about, settings=(f"prune.ratios={list(ratios)}",), rows=len(ratios), between=True
    )


def _lora(rank: int) -> Variant:
    lora = ("train.method=lora", f"train.rank={rank}", f"train.alpha={2 * rank}")
    return Variant(group="Weights", about=f"LoRA, rank {rank}, AdamW", settings=(*lora, *ADAMW))


ADAMW = ("train.optimizer=adamw", "train.learning_rate=0.003")

VARIANTS = {
    "base": Variant(group="Base", about="0.6, 0.8 and 1.0, all weights, Muon", between=True),
    "six_ratios": _ratios("0.5 to 1.0 by tenths, as in the paper", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    "eight_ratios": _ratios("0.3 and 0.4 as well (the paper's figure 6)", (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    "one_ratio": Variant(
        group="Ratios", about="one of base's ratios drawn per chain", settings=("prune.per_trajectory=one",), rows=1
    ),
    "achieved_labels": Variant(
        group="Labels", about="rows carry the ratio that their chain achieved, of two decimals", achieved_labels=True,
        between=True,
    ),
    "no_atoms": Variant(
        group="Atoms", about="numbers and equations may come apart", settings=("prune.atoms=false",)
    ),
    "concise": Variant(
        group="Chains", about=f"the shortest right chain of {SAMPLES} sampled ones, then pruned", concise=True
    ),
    "adamw": Variant(group="Weights", about="all weights, AdamW", settings=ADAMW),
    "lora_8": _lora(8),
    "lora_32": _lora(32),
    **{f"data_{n}": Variant(group="Data", about=f"{n} problems", chains=n) for n in (400, 200, 100, 50)},
    "data_100_longer": Variant(
        group="Longer", about="100 problems, as many steps as base", chains=100,
        settings=(f"train.epochs={EPOCHS * CHAINS // 100}",),
    ),
}  # fmt: skip


class Bench:
    """The shared chains under `out`, and a run folder per variant."""

    def __init__(self, out: Path, limit: int | None = None) -> None:
        self.out, self.limit = out, limit

    def config(self, variant: Variant) -> RunConfig:
        """The recipe `embedded` with the benchmark's sizes and the variant's settings."""
        epochs = EPOCHS * len(TRAINED) / variant.rows * (1 if self.limit is None else 0.1)
        return load_recipe(
            EMBEDDED,
            [
                "name=ablation",
                f"task.train_limit={self.chains(variant)}",
                f"task.test_limit={self.limit or TEST}",
                f"prune.ratios={list(TRAINED)}",
                "evaluate.arms=[original, tokenskip]",
                f"evaluate.ratios={[*RATIOS, *(BETWEEN if variant.between else ())]}",
                "evaluate.latency_samples=0",
                f"train.epochs={epochs:g}",
                *variant.settings,
            ],
        )

    def chains(self, variant: Variant) -> int:
        """Problems that the variant's chains come from."""
        return min(variant.chains, self.limit or variant.chains)

    def shared(self, *, concise: bool = False) -> Path:
        """The folder of chains that the model wrote, once: greedy ones with scores, and the untouched model's row; or
        samples of every problem.
        """
        folder = self.out / ("samples" if concise else "chains")
        config = self.config(VARIANTS["base"])
        alone = config.evaluate.model_copy(update={"arms": ("original",)})
        config = config.model_copy(update={"evaluate": alone})
        if concise:
            sampled = {"samples": SAMPLES, "temperature": 0.7}
            config = config.model_copy(update={"generate": config.generate.model_copy(update=sampled)})
        with Run(folder, config, Lines()) as run:
            pipeline.generate(run)
            pipeline.grade(run)
            if not concise:
                pipeline.score(run)
                pipeline.evaluate(run)
        return folder

    def run(self, name: str) -> None:
        """Everything of a variant that is not done yet."""
        variant = VARIANTS[name]
        shared = self.shared(concise=variant.concise)
        with Run(self.out / name, self.config(variant), Lines()) as run:
            self._begin(run.folder, shared, variant)
            pipeline.score(run)
            pipeline.prune(run)
            if variant.achieved_labels:
                relabel(run.folder)
            pipeline.train(run)
            original = f"{EVAL}/original.jsonl"
            if not run.folder.file(original).exists():
                run.folder.file(EVAL).mkdir(exist_ok=True)
                copy_atomically(self.shared() / original, run.folder.file(original))
            pipeline.evaluate(run)

    def _begin(self, folder: RunFolder, shared: Path, variant: Variant) -> None:
        """Hand the shared chains over: the first problems' rows, or the shortest right sample of each."""
        if folder.file(TRAJECTORIES).exists():
            return
        n = self.chains(variant)
        chosen = shortest(shared) if variant.concise else None
        for file in (COMPLETIONS, SCORES, TRAJECTORIES):
            if (shared / file).exists():
                rows = read_rows(shared / file)
                kept = islice(rows, n) if chosen is None else (row for i, row in enumerate(rows) if i in chosen)
                write_rows(folder.file(file), kept)

    def finished(self) -> dict[str, RunFolder]:
        """The variants whose evaluation is complete."""
        last = f"{EVAL}/{label(ARMS['tokenskip'], min(RATIOS))}.jsonl"
        paths = {name: self.out / name for name in VARIANTS if (self.out / name / last).exists()}
        folders = {name: RunFolder(path, RunConfig.model_validate(read_manifest(path)["config"]))
                   for name, path in paths.items()}  # fmt: skip
        return {name: one for name, one in folders.items() if len(measured(one, RATIOS)) == 1 + len(RATIOS)}


def shortest(samples: Path) -> set[int]:
    """The row of every problem's right sample with the fewest CoT tokens; the earliest of equals."""
    best: dict[str, tuple[int, int]] = {}
    for i, one in enumerate(RunFolder(samples, RunConfig()).trajectories()):
        if not one.dropped and (one.id not in best or one.n_cot_tokens < best[one.id][0]):
            best[one.id] = (one.n_cot_tokens, i)
    return {i for _, i in best.values()}


def relabel(folder: RunFolder) -> None:
    """Let every row of the training data carry the ratio that its chain achieved, at most 1."""
    rows = []
    for row in read_rows(folder.require(TRAIN)):
        ratio = min(1.0, max(0.01, round(row["achieved_ratio"], 2)))
        rows.append({**row, "ratio": ratio, "chat_template_kwargs": ratio_kwargs(ratio)})
    write_rows(folder.file(TRAIN), rows)


def result_of(name: str, folder: RunFolder, base: RunFolder | None) -> Row:
    """A variant's rows, each with its difference to base on the same problems."""
    rows = measured(folder, RATIOS)
    for row in rows:
        if base is None or name == "base" or row["arm"] == "original":
            continue
        file = label(ARMS["tokenskip"], row["ratio"])
        paired = paired_difference(list(read_arm(base, file)), list(read_arm(folder, file)))
        assert paired is not None
        row["to_base"] = {"difference": paired.difference, "low": paired.low, "high": paired.high}
    train = list(read_rows(folder.file(TRAIN)))
    losses = list(iter_losses(folder.file("adapter")))
    return {
        "variant": name,
        "group": VARIANTS[name].group,
        "about": VARIANTS[name].about,
        "chains": len({row["id"] for row in train}),
        "training_rows": len(train),
        "epochs": folder.config.train.epochs,
        "steps": math.ceil(math.ceil(len(train) / folder.config.train.batch_size) * folder.config.train.epochs),
        "loss": losses[-1][1] if losses else None,
        "rows": rows,
        "between": measured(folder, BETWEEN)[1:],
    }


def collect(bench: Bench) -> Row:
    """Every finished variant, in the order of `VARIANTS`."""
    finished = bench.finished()
    base = finished.get("base")
    return {
        "ratios": list(RATIOS),
        "between": list(BETWEEN),
        "test": bench.limit or TEST,
        "chains": bench.chains(VARIANTS["base"]),
        "variants": [result_of(name, folder, base) for name, folder in finished.items()],
        "absent": [name for name in VARIANTS if name not in finished],
    }


def publish(results: Row, folder: Path) -> None:
    """ablations.md and ablations.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "ablations.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "ablations.md", page(results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="VARIANT", help="work on this one only; may repeat")
    parser.add_argument("--limit", type=int, help="a trial with at most N problems, a tenth of the epochs")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/ablations)")
    args = parser.parse_args(arguments)
    bench = Bench(args.out or ROOT / "runs" / f"ablations{f'-{args.limit}' if args.limit else ''}", args.limit)
    try:
        for name in args.only or ():
            if name not in VARIANTS:
                raise ConfigError(unknown_name("variant", name, VARIANTS))
        for name in args.only or VARIANTS:
            bench.run(name)
        results = collect(bench)
    except TokenskipError as error:
        print(f"ablations: {error}", file=sys.stderr)
        sys.exit(2)
    folder = RESULTS if args.limit is None else bench.out / "published"
    publish(results, folder)
    print(f"{folder / 'ablations.md'}: {len(results['variants'])} of {len(VARIANTS)} variants")


if __name__ == "__main__":
    main()
