"""Counts what a run survives: kills, injected faults, fuzzed inputs; and times the local engine against Ray.

    OMP_NUM_THREADS=1 python benchmarks/reliability.py             # all parts; or: --only kills fuzz

Every part writes its figures into docs/results/reliability.json, and all of them stand in docs/reliability.md between
two markers. Kills come from tests/killing.py, faults and fuzzed inputs from the tests themselves (pytest runs here, and
hypothesis counts), engines from `generate` on a backend that waits half a second a window, as for an accelerator, and
on the embedded model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pages import RESULTS, ROOT, fill_file, table

from tokenskip.progress import Advance

TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))
RESULT, PAGE = RESULTS / "reliability.json", ROOT / "docs" / "reliability.md"
SEEDS = (0, 1, 2)
N_ROWS = 256
FAULTS = {
    "disk full, read-only or failing": "may_not_grow or any_disk_error or full_disk or cannot_be_used",
    "file torn, or cut at any byte": "cut_off_at_any_byte or torn or whole_files",
    "file removed; disk full in training": "faults_of_a_whole_command or missing_stage",
    "second process, stale lock": "held_by_one_process",
    "Ctrl-C, SIGTERM": "interrupt or ctrl_c",
    "folder of another version or configuration": "another_version or changed_configuration",
    "Ray worker killed, run stopped on Ray": "dead_worker or goes_on_where_it_was_stopped",
}
"""What goes wrong -> the tests that make it happen, of test_faults, test_engine and test_store."""


def kills() -> dict[str, Any]:
    """Kills (-9) survived by stage, and what they cost."""
    from conftest import save_tiny_model
    from killing import STAGES, survive

    by_stage: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            found = survive(Path(folder), save_tiny_model(Path(folder) / "tiny"), seed)
        by_stage.update(found["kills"])
        steps, steps_again = found["computed"].pop("steps"), found["again"].pop("steps")
        total.update(
            runs=1,
            files_differing=len(found["differing"]),
            rows_lost=found["rows_lost"],
            rows_doubled=found["rows_doubled"],
            rows_computed=sum(found["computed"].values()),
            rows_computed_again=sum(found["again"].values()),
            steps=steps,
            steps_again=steps_again,
        )
        print(f"kills, seed {seed}: {found['kills']}, differing files: {found['differing']}", flush=True)
    return {"by_stage": {stage: by_stage[stage] for stage in STAGES}, **total}


def pytest(*arguments: str) -> str:
    """What pytest prints; a test that fails ends the benchmark."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    return done.stdout


def fuzz() -> dict[str, Any]:
    """Inputs that hypothesis drew, by property, and cases of the fixed list of bombs."""
    shown = pytest(str(TESTS / "test_fuzz.py"), "-q", "--hypothesis-show-statistics")
    drawn: dict[str, int] = {}
    for name, statistics in re.findall(r"test_fuzz\.py::(\w+):\n(.*?)(?=\n\S|\Z)", shown, re.DOTALL):
        drawn[name] = sum(int(n) for n in re.findall(r"(\d+) (?:passing|failing|invalid)", statistics))
    passed = re.search(r"(\d+) passed", shown)
    assert passed
    return {"drawn": drawn, "fixed": int(passed.group(1)) - len(drawn)}


def faults() -> dict[str, Any]:
    """Tests that passed by kind of fault."""
    files = [str(TESTS / f"test_{name}.py") for name in ("faults", "engine", "store")]
    counts: dict[str, int] = {}
    for kind, chosen in FAULTS.items():
        passed = re.search(r"(\d+) passed", pytest(*files, "-q", "-k", chosen))
        assert passed, kind
        counts[kind] = int(passed.group(1))
    return counts


