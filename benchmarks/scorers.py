"""Every scorer on the embedded model's own chains: what it costs, what it keeps, and what a model makes of it.

Reads the shipped model and compressor. Writes docs/results/scorers.md and scorers.json, and keeps its parts (chains,
scores, cuts, trained runs) in a run folder named after the shipped model's weights, so that it goes on where it
stopped; the parts of `llmlingua2` are named after the compressor's, so that a new one costs its own row only. A trial
with fewer problems publishes into its run folder, not into the repository.

    python benchmarks/scorers.py                          # everything, one fine-tuning per scorer included
    python benchmarks/scorers.py --no-train --only mist --only random
    python benchmarks/scorers.py --limit 40               # a trial
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from headline import EMBEDDED, Lines
from pages import RESULTS, ROOT
from scipy.stats import spearmanr
from scorers_page import page

from tokenskip import pipeline
from tokenskip.config import PruneConfig, RunConfig, load_recipe
from tokenskip.embedded import compressor_path, model_path
from tokenskip.errors import ConfigError, TokenskipError, unknown_name
from tokenskip.evaluation.metrics import paired_difference
from tokenskip.evaluation.schema import load_results
from tokenskip.plugins import make_scorer
from tokenskip.pruning.atoms import split_units
from tokenskip.pruning.chain import prune_chain
from tokenskip.pruning.corpus import corpus_thresholds, prune_trajectory
from tokenskip.run import Run
from tokenskip.storage.store import (
    COMPLETIONS,
    EVAL,
    SCORES,
    TRAIN,
    TRAJECTORIES,
    copy_atomically,
    read_rows,
    scores_row,
    trajectory_from_row,
    write_atomically,
    write_rows,
)
from tokenskip.training.distill import token_values
from tokenskip.types import Pruned, Scores, Span, Trajectory

LIMIT, REFERENCE, TEST = 800, 150, 300
GAMMAS = (0.5, 0.7, 0.9)
TRAINING = ("prune.ratios=[0.5,0.7,0.9]", "train.epochs=6", "train.batch_size=12")
"""Over the recipe `embedded`: a small budget, the same for every scorer."""
ORIGINAL = f"{EVAL}/original.jsonl"
YARDSTICKS = ("leave_one_out", "leave_one_out: numbers")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "leave_one_out": ("leave_one_out", {}),
    "leave_one_out: numbers": ("leave_one_out", {"goal": "numbers"}),
    "surprisal": ("surprisal", {}),
    "goal_gradient": ("goal_gradient", {}),
    "goal_gradient: numbers": ("goal_gradient", {"goal": "numbers"}),
    "ablation: steps": ("ablation", {"goal": "steps"}),
    "mist": ("mist", {}),
    "contrast": ("contrast", {}),
    "llmlingua2": ("llmlingua2", {}),
    "random": ("random", {}),
}
"""Scorers with their options; behind a colon a value of the option `goal`. llmlingua2 is the shipped compressor."""
CUTS = {
    "corpus": PruneConfig(cut="corpus"),
    "chain": PruneConfig(cut="chain"),
    "corpus, no atoms": PruneConfig(cut="corpus", atoms=False),
}
_FILLERS = (
    "a all also altogether am an and are as at be been but by can do does end ends ever every finally find first for "
    "from get gets give gives go goes had has have he her here him his how i if in into is it its just know last leads "
    "let look makes me more need next now of off okay on one or our out over put puts putting result second see she "
    "since so start starts story sum sure take takes tells than that the their them then there these they third this "
    "those thus time to together total us was we well were what when where which while who will with work would you "
    "your"
)
FILLERS = frozenset(_FILLERS.split())
"""Function words and discourse markers: what a reader of the numbers and names would not miss."""
KINDS = re.compile(r"(?P<number>\d+(?:[.,]\d+)*)|(?P<operator>[-+−–*/×÷·=<>^%])|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)")


def kind_counts(cot: str, kept: Sequence[tuple[int, int]]) -> Counter[str]:
    """Characters of numbers, operators, fillers and other words, `KIND` in all and `KIND kept` inside `kept`."""
    counts: Counter[str] = Counter()
    inside = np.zeros(len(cot) + 1, dtype=int)
    for start, end in kept:
        inside[start:end] = 1
    for match in KINDS.finditer(cot):
        kind = match.lastgroup or ""
        if kind == "word":
            kind = "filler" if match.group().lower() in FILLERS else "word"
        counts[kind] += len(match.group())
        counts[f"{kind} kept"] += int(inside[match.start() : match.end()].sum())
    return counts


def unit_values(one: Trajectory) -> np.ndarray[Any, Any]:
    """A scorer's importance of every unit of a chain that pruning keeps or drops whole; NaN where it gave none."""
    assert one.scores is not None
    units = [(start, end) for start, end in split_units(one.cot, "token", True) if one.cot[start:end].strip()]
    return np.array([np.nan if v is None else v for v in token_values(units, one.scores.spans)])


