"""The other families on the embedded model: one task, one axis of tokens and seconds, paired tests.

Trains what a family needs, has the ordinary evaluation answer the same held-out problems, and goes on in `--out`
(runs/families) where it was stopped; writes docs/results/families.md and families.json with what is finished.

    python benchmarks/families.py                                # all: about an hour on one core
    python benchmarks/families.py --only filter --only latent    # `reference` is always there
    python benchmarks/families.py --limit 12                     # a trial, which publishes into its own folder
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from families_page import page
from families_train import FAMILIES, N_ROWS, Bench, Setting, Size
from headline import RECIPE, Lines
from pages import RESULTS, ROOT

from tokenskip.arms import Arm, label
from tokenskip.baselines.parallel import critical_tokens
from tokenskip.candidates.settings import CandidatesConfig
from tokenskip.config import PruneConfig, RunConfig, TrainConfig, load_recipe
from tokenskip.errors import TokenskipError, unknown_name
from tokenskip.evaluation.evaluate import complete_arm, prompt_of, read_arm
from tokenskip.evaluation.metrics import paired_difference, summarise_arm
from tokenskip.evaluation.shorten import sampling_of
from tokenskip.generation.generate import ask
from tokenskip.run import Run
from tokenskip.storage.store import Row, RunFolder, write_atomically
from tokenskip.tokens import token_counter
from tokenskip.types import Trajectory

CAP = 224
"""Tokens that any answer may take; the longest of the untouched model has 212."""


def config_of(setting: Setting, size: Size) -> RunConfig:
    """The shipped adapter's prompts with the setting's one arm; how the adapter was trained is left out."""
    arm = arm_of(setting)
    overrides = [
        f"name=families-{setting.key}",
        f"task.test_limit={size.n}",
        f"generate.backend={setting.backend}",
        f"generate.options={json.dumps(setting.options)}",
        f"evaluate.max_new_tokens={CAP}",
        "evaluate.latency_samples=0",
        f"evaluate.arms={json.dumps(list(dict.fromkeys(['original', arm.name])))}",
        f"evaluate.ratios={[setting.ratio]}",
    ]
    if arm.role != "original":
        fields = arm.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        overrides.append(f"evaluate.define={json.dumps({arm.name: fields})}")
    if setting.questions:
        overrides += ["task.name=jsonl", f"task.test={setting.questions}", "task.options={numeric: true}"]
    elif setting.owners > 1:
        overrides.append(f"task.options={{owners: {setting.owners}}}")
    config = load_recipe(RECIPE, overrides)
    task = config.task.model_copy(update={"train_limit": None})
    others = {"prune": PruneConfig(), "candidates": CandidatesConfig(), "train": TrainConfig()}
    return config.model_copy(update={"task": task, **others})


def arm_of(setting: Setting) -> Arm:
    """The row of the evaluation that a setting is."""
    if setting.family == "original":
        return Arm(name="original", role="original")
    return Arm(
        name="family",
        about=setting.about,
        weights=str(setting.weights) if setting.weights else "base",
        role=setting.role,
        instruction=setting.instruction,
        per_ratio=setting.marker,
        marker=setting.marker,
    )


def measure(bench: Bench, setting: Setting) -> None:
    """Every answer of a setting, as far as it is not there; of another adapter than the shipped one, anew."""
    noted = bench.out / "rows" / setting.key / "setting.json"
    if noted.exists() and json.loads(noted.read_text(encoding="utf-8"))["about"] != setting.about:
        shutil.rmtree(noted.parent)
    with Run(bench.out / "rows" / setting.key, config_of(setting, bench.size), Lines()) as run:
        arm = arm_of(setting)
        run.check_problems("test")
        complete_arm(run, arm, setting.ratio)
        if not run.folder.file("setting.json").exists():
            latency = seconds_of(run, arm, setting.ratio, bench.size.timed) + setting.prepare_s
            noted = {**setting.stored(), "prompt_tokens": prompt_tokens(run, setting), "latency_s": latency}
            write_atomically(run.folder.file("setting.json"), json.dumps(noted, indent=1) + "\n")


def seconds_of(run: Run, arm: Arm, ratio: float, n: int) -> float:
    """The median CPU seconds of one answer, asked for alone; one thread, so it is the wall time of an idle core.

    The evaluation's own timings are wall times, which say little on a machine that is busy with something else.
    """
    backend = run.backend(arm.weights)
    seconds = []
    for problem in islice(run.problems("test"), n + 1):
        prompt = prompt_of(run, arm, ratio, problem)
        began = time.process_time()
        ask([problem], [prompt], backend, sampling_of(run.config))
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[1:])  # the first warms up


def prompt_tokens(run: Run, setting: Setting) -> float:
    """Mean tokens of the prompts that the answer's positions may look at."""
    arm = arm_of(setting)
    lengths = [len(run.prompts.prompt(problem.question, setting.ratio if arm.marker else 1.0,
                                      instruction=arm.instruction).token_ids)
               for problem in run.problems("test")]  # fmt: skip
    return setting.visible if setting.visible is not None else sum(lengths) / len(lengths)