class Stopwatch:
    """A `Progress` that notes when it was made and when the first rows came."""

    def __init__(self) -> None:
        self.start, self.first = time.perf_counter(), 0.0

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`."""

        def advance(n: int, *, total: int | None = None, note: str = "") -> None:
            self.first = self.first or (time.perf_counter() if n else 0.0)

        yield advance


def engines() -> dict[str, Any]:
    """Seconds of `generate` on the local engine and on Ray with 1, 2 and 4 workers: to the first window, and behind."""
    from conftest import save_tiny_model
    from scripted_runs import recipe, write_problems

    from tokenskip import pipeline
    from tokenskip.config import load_recipe

    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(TESTS)])  # for the actors
    seconds: dict[str, dict[str, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waiting = recipe(folder, save_tiny_model(folder / "tiny"), generate={"options": {"pause": 0.5}})
        write_problems(folder, n_train=N_ROWS)
        recipes = {
            "a backend that waits 0.5 s for 8 rows": (waiting, []),
            "the embedded model on this CPU": (None, ["generate.batch_size=8", f"task.train_limit={N_ROWS}"]),
        }
        for title, (file, settings) in recipes.items():
            seconds[title] = {}
            for workers in (0, 1, 2, 4):
                engine = [
                    f"engine.workers={workers}",
                    "engine=ray",
                    "engine.address=local",
                    "engine.cpus_per_worker=0.5",
                ]
                config = load_recipe(file, settings + (engine if workers else []))
                label = f"Ray, {workers}" if workers else "local"
                watch = Stopwatch()
                with pipeline.Run(folder / f"{len(seconds)}-{workers}", config, watch) as run:
                    pipeline.generate(run)
                first, last = (moment - watch.start for moment in (watch.first, time.perf_counter()))
                seconds[title][label] = round(first, 1), round(last - first, 1)
                print(f"{title}: {label}: {seconds[title][label]} s", flush=True)
    return {"rows": N_ROWS, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "seconds": seconds}


def markdown(result: dict[str, Any]) -> str:
    """The measured part of docs/reliability.md: a paragraph for each part that was measured."""
    shown = {"kills": show_kills, "faults": show_faults, "fuzz": show_fuzz, "engines": show_engines}
    return "\n".join(show(result[name]) for name, show in shown.items() if name in result)


def show_kills(killed: dict[str, Any]) -> str:
    """A sentence, and the kills by stage."""
    stages = killed["by_stage"]
    return (
        f"**Kills.** {sum(stages.values())} kills (-9) of a real process in {killed['runs']} runs, at seeded moments, "
        f"the same command after each: {killed['files_differing']} files differ from an undisturbed run's, "
        f"{killed['rows_lost']} rows lost, {killed['rows_doubled']} rows doubled. Besides the "
        f"{killed['rows_computed']:,} rows and {killed['steps']:,} training steps of undisturbed runs, "
        f"{killed['rows_computed_again']:,} rows (the windows in flight) and {killed['steps_again']:,} steps (since "
        f"the last checkpoint) were computed again. Kills by stage:\n\n"
        + table(list(stages), [list(stages.values())], 0)
    )


def show_faults(counts: dict[str, int]) -> str:
    """A table of kinds."""
    return "**Faults.** Tests that inject them, all passed:\n\n" + table(("fault", "tests"), list(counts.items()))


def show_fuzz(fuzzed: dict[str, Any]) -> str:
    """A sentence."""
    return (
        f"**Hostile input.** {sum(fuzzed['drawn'].values()):,} inputs drawn for {len(fuzzed['drawn'])} properties, and "
        f"{fuzzed['fixed']} fixed cases (bombs, paths, scripts): no traceback, no hang, nothing executed.\n"
    )


def show_engines(ran: dict[str, Any]) -> str:
    """A table of seconds."""
    rows = [
        [title, *(f"{first} + {rest}" for first, rest in seconds.values())] for title, seconds in ran["seconds"].items()
    ]
    return (
        f"**Engines.** Seconds of `generate` for {ran['rows']} rows on {ran['cores']} cores at a load average of "
        f"{ran['load']}: up to the first window of rows (imports, cluster, actors, models), and after it:\n\n"
        + table(["", *next(iter(ran["seconds"].values()))], rows)
    )


def main() -> None:
    """Measure the parts asked for, keep the other figures, write both files."""
    parts = {"kills": kills, "fuzz": fuzz, "faults": faults, "engines": engines}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in parser.parse_args().only:
        result[name] = parts[name]()
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        fill_file(PAGE, "measured", markdown(result))


if __name__ == "__main__":
    main()