def rank_correlation(scored: Sequence[Trajectory], yardstick: Sequence[Trajectory]) -> dict[str, Any]:
    """Spearman's correlation over the units of one chain, averaged over chains, with its standard error."""
    reference = {one.id: one for one in yardstick}
    found = []
    for one in scored:
        if one.id in reference:
            ours, theirs = unit_values(one), unit_values(reference[one.id])
            known = ~(np.isnan(ours) | np.isnan(theirs))
            if known.sum() > 4 and len(set(ours[known])) > 1 and len(set(theirs[known])) > 1:
                found.append(float(spearmanr(ours[known], theirs[known]).statistic))
    if len(found) < 2:
        return {"n": len(found), "mean": None, "error": None}
    error = float(np.std(found, ddof=1)) / len(found) ** 0.5
    return {"n": len(found), "mean": round(float(np.mean(found)), 4), "error": round(error, 4)}


class Bench:
    """The run folder of the benchmark: chains of the embedded model and what was found out about them so far."""

    def __init__(self, out: Path, limit: int, n_reference: int, n_test: int, overrides: Sequence[str] = ()) -> None:
        self.out, self.n_reference = out, n_reference
        limits = [f"task.train_limit={limit}", f"task.test_limit={n_test}"]
        recipe = load_recipe(EMBEDDED, limits)
        read = {section: getattr(recipe, section) for section in ("model", "task", "prompt", "generate", "evaluate")}
        self.config = RunConfig(**read)  # the chains do not depend on how the recipe trains
        self.training = load_recipe(EMBEDDED, [*limits, *TRAINING, *overrides])
        with Run(out / "chains", self.config, Lines()) as run:
            pipeline.generate(run)
            pipeline.grade(run)
            self.chains = [one for one in run.folder.trajectories() if not one.dropped and one.cot.strip()]
            self.prompts, self.count = run.prompts, run.count

    @staticmethod
    def with_scorer(config: RunConfig, name: str) -> RunConfig:
        """A configuration with a variant as its scorer."""
        scorer, options = VARIANTS[name]
        model = "embedded" if scorer == "llmlingua2" else None
        update = {"scorer": scorer, "options": options, "model": model}
        return config.model_copy(update={"score": config.score.model_copy(update=update)})

    def scored(self, name: str) -> tuple[list[Trajectory], float]:
        """The chains with a variant's scores, and its CPU-seconds per 1,000 of them; made once."""
        chains = self.chains[: self.n_reference] if name in YARDSTICKS else self.chains
        file = self._part(name, "scores")
        if not file.exists():
            scorer = make_scorer(self.with_scorer(self.config, name), self.prompts)
            scorer.score(chains[:2])
            begin = time.process_time()
            found = scorer.score(chains)
            seconds = 1000 * (time.process_time() - begin) / len(chains)
            spans = {one.id: scores.spans for one, scores in zip(chains, found, strict=True)}
            write_atomically(file, json.dumps({"cpu_s_per_1000": seconds, "spans": spans}))
            print(f"{name}: {seconds:.1f} CPU-seconds per 1,000 chains", file=sys.stderr, flush=True)
        part = json.loads(file.read_text(encoding="utf-8"))
        spans = {id: tuple(Span(*span) for span in own) for id, own in part["spans"].items()}
        return [replace(one, scores=Scores(scorer=name, spans=spans[one.id])) for one in chains], part["cpu_s_per_1000"]

    def measured(self, name: str) -> dict[str, Any]:
        """Everything the page says about a variant that needs no training; made once."""
        file = self._part(name, "cuts")
        if not file.exists():
            scored, seconds = self.scored(name)
            found = {
                "n": len(scored),
                "cpu_s_per_1000": round(seconds, 2),
                "spearman": {one: rank_correlation(scored, self.scored(one)[0]) for one in YARDSTICKS},
                "cuts": {cut: self._cut(scored, config) for cut, config in CUTS.items()},
                "example": self._example(scored),
            }
            write_atomically(file, json.dumps(found))
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return loaded

    def _part(self, name: str, kind: str) -> Path:
        folder = self.out / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{file_name(name)}.json"

    def _cut(self, scored: Sequence[Trajectory], config: PruneConfig) -> dict[str, Any]:
        """Per ratio: achieved ratio, rejects, and the share of each kind's characters that is kept."""
        thresholds = None
        if config.cut == "corpus":
            pairs = ((one.cot, one.scores) for one in scored if one.scores)
            thresholds = corpus_thresholds(pairs, GAMMAS, self.count, config)
        cuts: dict[float, list[Pruned]] = {ratio: [] for ratio in GAMMAS}
        kinds: dict[float, Counter[str]] = {ratio: Counter() for ratio in GAMMAS}
        for one in scored:
            for pruned in prune_trajectory(one, GAMMAS, self.count, config, thresholds).pruned:
                cuts[pruned.ratio].append(pruned)
                kinds[pruned.ratio] += kind_counts(one.cot, pruned.kept)
        return {
            str(ratio): {
                "achieved": round(sum(p.n_tokens_pruned for p in own) / sum(p.n_tokens for p in own), 4),
                "rejected": sum(bool(p.rejected) for p in own),
                "kept": {
                    kind: round(kinds[ratio][f"{kind} kept"] / max(1, kinds[ratio][kind]), 4)
                    for kind in ("number", "operator", "filler", "word")
                },
            }
            for ratio, own in cuts.items()
        }

    def example(self) -> Trajectory:
        """The chain that the examples show: of the middle length among those that every scorer has seen."""
        chains = sorted(self.chains[: self.n_reference], key=lambda one: (len(one.cot), one.id))
        return chains[len(chains) // 2]

    def _example(self, scored: Sequence[Trajectory]) -> dict[str, Any]:
        wanted = self.example().id
        one = next(one for one in scored if one.id == wanted)
        assert one.scores is not None
        pruned = prune_chain(one.cot, one.scores, 0.5, self.count, CUTS["chain"])
        return {"text": pruned.text, "achieved": round(pruned.achieved_ratio, 3), "rejected": pruned.rejected}

    def package_example(self) -> dict[str, Any] | None:
        """The same chain as the `llmlingua` package cuts it; None without cl100k."""
        from tokenskip.commands.rules import RulePruner

        try:
            rule = RulePruner("embedded")
        except ConfigError as error:
            print(f"no example of rule llmlingua: {error}", file=sys.stderr)
            return None
        (line,) = rule.lines([self.example()], [0.5])
        return {"text": line["pruned"], "achieved": round(line["achieved_ratio"], 3), "rejected": line["rejected"]}

    def trained(self, name: str) -> dict[str, Any]:
        """The ordinary pipeline with a variant as the scorer: its settings, the original model's row and one per γ."""
        folder = self.out / "trained" / file_name(name)
        config = self.with_scorer(self._evaluated(self.training, ("original", "tokenskip")), name)
        with Run(folder, config, Lines()) as run:
            for file in (COMPLETIONS, TRAJECTORIES, ORIGINAL):
                if not run.folder.file(file).exists():
                    run.folder.file(file).parent.mkdir(exist_ok=True)
                    copy_atomically(self._chains_file(file), run.folder.file(file))
            if not run.folder.file(SCORES).exists():
                scored = {one.id: one for one in self.scored(name)[0]}
                chains = (scored.get(one.id, one.drop("not scored")) for one in run.folder.trajectories())
                write_rows(run.folder.file(SCORES), map(scores_row, chains))
            pipeline.run(run)
            n_rows = sum(1 for _ in read_rows(run.folder.file(TRAIN)))
        keys = ("arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high", "achieved_ratio", "cot_tokens_mean")
        arms = sorted(load_results(folder).arms, key=lambda arm: arm.ratio or 0)
        training = {"n_rows": n_rows, **run.config.train.model_dump(exclude={"trainer"})}
        return {"training": training, "arms": [{key: getattr(arm, key) for key in keys} for arm in arms]}

    def to_default(self, name: str, default: str) -> dict[str, Any] | None:
        """Accuracy at the smallest γ against the default scorer's model on the same problems; None without that."""
        files = [
            self.out / "trained" / file_name(one) / EVAL / f"tokenskip-{GAMMAS[0]}.jsonl" for one in (default, name)
        ]
        if name == default or not files[0].exists():
            return None
        before, after = ([trajectory_from_row(row) for row in read_rows(file)] for file in files)
        paired = paired_difference(before, after)
        return asdict(paired) if paired else None

    def _chains_file(self, name: str) -> Path:
        """A file that all fine-tunings share; what the untouched model does is evaluated once."""
        file = self.out / "chains" / name
        if not file.exists():
            with Run(self.out / "chains", self._evaluated(self.config, ("original",)), Lines()) as run:
                pipeline.evaluate(run)
        return file

    @staticmethod
    def _evaluated(config: RunConfig, arms: tuple[str, ...]) -> RunConfig:
        settings = {"arms": arms, "ratios": GAMMAS, "latency_samples": 0}
        return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def digest(folder: Path) -> str:
    """Eight hexadecimal digits of the weights in a folder: results of other weights must not be mixed with these."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:8]


def file_name(name: str) -> str:
    """What the parts of a variant are called."""
    plain = re.sub(r"\W+", "-", name)
    return f"{plain}-{digest(compressor_path())}" if name == "llmlingua2" else plain


def collect(bench: Bench, names: Sequence[str], train: bool) -> dict[str, Any]:
    """Work off `names` and return everything that is known so far, also of variants measured earlier."""
    for name in YARDSTICKS if names else ():
        bench.scored(name)
    for name in names:
        bench.measured(name)
    scorers = {name: bench.measured(name) for name in VARIANTS if bench._part(name, "cuts").exists()}
    if train:
        for name in names:
            if name not in YARDSTICKS:  # too slow to score all chains by, and so to train on
                write_atomically(bench._part(name, "accuracy"), json.dumps(bench.trained(name)))
    default = bench.training.score.scorer
    for name, found in scorers.items():
        file = bench._part(name, "accuracy")
        found["trained"] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if found["trained"]:
            found["trained"]["to_default"] = bench.to_default(name, default)
    example = bench.example()
    return {
        "model": digest(model_path()),
        "compressor": digest(compressor_path()),
        "n_chains": len(bench.chains),
        "n_reference": min(bench.n_reference, len(bench.chains)),
        "default": default,
        "gammas": list(GAMMAS),
        "fillers": sorted(FILLERS),
        "example": {"question": example.question, "cot": example.cot, "llmlingua": bench.package_example()},
        "scorers": scorers,
    }


def publish(results: dict[str, Any], folder: Path) -> None:
    """scorers.md and scorers.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "scorers.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "scorers.md", page(results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"training problems that make chains ({LIMIT})")
    parser.add_argument("--reference", type=int, default=REFERENCE, help=f"chains for leave_one_out ({REFERENCE})")
    parser.add_argument("--only", action="append", metavar="SCORER", help="work on this scorer only; may repeat")
    parser.add_argument("--no-train", action="store_true", help="no fine-tuning per scorer: what is known is published")
    parser.add_argument("--test", type=int, default=TEST, help=f"problems of the evaluation ({TEST})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the fine-tuning")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/scorers-MODEL-LIMIT)")
    args = parser.parse_args(arguments)
    out = args.out or ROOT / "runs" / f"scorers-{digest(model_path())}-{args.limit}"
    begin = time.process_time()
    try:
        for name in args.only or ():
            if name not in VARIANTS:
                raise ConfigError(unknown_name("scorer", name, VARIANTS))
        bench = Bench(out, args.limit, args.reference, args.test, args.set)
        results = collect(bench, args.only or list(VARIANTS), not args.no_train)
    except TokenskipError as error:
        print(f"scorers: {error}", file=sys.stderr)
        sys.exit(2)
    folder = RESULTS if args.limit == LIMIT and not args.out else out / "published"
    publish(results, folder)
    print(f"{folder / 'scorers.md'}: {len(results['scorers'])} scorers, {time.process_time() - begin:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
