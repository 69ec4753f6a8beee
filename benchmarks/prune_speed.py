"""Rows per second of `tokenskip prune FILE` with the random scorer, in two source trees side by side.

    python benchmarks/prune_speed.py FILE.jsonl --against OTHER/src [--rounds 3]

FILE holds `{id, cot}` lines. The trees take turns in processes of their own, and what counts is the processor time of
the fastest round of each: on a busy machine only the ratio of the two means anything.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"


def seconds(source: Path, tree: Path, output: Path) -> float:
    """Processor seconds of one run of the command with the package in `tree`, its start included."""
    command = [sys.executable, "-m", "tokenskip", "prune", str(source), "--scorer", "random", "--ratio", "0.5"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--preview", "0", "-o", str(output)], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with options.source.open(encoding="utf-8") as lines:
        n_rows = sum(1 for line in lines if line.strip())
    trees = {"this tree": HERE, **({"the other": options.against} if options.against else {})}
    best = dict.fromkeys(trees, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, tree in trees.items():
                best[name] = min(best[name], seconds(options.source, tree, Path(folder) / "out.jsonl"))
    for name, taken in best.items():
        print(f"{name}: {n_rows / taken:,.0f} rows/s ({taken:.1f} s of processor time)")
    if options.against:
        print(f"speed of this tree relative to the other: {best['the other'] / best['this tree']:.2f}")


if __name__ == "__main__":
    main()
