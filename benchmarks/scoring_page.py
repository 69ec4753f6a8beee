"""Measures everything that docs/results/scoring.md shows, and writes that page and scoring.json.

Every part is one call of `scoring.py` in a process of its own. What a part found stays in `--out` (runs/scoring), so a
run that was killed goes on with the parts that are missing; `--only PART` measures these anew.

    python benchmarks/scoring_page.py --data GSM8K.jsonl       # about 15 minutes of one core
    python benchmarks/scoring_page.py                          # on chains of the embedded family
    python benchmarks/scoring_page.py --only base --only memory --data GSM8K.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import RESULTS, ROOT, table

from tokenskip.storage.store import write_atomically

Results = Mapping[str, Any]
TARGETS = {"base": 13.0, "large": 11.0}
"""By size: how many times fewer CPU-seconds than the package, as fixed before the first measurement."""
SHARE = 0.85
"""Of the machine's sgemm rate, in useful arithmetic: the second target."""
OWN_FAMILY = "chains of the embedded family"


@dataclass(frozen=True, slots=True)
class Part:
    """Options of `scoring.py`; `passive`: threads that wait sleep; `own`: on the embedded family in any case."""

    options: str
    passive: bool = False
    own: bool = False

    def command(self, data: str | None) -> str:
        """As one would type it, with `--data` where there is some."""
        wait = "OMP_WAIT_POLICY=passive " if self.passive else ""
        texts = f" --data {data}" if data and not self.own else ""
        return f"{wait}python benchmarks/scoring.py {self.options}{texts}"


SPEED = {
    "base": Part("--size base --texts 24 --reference 5 --threads 1"),
    "base, own family": Part("--size base --texts 24 --reference 5 --threads 1", own=True),
    "base, 2 threads": Part("--size base --texts 24 --reference 5 --threads 2", passive=True),
    "base, 2 spinning threads": Part("--size base --texts 24 --reference 5 --threads 2"),
    "large": Part("--size large --texts 12 --reference 3 --threads 1"),
    "large, 2 threads": Part("--size large --texts 12 --reference 3 --threads 2", passive=True),
}
MEMORY = {"memory": Part("--memory --scorer llmlingua2 --texts 7473")}
DECISIONS = {
    "decisions, rule": Part("--decisions --texts 400"),
    "decisions, XLM-R": Part("--decisions --trained-xlmr --texts 100"),
    "decisions, base": Part("--decisions --random --size base --texts 40 --dtypes bfloat16"),
    "decisions, large": Part("--decisions --random --size large --texts 20 --dtypes bfloat16"),
    "decisions, surprisal": Part("--decisions --scorer surprisal --texts 300", own=True),
}
PARTS = {**SPEED, **MEMORY, **DECISIONS}


def measure(name: str, data: Path | None, out: Path) -> None:
    """One part, into a file of `out`."""
    part, file = PARTS[name], out / f"{name}.json"
    load = round(os.getloadavg()[0], 1)
    print(f"{name}: {part.command(str(data) if data else None)}", flush=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "scoring.py"), *part.options.split(), "--json", str(file)]
    command += ["--data", str(data.resolve())] if data and not part.own else []
    environment = {**os.environ, **({"OMP_WAIT_POLICY": "passive"} if part.passive else {})}
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{name}: the command above failed; what other parts found stays in {out}")
    found = json.loads(file.read_text(encoding="utf-8"))
    texts = OWN_FAMILY if part.own or data is None else f"{data.resolve().parent.name}/{data.name}"
    write_atomically(file, json.dumps({"texts": texts, "load": load, "cpu": cpu(), **found}, indent=1) + "\n")


