"""Memory and throughput against the number of trajectories: grade -> score (random) -> prune -> dataset on one core.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --n 100000 --json scale.json
    OMP_NUM_THREADS=1 python benchmarks/scale.py --n 1000000 --publish    # the figures of docs/reliability.md

Writes N synthetic completions, as `generate` would have, and takes them through the real stages of a run folder, each
size in a process of its own so that peaks do not mix. Besides N the sizes N/10 and N/100 are run, so that growth shows.
The JSON holds, for N, `peak_rss_mib` (of the whole process, and in `peak_rss_mib_by_stage` as it stood after each
stage), and by stage `rows_per_s` and `seconds`, `rows_per_cpu_s` and `cpu_seconds` (of other programs on the machine
there is little in these). `sizes` holds the same for every size, and `growth` by stage the exponent of CPU time against
rows from N/10 to N (1 is linear).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import RESULTS, ROOT, fill_file, table

from tokenskip import pipeline
from tokenskip.config import RunConfig, check_config
from tokenskip.pruning.prune import prune_chains, write_dataset
from tokenskip.storage.store import COMPLETIONS, PRUNED, TRAIN, dump_row, read_rows, trajectory_row
from tokenskip.types import Trajectory

STAGES = ("grade", "score", "prune", "dataset")
NAMES = ("Tom", "Ana", "Priya", "Luis", "Mei", "Omar")
THINGS = ("apples", "marbles", "stickers", "coins", "shells", "cards")


def synthetic(n: int) -> Iterator[Trajectory]:
    """`n` completions with chains of three to eight steps; one of ten is wrong and one of twenty cut off."""
    rng = random.Random(0)
    for i in range(n):
        name, thing = rng.choice(NAMES), rng.choice(THINGS)
        total, steps = rng.randrange(10, 99), []
        question = f"{name} has {total} {thing}."
        for _ in range(rng.randrange(3, 9)):
            more = rng.randrange(2, 40)
            question += f" Then {name} gets {more} more."
            steps.append(f"Well, now {name} gets {more} more of the {thing}, so {total} + {more} = {total + more}.")
            total += more
        cot = "\n".join(steps)
        tail = f"\n\nThe final answer is {total + (rng.random() < 0.1)}."
        finish: Any = "length" if rng.random() < 0.05 else "stop"
        cot, tail = (cot + tail, "") if finish == "length" else (cot, tail)
        yield Trajectory(
            id=f"synthetic-{i}",
            question=question + " How many are there?",
            gold=str(total),
            output=cot + tail,
            cot=cot,
            tail=tail,
            n_tokens=len(cot) // 3,
            n_cot_tokens=len(cot) // 3,
            finish=finish,
        )


def config_of(problems: Path) -> RunConfig:
    """A run on the embedded model's tokenizer with the paper's ratios; the model itself is never loaded."""
    task = {"name": "jsonl", "train": str(problems), "test": str(problems), "options": {"numeric": True}}
    return check_config({"name": "scale", "task": task, "score": {"scorer": "random"}}, "scale")


def peak_mib() -> float:
    """The largest resident size this process ever had, in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n: int, folder: Path) -> dict[str, Any]:
    """Take `n` trajectories through the stages in this process."""
    problems = folder / "problems.jsonl"
    problems.write_text('{"id": "a", "question": "1 + 1?", "gold": "2"}\n', encoding="utf-8")
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], object]) -> None:
        start, cpu_start = time.perf_counter(), time.process_time()
        work()
        seconds[stage], cpu_seconds[stage] = time.perf_counter() - start, time.process_time() - cpu_start
        peaks[stage] = round(peak_mib(), 1)

    with pipeline.Run(folder / "run", config_of(problems)) as run:
        with run.folder.file(COMPLETIONS).open("w", encoding="utf-8") as out:
            out.writelines(dump_row(trajectory_row(one)) for one in synthetic(n))
        run.count("a tokenizer and its imports are loaded")
        run.free()
        peaks["start"] = round(peak_mib(), 1)
        timed("grade", lambda: pipeline.grade(run))
        timed("score", lambda: pipeline.score(run))
        timed("prune", lambda: prune_chains(run))
        timed("dataset", lambda: write_dataset(run))
        rows = {name: sum(1 for _ in read_rows(run.folder.require(name))) for name in (PRUNED, TRAIN)}
    assert rows[PRUNED] == n, f"{rows[PRUNED]} rows of {n} came through"
    return {
        "n": n,
        "training_rows": rows[TRAIN],
        "peak_rss_mib": round(peak_mib(), 1),
        "peak_rss_mib_by_stage": peaks,
        "rows_per_s": {stage: round(n / seconds[stage], 1) for stage in STAGES},
        "rows_per_cpu_s": {stage: round(n / cpu_seconds[stage], 1) for stage in STAGES},
        "seconds": {stage: round(seconds[stage], 3) for stage in STAGES},
        "cpu_seconds": {stage: round(cpu_seconds[stage], 3) for stage in STAGES},
    }


