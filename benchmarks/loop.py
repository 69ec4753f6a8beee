"""The closed loop on the embedded model: calibration and an on-policy round, before and after.

Goes on from the size `s` of paper.py (made when it is not there): `tokenskip calibrate` on development problems, then
one round and, for comparison, the first fine-tuning's rows trained for as many tokens. Works in a folder `loop` under
`--out` (runs/paper); writes docs/results/loop.md and loop.json with the parts that are finished there.

    python benchmarks/loop.py
    python benchmarks/loop.py --part calibrate
    python benchmarks/loop.py --limit 40       # a trial
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations_page import difference
from headline import Lines
from pages import RESULTS, ROOT, table
from paper import PASSES, compress, config_of, measured, model_of

from tokenskip import pipeline
from tokenskip.candidates.settings import ON_POLICY, CandidatesConfig
from tokenskip.config import RunConfig
from tokenskip.errors import ConfigError, TokenskipError
from tokenskip.evaluation.calibrate import calibrate
from tokenskip.evaluation.evaluate import load_map, read_arm
from tokenskip.evaluation.metrics import paired_difference
from tokenskip.report.text import pct
from tokenskip.run import Run
from tokenskip.storage.store import CALIBRATION, Row, RunFolder, read_manifest, write_atomically
from tokenskip.training.rounds import round_infos

SIZE = "s"
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)
PARTS = ("calibrate", "rounds")
PROBLEMS = 300
"""Development problems of the calibration: half fit the map, half check it."""
BEYOND = 0.15
"""A ratio far below what was trained on."""
ROUND = CandidatesConfig(
    sources={ON_POLICY: {"rounds": 1, "temperature": 0.7, "samples": 2}, "prune": {}}, prefer="listed", limit=400
)
FIRST = "tokenskip_round_0"
ARMS = {
    FIRST: "first fine-tuning, on pruned chains",
    "tokenskip_longer": "the same rows, for as many tokens as that and the round together",
    "tokenskip": "round 1: from the base, on its own near and right chains where it has such",
}


def prepare(out: Path, limit: int | None) -> tuple[Path, RunConfig]:
    """The loop's own copy of the finished size, and its configuration with the round and its control."""
    config = config_of(SIZE, model_of(SIZE, out, limit), limit)
    folder, draft = out / "loop", out / "loop.tmp"
    if not folder.exists():
        compress(out / SIZE / "run", config, PASSES[:1])
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(out / SIZE / "run", draft)
        for file in (draft / "eval").glob("tokenskip*"):  # of the first adapter, which the round replaces
            file.unlink()
        draft.replace(folder)
    trial = {"limit": limit, "tolerance": 1.0}
    candidates = ROUND if limit is None else ROUND.model_copy(update=trial)
    arms = {"arms": ("original", "tokenskip", "tokenskip_longer"), "ratios": RATIOS}
    evaluate = config.evaluate.model_copy(update=arms)
    return folder, config.model_copy(update={"candidates": candidates, "evaluate": evaluate})


def run(folder: Path, config: RunConfig, part: str, limit: int | None) -> None:
    """What of a part is not done yet."""
    with Run(folder, config, Lines()) as run:
        if part == "rounds":
            pipeline.rounds(run)
            pipeline.controls(run)
            pipeline.evaluate(run)
        elif not run.folder.file(CALIBRATION).exists():
            calibrate(run, n=limit or PROBLEMS)


def collect(folder: RunFolder) -> Row:
    """Whatever is finished."""
    file = folder.file(CALIBRATION)
    found: Row = {"calibration": json.loads(file.read_text(encoding="utf-8")) if file.exists() else None}
    if found["calibration"]:
        try:
            found["beyond"] = f"{load_map(folder).prompted(BEYOND):g}"
        except ConfigError as error:
            found["beyond"] = f"refused: {error}"
    found["rounds"] = [
        {"round": info["round"], "train_tokens": info["train_tokens"], **info["sources"][ON_POLICY]}
        for info in round_infos(folder)
    ]
    rows = [row for row in measured(folder, RATIOS) if row["arm"] in ("original", *ARMS)]
    for row in rows:
        if row["arm"] in ARMS and row["arm"] != FIRST:
            before, after = (list(read_arm(folder, f"{arm}-{row['ratio']}")) for arm in (FIRST, row["arm"]))
            paired = paired_difference(before, after)
            assert paired is not None
            row["to_first"] = {"difference": paired.difference, "low": paired.low, "high": paired.high}
    return {**found, "rows": rows, "settings": folder.config.candidates.model_dump(mode="json")}


def page(results: Row) -> str:
    """docs/results/loop.md."""
    parts = [calibration_section(results)] if results["calibration"] else []
    parts += [rounds_section(results)] if results["rounds"] else []
    head = f"""# The closed loop on the embedded model

Made by `python benchmarks/loop.py` from the size `{SIZE}` of [paper.md](paper.md), a weaker model than the shipped
one; every number: [loop.json](loop.json). One seed.
"""
    return "\n".join((head, *parts))