def cpu() -> str:
    """What this machine calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def collect(out: Path) -> dict[str, Any]:
    """The parts that are measured, in the order of `PARTS`."""
    files = {name: out / f"{name}.json" for name in PARTS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def met(found: Results) -> bool:
    """Whether a row of the speed table reaches both targets."""
    run = found["runs"][0]
    return bool(run["speedup_cpu"] >= TARGETS[found["size"]] and run["sgemm_share"] >= SHARE)


def speed_table(results: Results) -> str:
    """A row for each measurement of the speed, with the command behind it."""
    rows = []
    for name in SPEED:
        if name not in results:
            continue
        found, run = results[name], results[name]["runs"][0]
        waits = "" if run["threads"] == 1 else ", waiting passively" if SPEED[name].passive else ", spinning"
        pairs = run["n_reference"] * 5
        rows.append(
            [
                found["size"],
                f"{run['threads']}{waits}",
                f"{run['n_texts']} of {found['texts']}",
                f"{run['mean_tokens']:.0f}",
                f"{run['flop_ratio']:.1f}",
                f"{run['speedup_cpu']:.1f}× {span(run['speedup_cpu_range'], 1)}",
                f"{run['sgemm_share']:.3f} {span(run['sgemm_share_range'], 2)}",
                f"{'yes' if run['identical'] else '**no**'} ({pairs} results)",
                f"{found['load']}",
                "yes" if met(found) else "**no**",
            ]
        )
    measures = ("tokens", "`flop_ratio`", "speedup", "`sgemm_share`", "identical", "load", "met")
    return table(("size", "threads", "texts", *measures), rows, 3)


def span(ends: Sequence[float], digits: int) -> str:
    """The least and the greatest of the rounds."""
    return f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def memory_table(found: Results) -> str:
    """A row for each number of texts."""
    [sizes] = found["scorers"].values()
    rows = [[f"{int(n):,}", f"{one['peak_mib']:,.0f} MiB", f"{one['cpu_s']:.0f}"] for n, one in sizes.items()]
    return table((f"texts of {found['texts']}", "peak", "CPU-seconds"), rows, 0)


def decisions_table(results: Results) -> str:
    """A row for each scorer, model and lower precision."""
    rows = []
    for name in DECISIONS:
        if name not in results:
            continue
        found = results[name]
        options = DECISIONS[name].options
        fitted = "an XLM-R of 4 layers, fitted for 3 epochs" if "--trained-xlmr" in options else "embedded"
        model = f"random weights, {name.rpartition(' ')[2]}" if "--random" in options else fitted
        whole = found["dtypes"]["float32"]["cpu_s"]
        for dtype, one in found["dtypes"].items():
            if dtype == "float32":
                continue
            changed = f"{100 * one['texts_changed']:.1f}%", f"{100 * one['words_changed']:.2f}%"
            texts = f"{found['n_texts']} of {found['texts']}"
            rows.append([found["scorer"], model, texts, dtype, *changed, f"{one['cpu_s'] / whole:.2f}"])
    measures = ("results that change", "words that change", "CPU time")
    return table(("scorer", "model", "texts", "dtype", *measures), rows, 4)


def commands(parts: Mapping[str, Part], results: Results) -> str:
    """The commands behind a table, one a line."""
    shown = dict.fromkeys(part.command("FILE.jsonl") for name, part in parts.items() if name in results)
    return "```sh\n" + "\n".join(shown) + "\n```"


def machines(results: Results, parts: Mapping[str, Part]) -> str:
    """The processors that these parts were measured on."""
    return " and ".join(dict.fromkeys(results[name]["cpu"] for name in parts if name in results))


def page(results: Results) -> str:
    """The whole page; a section for what is measured."""
    speed = [results[name] for name in SPEED if name in results]
    reached = sum(map(met, speed))
    sections = [HEAD.format(machines=machines(results, {**SPEED, **MEMORY} if speed else PARTS))]
    if speed:
        targets = ", ".join(f"{TARGETS[size]:.0f}× at {size}" for size in dict.fromkeys(one["size"] for one in speed))
        verdict = f"{reached} of {len(speed)} rows meet both targets: {targets}, and a share of {SHARE}."
        sections.append(f"## Speed\n\n{SPEED_ABOUT}\n\n{speed_table(results)}\n{verdict}\n{LOAD}")
        sections.append(commands(SPEED, results))
    if "memory" in results:
        sizes = memory_table(results["memory"])
        sections.append(f"## Memory\n\n{MEMORY_ABOUT}\n\n{sizes}\n{commands(MEMORY, results)}")
    if any(name in results for name in DECISIONS):
        tables = f"{decisions_table(results)}\n{commands(DECISIONS, results)}"
        about = DECISIONS_ABOUT.format(machines=machines(results, DECISIONS))
        sections.append(f"## Lower precision\n\n{about}\n\n{tables}\n\n{ON_A_GPU}")
    return "\n\n".join(sections) + "\n"


HEAD = """\
# LLMLingua-2 scoring: how fast, and what lower precision would change

`rule=llmlingua` returns what `llmlingua` 0.2.2 returns, decision for decision. Made by
`python benchmarks/scoring_page.py`; every number: [scoring.json](scoring.json). Measured on {machines}; one
checkpoint for both sides: random weights of XLM-R's shape, a vocabulary of 2,000 pieces made from the texts. The
docstring of `benchmarks/scoring.py` says what each figure counts."""
SPEED_ABOUT = """\
The package pads every text to 512 tokens and runs the model once per ratio; ours runs once, without padding. For five
ratios that alone is 5 × (arithmetic of 512 tokens) / (arithmetic of the text), the `flop_ratio`, which follows from the
lengths of the texts and nothing else: the shorter, the larger. The speedup, in CPU-seconds, is this ratio times
(share of the machine's sgemm rate that ours reaches) / (share that the package reaches). Both are medians of rounds,
[least, greatest]; in a round ours scores all texts, the package one. `identical`: what both returned at five ratios."""
LOAD = """\
`load` is the machine's load average as the part began. CPU-seconds leave other programs out, but for threads that wait
for each other by spinning while others hold the cores: `OMP_WAIT_POLICY=passive` makes them sleep instead."""
MEMORY_ABOUT = """\
Peak resident memory of `tokenskip prune FILE --scorer llmlingua2 --model embedded --ratio 0.5 --ratio 0.7`, each in a
fresh process. Texts are read, scored and written 256 at a time; it rises while the tokenizers' caches fill and the
longest texts come by, not with the rows."""
DECISIONS_ABOUT = """\
`model.dtype` takes `bfloat16` and `float16`; int8 is refused. LLMLingua-2 models are float32 unless one of these is
asked for, causal models are bfloat16 on a GPU and float32 on a CPU. Shares of results that differ from float32, at the
ratios .5 to .9, and CPU time over that of float32, on {machines}:"""
ON_A_GPU = """\
Narrow models gain nothing, nor do CPUs without units for it. On a GPU, measure your own model: `python
benchmarks/scoring.py --decisions --scorer NAME --model MODEL --data FILE.jsonl`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing or asked for, write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"JSONL with question and answer, or cot (default: {OWN_FAMILY})")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "scoring", help="where every part's figures stay")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or PARTS:
        if args.only or not (args.out / f"{name}.json").exists():
            measure(name, args.data, args.out)
        publish(collect(args.out), RESULTS)


def publish(results: Results, folder: Path) -> None:
    """scoring.md and scoring.json in `folder`."""
    write_atomically(folder / "scoring.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "scoring.md", page(results))


if __name__ == "__main__":
    main()