def finished(out: Path, size: Size) -> list[tuple[Row, list[Trajectory]]]:
    """(what was noted, answers) of every setting that has answered all problems."""
    found = []
    for file in sorted(out.glob("rows/*/setting.json")):
        noted = json.loads(file.read_text(encoding="utf-8"))
        setting = Setting.read(noted)
        folder = RunFolder(file.parent, config_of(setting, size))
        answers = list(read_arm(folder, label(arm_of(setting), setting.ratio)))
        if len(answers) == size.n:
            found.append((noted, answers))
    order = list(FAMILIES)
    return sorted(found, key=lambda one: (order.index(one[0]["part"]), one[0]["place"]))


def collect(out: Path, size: Size) -> Row:
    """Every finished row, each paired with the original and with the trained row nearest to it in tokens."""
    known = finished(out, size)
    originals = {noted["owners"]: answers for noted, answers in known if noted["family"] == "original"}
    known = [pair for pair in known if pair[0]["owners"] in originals]
    count = token_counter(Bench(out, size).prompts.tokenizer)
    rows: list[Row] = []
    rivals: dict[int, list[tuple[Row, list[Trajectory]]]] = {}
    for noted, answers in known:
        setting = Setting.read(noted)
        arm = arm_of(setting)
        ratio = setting.ratio if arm.per_ratio else None
        one = summarise_arm(arm, ratio, answers, originals[setting.owners])
        fork = setting.family == "parallel" and setting.name == "fork"
        critical = [critical_tokens(answer.cot, count) if fork else answer.n_cot_tokens for answer in answers]
        row = {
            **{key: noted[key] for key in ("part", "family", "setting", "about", "owners", "train_cpu_s")},
            "n": one.n,
            "accuracy": one.accuracy,
            "accuracy_low": one.accuracy_low,
            "accuracy_high": one.accuracy_high,
            "tokens": one.cot_tokens_mean,
            "critical_tokens": sum(critical) / len(critical),
            "prompt_tokens": noted["prompt_tokens"],
            "latency_s": noted["latency_s"],
            "alike": alike([answer.cot for answer in answers]) if fork else None,
            "to_original": difference(originals[setting.owners], answers) if arm.role != "original" else None,
        }
        if noted["rival"]:
            rivals.setdefault(setting.owners, []).append((row, answers))
        rows.append(row)
    for row, (noted, answers) in zip(rows, known, strict=True):
        others = [pair for pair in rivals.get(noted["owners"], []) if pair[0] is not row]
        row["to_rival"] = None
        if others and not noted["rival"] and noted["family"] != "original":
            rival, theirs = min(others, key=lambda pair: abs(pair[0]["tokens"] - row["tokens"]))
            row["to_rival"] = {"rival": f"{rival['family']} {rival['setting']}", "rival_tokens": rival["tokens"],
                               **difference(theirs, answers)}  # fmt: skip
    return {"n": size.n, "chains": size.chains, "rows": rows, "missing": missing(rows)}


def alike(cots: Sequence[str]) -> float:
    """Share of forked chains in which two branches say the same of different owners."""
    told = [[line.partition(":")[2] for line in cot.split("\n") if ":" in line] for cot in cots]
    return sum(len(set(branches)) < len(branches) for branches in told) / len(told)


def difference(before: Sequence[Trajectory], after: Sequence[Trajectory]) -> Row:
    """Accuracy of `after` minus that of `before`, paired by problem: interval, problems lost and gained, p."""
    paired = paired_difference(before, after)
    assert paired is not None
    return {key: getattr(paired, key) for key in ("difference", "low", "high", "lost", "gained", "p_value")}


def missing(rows: Sequence[Row]) -> list[Row]:
    """The parts that lack rows: how many they have, and how many they will have."""
    found = Counter(row["part"] for row in rows)
    return [
        {"part": part, "rows": found[part], "of": n_rows} for part, n_rows in N_ROWS.items() if found[part] < n_rows
    ]


def publish(results: Row, folder: Path) -> None:
    """families.md and families.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "families.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "families.md", page(results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help=f"a part of {', '.join(FAMILIES)}; may repeat")
    parser.add_argument("--n", type=int, default=Size().n, help="held-out problems")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings; only 0 publishes into docs/results")
    parser.add_argument("--limit", type=int, help="a trial with at most N problems and two updates")
    parser.add_argument("--pooled", type=Path, help="adapter of a recipe with several sources of chains, as a rival")
    parser.add_argument("--publish", action="store_true", help="only write the page of what is finished")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/families)")
    args = parser.parse_args(arguments)
    size = Size(n=args.n, seed=args.seed)
    if args.limit is not None:
        size = Size(n=args.limit, seed=args.seed, chains=args.limit, updates=2, timed=1)
    name = "families" if args.limit is None else f"families-{args.limit}"
    out = args.out or ROOT / "runs" / (f"{name}-seed-{args.seed}" if args.seed else name)
    folder = RESULTS if args.limit is None and not args.seed else out / "published"
    try:
        for part in args.only or ():
            if part not in FAMILIES:
                raise TokenskipError(unknown_name("part", part, FAMILIES))
        bench = Bench(out, size, args.pooled and args.pooled.absolute())
        for part in () if args.publish else dict.fromkeys(("reference", *(args.only or FAMILIES))):
            for setting in FAMILIES[part](bench):
                measure(bench, setting)
                publish(collect(out, size), folder)
        publish(collect(out, size), folder)
    except TokenskipError as error:
        print(f"families: {error}", file=sys.stderr)
        sys.exit(2)
    print(folder / "families.md")


if __name__ == "__main__":
    main()