def calibration_section(results: Row) -> str:
    """What `tokenskip calibrate` found."""
    found = results["calibration"]
    rows = [
        (f"{one['asked']:g}", f"{one['before']:.3f}", f"{one['prompted']:g}", f"{one['after']:.3f}",
         pct(one["accuracy_before"]), pct(one["accuracy_after"]))
        for one in found["checks"]
    ]  # fmt: skip
    out = ", ".join(f"{ratio:g}" for ratio in found["out_of_reach"]) or "none"
    prompted = [f"{one['prompted']:g}" for one in found["measured"]]
    achieved = [f"{one['achieved']:.3f}" for one in found["measured"]]
    misread = ", ".join(f"{ratio:g}" for ratio in found["misread"])
    read = f"Read as something else, and so left out of the map: {misread}. " if misread else ""
    errors = "No asked ratio can be reached."
    if found["error_before"] is not None:
        change = f"{found['error_before']:.3f} before, {found['error_after']:.3f} through the map"
        errors = f"Mean distance of achieved and asked ratio: {change}."
    header = ("asked", "achieved", "prompted by the map", "then achieved", "accuracy", "then")
    return f"""## Calibration

Achieved ratio on {found["n_fit"]} development problems by what was prompted; trained on were tenths from 0.5:

{table(prompted, [achieved], 0)}
{read}The map fitted on these, checked on {found["n_check"]} others. {errors}

{table(header, rows, 0)}
Of the asked ratios no prompt reached: {out}. Asked for {BEYOND:g}, the map's answer is: {results["beyond"]}.
"""


def rounds_section(results: Row) -> str:
    """The round against the first fine-tuning and against training longer."""
    settings = results["settings"]
    options = settings["sources"][ON_POLICY]
    counts = [
        (ratio, f"{near:,}", f"{info['won'][ratio]:,}")
        for info in results["rounds"]
        for ratio, near in info["near"].items()
    ]
    written = "; ".join(f"{info['candidates']:,} chains, {info['right']:,} of them right" for info in results["rounds"])
    rows = []
    for arm, about in ARMS.items():
        at = {row["ratio"]: row for row in results["rows"] if row["arm"] == arm}
        if len(at) == len(RATIOS):
            cells = [f"{pct(at[r]['accuracy'])} / {at[r]['achieved_ratio']:.2f}" for r in RATIOS]
            error = sum(abs(at[r]["achieved_ratio"] - r) for r in RATIOS) / len(RATIOS)
            rows.append((f"`{arm}`", about, *cells, f"{error:.3f}"))
    apart = [
        (f"`{row['arm']}`", f"{row['ratio']}", difference(row["to_first"])) for row in results["rows"]
        if "to_first" in row
    ]  # fmt: skip
    n = next((row["n"] for row in results["rows"]), 0)
    return f"""## One on-policy round

The tuned model answered {settings["limit"]} training problems at every ratio below 1, {options["samples"]} samples
each at temperature {options["temperature"]:g}: {written}; kept is at most {settings["keep"]} a problem and ratio, right
and within {settings["tolerance"]:g} of the ratio.

{table(("γ", "right and near", "kept"), counts, 0)}
Accuracy and achieved ratio on {n:,} held-out problems; `error` is the mean distance of achieved and asked ratio.

{table(("arm", "trained on", *(f"γ = {ratio}" for ratio in RATIOS), "error"), rows, 2)}
Points of accuracy against the first fine-tuning, paired by problem (95% bootstrap); what excludes 0 is **bold**.

{table(("arm", "γ", "points"), apart, 1)}{_not_run(results)}"""


def _not_run(results: Row) -> str:
    """A sentence about arms without rows."""
    there = {row["arm"] for row in results["rows"]}
    missing = ", ".join(f"`{arm}`" for arm in ARMS if arm not in there)
    return f"\nNot run yet, so not in the tables: {missing}.\n" if missing else ""


def publish(results: Row, folder: Path) -> None:
    """loop.md and loop.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "loop.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "loop.md", page(results).rstrip() + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may repeat")
    parser.add_argument("--limit", type=int, help="a trial with at most N problems")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/paper)")
    args = parser.parse_args(arguments)
    out = args.out or ROOT / "runs" / ("paper" if args.limit is None else f"paper-{args.limit}")
    try:
        path, config = prepare(out, args.limit)
        for part in args.part or PARTS:
            run(path, config, part, args.limit)
        results: dict[str, Any] = collect(RunFolder(path, RunConfig.model_validate(read_manifest(path)["config"])))
    except TokenskipError as error:
        print(f"loop: {error}", file=sys.stderr)
        sys.exit(2)
    folder = RESULTS if args.limit is None else out / "published"
    publish(results, folder)
    print(folder / "loop.md")


if __name__ == "__main__":
    main()
