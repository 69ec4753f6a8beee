"""The headline run: the shipped recipe `any-ratio`, and what the repository publishes about it.

Reads the run folder (`--out`; made, or gone on with, when it is not finished). Writes docs/results/embedded.md and
embedded.json, docs/images/*.png and the results section of README.md; with `--ship` also the adapter that
`tokenskip ask` uses. Everything but the run itself takes seconds, so it may be repeated.

    python benchmarks/headline.py
    python benchmarks/headline.py --limit 100     # a trial: publishes into the run folder, not into the repository
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from pages import ROOT, fill

from tokenskip import pipeline
from tokenskip.config import RunConfig, load_recipe
from tokenskip.embedded import adapter_path
from tokenskip.errors import ConfigError, TokenskipError
from tokenskip.evaluation.comparisons import headline_rows, main_arm, original_of
from tokenskip.evaluation.evaluate import read_arm
from tokenskip.evaluation.metrics import Paired, paired_difference
from tokenskip.evaluation.schema import ArmResult, Results, load_results
from tokenskip.progress import Advance
from tokenskip.report.tables import markdown_table
from tokenskip.report.text import num, p_value_text, pct, points, signed, summary
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, RunFolder

RECIPE = ROOT / "src" / "tokenskip" / "recipes" / "any-ratio.yaml"
EMBEDDED = RECIPE.with_name("embedded.yaml")
"""The same model by the paper's method alone; what the other benchmarks vary."""
IMAGES = ("curve.png", "ratio.png", "example.png")
LOSSES = {0.6: 0.4, 0.5: 1.5, 0.4: 0.4}
"""Ratio -> points that it may cost."""
N_PROBLEMS = 20
"""Problems of which `embedded.json` keeps every arm's output; the run's own results.json has more."""
ADAPTER_CONFIG = "adapter_config.json"
TRIED = "tried.md"
"""Written by hand beside the results, when there is something to tell; the page links to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One claim that was fixed before the run, and what the run says to it. `met` is None when it was not measured."""

    claim: str
    met: bool | None
    value: str