def measure_apart(n: int) -> dict[str, Any]:
    """`measure` in a fresh process, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--n", str(n), "--json", str(result), "--inside", folder]
        subprocess.run(command, check=True)
        measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return measured


def report(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest size's figures on top, all sizes below, and how time grows between the two largest."""
    last = sizes[-1]
    before = sizes[-2] if len(sizes) > 1 else last
    step = math.log(last["n"] / before["n"]) if last["n"] > before["n"] else math.nan
    used = [size["cpu_seconds"] for size in (before, last)]  # of other programs on the machine nothing is in these
    growth = {stage: round(math.log(used[1][stage] / max(used[0][stage], 1e-6)) / step, 3) for stage in STAGES}
    return {**last, "growth": growth if len(sizes) > 1 else {}, "sizes": sizes}


def show(one: dict[str, Any]) -> None:
    """One line a size."""
    rates = "  ".join(f"{stage} {one['rows_per_s'][stage]:>8,.0f}/s" for stage in STAGES)
    print(f"{one['n']:>9,} rows  {rates}  peak {one['peak_rss_mib']:,.0f} MiB", flush=True)


def markdown(result: dict[str, Any]) -> str:
    """The table of docs/reliability.md: rows per second of CPU time, which other programs disturb least."""
    rows = []
    for one in result["sizes"]:
        rates = (f"{one['rows_per_cpu_s'][stage]:,.0f}/s" for stage in STAGES)
        rows.append([f"{one['n']:,}", *rates, f"{one['peak_rss_mib']:,.0f} MiB"])
    if result["growth"]:
        rows.append(["exponent of CPU time", *(f"{result['growth'][stage]:.2f}" for stage in STAGES), ""])
    start, peaks = result["peak_rss_mib_by_stage"]["start"], [one["peak_rss_mib"] for one in result["sizes"]]
    return table(("trajectories", "grade", "score (random)", "prune", "dataset", "peak resident"), rows, 0) + (
        f"\nOf the resident memory, {start:,.0f} MiB are imports, there before the first row; the largest size takes "
        f"{peaks[-1] - peaks[0]:+,.0f} MiB more than the smallest.\n"
    )


def main() -> None:
    """Run the sizes, print a line each, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="trajectories of the largest size")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--publish", action="store_true", help="into docs/results/scale.json and docs/reliability.md")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.n < 1:
        parser.error("--n must be at least 1")
    if options.inside:
        options.json.write_text(json.dumps(measure(options.n, options.inside)), encoding="utf-8")
        return
    file, sizes = RESULTS / "scale.json" if options.publish else options.json, []
    for n in sorted({n for n in (options.n // 100, options.n // 10) if n >= 100} | {options.n}):
        sizes.append(measure_apart(n))
        show(sizes[-1])
        result = report(sizes)
        if file:  # after every size: the last takes longest
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for stage, exponent in result["growth"].items():
        print(f"{stage}: CPU time grows with rows^{exponent} between the two largest sizes")
    print(markdown(result))
    if options.publish:
        page = ROOT / "docs" / "reliability.md"
        fill_file(page, "scale", markdown(result))


if __name__ == "__main__":
    main()