class Lines:
    """Progress as plain lines, so that a log of an hour reads well."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`."""
        start = shown = time.monotonic()
        done = 0

        def advance(n: int, *, total: int | None = total, note: str = "") -> None:
            nonlocal done, shown
            done += n
            if time.monotonic() - shown >= 60:
                shown = time.monotonic()
                line = f"{name}: {done}" + (f" of {total}" if total else "") + (f", {note}" if note else "")
                print(line, file=sys.stderr, flush=True)

        yield advance
        print(f"{name}: {done}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def compare(folder: RunFolder, before: str, after: str) -> Paired | None:
    """The accuracy of row `after` minus that of row `before`, on the same problems; None when one is missing."""
    if not all(folder.file(f"eval/{name}.jsonl").exists() for name in (before, after)):
        return None
    return paired_difference(list(read_arm(folder, before)), list(read_arm(folder, after)))


def targets(folder: RunFolder, results: Results) -> list[Target]:
    """Every target of the benchmark, computed from the run's rows."""
    rows = ours(results)
    original = original_of(results.arms)
    return [
        _accuracy("the untouched model solves at least 95% of at least 1,000 held-out problems", original),
        *(
            _loss(
                f"γ = {ratio} costs at most {bound} points",
                compare(folder, "original", f"tokenskip-{ratio}"),
                at_most=bound,
            )
            for ratio, bound in LOSSES.items()
        ),
        _ratio("every achieved ratio is within 0.03 of γ, on average within 0.02", rows),
        _ascending("the greater γ, the longer the chain", rows),
        _loss("truncation at 0.6 loses at least 40 points", compare(folder, "original", "truncation-0.6"), at_least=40),
        _worse(
            "random pruning to the length of TokenSkip at 0.6 is clearly worse",
            compare(folder, "tokenskip-0.6", "random_matched-0.6"),
        ),
    ]


def ours(results: Results) -> list[ArmResult]:
    """The rows of the arm that the run trained."""
    main = main_arm(results.arms)
    return [arm for arm in results.arms if arm.arm == main]


def _accuracy(claim: str, arm: ArmResult | None) -> Target:
    if arm is None or arm.accuracy is None:
        return Target(claim=claim, met=None, value="not measured")
    value = f"{pct(arm.accuracy)} of {arm.n:,}"
    return Target(claim=claim, met=arm.n >= 1000 and arm.accuracy >= 0.95, value=value)


def _loss(claim: str, paired: Paired | None, *, at_most: float = 100.0, at_least: float = -100.0) -> Target:
    """Bounds on the points lost against the original."""
    if paired is None:
        return Target(claim=claim, met=None, value="not measured")
    lost = round(-100 * paired.difference, 6)
    return Target(claim=claim, met=at_least <= lost <= at_most, value=describe(paired))


def _ratio(claim: str, arms: Sequence[ArmResult]) -> Target:
    """Whether all achieved ratios are near what was asked for."""
    errors = [abs(arm.ratio_error) for arm in arms if arm.ratio_error is not None]
    if not errors or len(errors) < len(arms):
        return Target(claim=claim, met=None, value="not measured")
    mean = sum(errors) / len(errors)
    value = f"at most {max(errors):.3f}, on average {mean:.3f}, at {len(errors)} ratios"
    return Target(claim=claim, met=max(errors) <= 0.03 and mean <= 0.02, value=value)


def _ascending(claim: str, arms: Sequence[ArmResult]) -> Target:
    """Whether the achieved ratio rises with every ratio asked for."""
    points = sorted((arm.ratio, arm.achieved_ratio) for arm in arms if arm.ratio and arm.achieved_ratio is not None)
    if len(points) < 2 or len(points) < len(arms):
        return Target(claim=claim, met=None, value="not measured")
    falls = [f"{before[1]:.3f} at {before[0]}, {after[1]:.3f} at {after[0]}"
             for before, after in pairwise(points) if after[1] <= before[1]]  # fmt: skip
    return Target(claim=claim, met=not falls, value="; ".join(falls) or f"at all {len(points)} ratios")


def _worse(claim: str, paired: Paired | None) -> Target:
    """Whether the second of a pair solves fewer problems, and no chance difference."""
    if paired is None:
        return Target(claim=claim, met=None, value="not measured")
    return Target(claim=claim, met=paired.difference < 0 and paired.p_value < 0.05, value=describe(paired))


def describe(paired: Paired) -> str:
    """A paired difference in words: points, interval, problems lost and gained, exact McNemar."""
    low, high = signed(100 * paired.low), signed(100 * paired.high)
    p_value = "p < 0.001" if paired.p_value < 0.001 else f"p = {paired.p_value:.3f}"
    change = f"{signed(100 * paired.difference)} points [{low}, {high}]"
    return f"{change}, {paired.lost} lost, {paired.gained} gained, {p_value}"


def targets_table(found: Sequence[Target]) -> str:
    """The targets as Markdown."""
    words = {True: "met", False: "**not met**", None: "not measured"}
    lines = ["| target | | measured |", "| --- | --- | --- |"]
    lines += [f"| {target.claim} | {words[target.met]} | {target.value} |" for target in found]
    return "\n".join(lines) + "\n"


def differences_table(results: Results) -> str:
    """Every row against the original, paired by problem."""
    lines = ["| arm | difference, points | lost / gained | p | |", "| --- | --: | --: | --: | --- |"]
    for arm in results.arms:
        if arm.difference is None:
            continue
        span = f"[{signed(points(arm.difference_low))}, {signed(points(arm.difference_high))}]"
        change = f"{signed(points(arm.difference))} {span}"
        cells = (arm.label, change, f"{arm.lost} / {arm.gained}", p_value_text(arm.p_value), arm.equivalence)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def page(results: Results, found: Sequence[Target]) -> str:
    """docs/results/embedded.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items() if version)
    hardware = ", ".join(f"{name} {value}" for name, value in results.hardware.items())
    funnel = ", ".join(f"{step.reason} {step.count:,}" for step in results.funnel)
    warned = "\n".join(f"- {warning}" for warning in results.warnings) or "None."
    return f"""# The method on the embedded model

{summary(results)}

Made by `python benchmarks/headline.py` (the recipe `any-ratio`), {results.created[:10]}: an extension of the paper,
with ratios of a range and short chains of two sources ([sources](../sources.md)). All arms decode greedily on the same
held-out problems; intervals are 95% Wilson intervals. Every number, the configuration and the versions:
[embedded.json](embedded.json). What the columns mean: [ARCHITECTURE.md](../../ARCHITECTURE.md).

![Accuracy against CoT tokens](../images/curve.png)

{markdown_table(results.arms)}
## What was promised

{targets_table(found)}
The differences are paired by problem (bootstrap interval; exact McNemar test).

## Against the original

{differences_table(results)}
![Requested and achieved ratio](../images/ratio.png)

## What to know before believing it

{warned}

## From questions to training rows

{funnel}.

## Where

{hardware}; {versions}. Latencies depend on the machine and on what else it did.
"""


README_ROWS = {1.0, 0.8, 0.6, 0.5, 0.4}
README_ARMS = {"original", "prompt_be_concise", "truncation_forced", "random_matched"}
"""The ratios at which the README shows the trained model, and the arms that it has beside it, at .6."""


def readme_section(results: Results, found: Sequence[Target]) -> str:
    """What is between the markers of README.md: a table that fits a first screen, and one line about the rest."""
    measured = [target for target in found if target.met is not None]
    missed = [target.claim for target in measured if not target.met]
    verdict = f"{len(measured) - len(missed)} of {len(found)} targets fixed beforehand are met"
    verdict += f"; not met: {'; '.join(missed)}" if missed else ""
    lines = ["| arm | γ | accuracy | CoT tokens | achieved ratio |", "| --- | --: | --: | --: | --: |"]
    for arm in headline_rows(results.arms):
        trained = arm.role == "method" and arm.weights != "base"
        if (trained and arm.ratio not in README_ROWS) or not (trained or arm.arm in README_ARMS):
            continue
        interval = f"{pct(arm.accuracy)} [{pct(arm.accuracy_low)}, {pct(arm.accuracy_high)}]"
        asked = "–" if arm.ratio is None else f"{arm.ratio:g}"
        cells = (f"`{arm.arm}`", asked, interval, num(arm.cot_tokens_mean, 1), num(arm.achieved_ratio, 3))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            f"The embedded model, {num(results.arms[0].n_problems)} problems, a training of the recipe `any-ratio`, "
            "which goes beyond the paper:",
            "",
            *lines,
            "",
            f"{verdict}.",
            "All arms and ratios, paired tests and warnings: [docs/results/embedded.md](docs/results/embedded.md).",
            "",
        ]
    )


def small_json(results: Results, found: Sequence[Target]) -> str:
    """results.json with the targets, and with the outputs of only the first problems."""
    kept = results.model_copy(update={"problems": results.problems[:N_PROBLEMS]}).model_dump(mode="json")
    kept["targets"] = [asdict(target) for target in found]
    return json.dumps(kept, ensure_ascii=False, indent=1) + "\n"


def publish(run_dir: Path, results: Results, found: Sequence[Target], root: Path) -> None:
    """Write the page, the numbers, the pictures and the README's section under `root`."""
    for folder in ("docs/results", "docs/images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    tried = root / "docs/results" / TRIED
    note = f"\n## What was tried\n\n[{TRIED}]({TRIED}) tells what did not work, and why.\n" if tried.exists() else ""
    (root / "docs/results/embedded.md").write_text(page(results, found) + note, encoding="utf-8")
    (root / "docs/results/embedded.json").write_text(small_json(results, found), encoding="utf-8")
    for name in IMAGES:
        shutil.copyfile(run_dir / name, root / "docs/images" / name)
    readme = root / "README.md"
    section = readme_section(results, found)
    text = readme.read_text(encoding="utf-8") if readme.exists() else "<!-- results:begin -->\n<!-- results:end -->\n"
    readme.write_text(fill(text, "results", section), encoding="utf-8")


def card(results: Results, config: RunConfig) -> str:
    """The model card of what was trained."""
    settings = config.train
    how = f"LoRA (r {settings.rank}, α {settings.alpha})" if settings.method == "lora" else "Full fine-tuning"
    original = original_of(results.arms)
    rows = [*([original] if original else []), *ours(results)]
    return f"""---
license: apache-2.0
library_name: {"peft" if settings.method == "lora" else "transformers"}
tags: [tokenskip, chain-of-thought, efficient-reasoning]
---

# The embedded reasoner after TokenSkip

{how} of the model that tokenskip ships (epochs: {settings.epochs:g}, rate: {settings.learning_rate:g}). It makes the
model write the share γ of its usual chain of thought, by a ratio given in the
prompt: `tokenizer.apply_chat_template(messages, add_generation_prompt=True, compression_ratio="0.6")`.

    tokenskip ask "Tom has 12 apples. …" --ratio 0.6

{summary(results)}

{markdown_table(rows)}
Made by `python benchmarks/headline.py --ship`: scorer `{config.score.scorer}`, cut `{config.prune.cut}`,
{config.task.train_limit or "all"} training problems answered by the model itself, correct ones kept. It knows one kind
of story; a result here says that the method and this implementation work, and little about large models.
"""


def ship(run_dir: Path, results: Results, config: RunConfig, target: Path) -> int:
    """Copy what the run trained into the package, in place of what was there; returns its size in bytes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run_dir / ADAPTER, target, ignore=shutil.ignore_patterns("README.md", "losses.tsv", "*.bin"))
    settings = target / ADAPTER_CONFIG
    if settings.exists():
        adapter = json.loads(settings.read_text(encoding="utf-8")) | {"base_model_name_or_path": "embedded"}
        settings.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (target / "README.md").write_text(card(results, config), encoding="utf-8")
    return sum(file.stat().st_size for file in target.iterdir())


def measure(out: Path, limit: int | None) -> tuple[RunConfig, Results, list[Target]]:
    """Run the recipe, or what is left of it; its configuration, results and targets."""
    limits = [] if limit is None else [f"task.train_limit={limit}", f"task.test_limit={limit}"]
    config = load_recipe(RECIPE, limits)
    with Run(out, config, Lines()) as run:
        pipeline.run(run)
        results = load_results(out)
        return config, results, targets(run.folder, results)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="run folder (default: runs/embedded)")
    parser.add_argument("--limit", type=int, help="a trial with N training and N evaluation problems")
    parser.add_argument("--ship", action="store_true", help="copy the adapter into the package")
    args = parser.parse_args()
    name = "embedded" if args.limit is None else f"embedded-{args.limit}"
    out = args.out or ROOT / "runs" / name
    try:
        if args.ship and args.limit is not None:
            raise ConfigError("--ship needs the whole run: leave out --limit")
        config, results, found = measure(out, args.limit)
        publish(out, results, found, ROOT if args.limit is None else out / "published")
        if args.ship:
            print(f"adapter: {ship(out, results, config, adapter_path()) / 1e6:.1f} MB")
    except TokenskipError as error:
        print(f"headline: {error}", file=sys.stderr)
        sys.exit(2)
    print(markdown_table(results.arms))
    print(targets_table(found))


if __name__ == "__main__":
    main()
