"""Kills (-9) a real run again and again at seeded moments, and counts what that cost.

Each start of the command is a process of its own, forked from a server that has only imported the libraries. It tells
over a pipe what it is about to compute; some milliseconds after a seeded one of these reports it sends itself SIGKILL,
wherever it is then (from outside, on a busy machine, the kill would come far too late).
`benchmarks/reliability.py` writes what comes out into the documents.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scripted_runs import recipe, write_problems

from tokenskip.storage.layout import MADE_BY

SAVE_STEPS = 2
STAGES = ("generate", "grade", "score", "prune", "dataset", "train", "evaluate", "report")
WINDOWS = {"generate": 8, "grade": 2, "score": 2, "prune": 2, "evaluate": 8}
"""Rows between two writes of a stage: small, so that a kill finds the quick stages at work."""
PLAN = ("generate",) * 4 + ("grade",) * 3 + ("score",) * 3 + ("prune",) * 3 + ("dataset",) * 2 + ("train",) * 5
PLAN += ("evaluate",) * 4 + ("report",) * 2
HEAVY = [
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "tokenskip.pipeline",
    "tokenskip.training.train",
    "tokenskip.cli",
]
TIMED = ("timings.jsonl", "results.json", "report.html")
"""Files with times in them: they differ between any two runs."""


@dataclass(frozen=True)
class Kill:
    """`delay_s` behind report number `after` of stage `target`, but at the first of a later stage at the latest.

    So no kill runs through a stage to its end, and each stage is found at work, however fast the machine is.
    """

    target: str
    after: int
    delay_s: float


def _command(arguments: list[str], pipe: Connection, kill: Kill | None) -> None:
    """`tokenskip ARGUMENTS`, which reports (stage, file, rows or steps) before or after it computes them."""
    from tokenskip import cli, pipeline
    from tokenskip.commands import console
    from tokenskip.generation import grade
    from tokenskip.pruning import prune, score
    from tokenskip.storage.store import Pending, RunFolder

    seen = 0

    def tell(stage: str, name: str, n: int) -> None:
        nonlocal seen
        pipe.send((stage, name, n))
        if kill is not None:
            seen += stage == kill.target
            late = STAGES.index(stage) > STAGES.index(kill.target)
            if late or (seen > kill.after and not kill.delay_s):  # not even the next line
                os.kill(os.getpid(), signal.SIGKILL)
            if seen > kill.after:
                threading.Timer(kill.delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    pending, stage, write_dataset, report = (
        RunFolder.pending,
        console._Stoppable.stage,
        prune.write_dataset,
        pipeline.report,
    )

    def watched_pending(self: RunFolder, name: str, inputs: Any, window: int) -> Pending:
        found = pending(self, name, inputs, window)

        def told() -> Iterator[Any]:
            for items in found.windows:
                tell(MADE_BY.get(name, "evaluate"), f"{self.path.name}/{name}", len(items))
                yield items

        return Pending(found.done, told())

    @contextmanager
    def watched_stage(self: Any, name: str, total: int | None) -> Iterator[Any]:
        with stage(self, name, total) as advance:
            calls = 0

            def counted(n: int, *, total: int | None = None, note: str = "") -> None:
                nonlocal calls
                calls += 1
                if name == "train" and calls > 2:  # the first two say how long it is and where it goes on
                    tell("train", "steps", n)
                advance(n, total=total, note=note)

            yield counted

    def watched_dataset(run: Any) -> None:
        tell("dataset", "", 0)
        write_dataset(run)

    def watched_report(run: Any) -> None:
        tell("report", "", 0)
        report(run)

    RunFolder.pending, console._Stoppable.stage = watched_pending, watched_stage  # type: ignore[method-assign]
    prune.write_dataset, pipeline.STAGES["report"] = watched_dataset, watched_report
    grade.WINDOW, score.WINDOW, prune.WINDOW = WINDOWS["grade"], WINDOWS["score"], WINDOWS["prune"]
    sys.argv = ["tokenskip", *arguments]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    cli.main()


class Runs:
    """Starts the command, kills it where asked for, and adds up what it computed."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(HEAVY)
        self.computed: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()

    def start(self, arguments: list[str], kill: Kill | None = None) -> int | None:
        """Run the command to its end, or until it is killed; returns its exit code."""
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_command, args=(arguments, theirs, kill))
        process.start()
        theirs.close()
        stage = ""
        while True:
            try:
                stage, name, n = ours.recv()
            except (EOFError, OSError):
                break
            self.computed[name] += n
        process.join()
        self.kills[stage] += process.exitcode == -9
        return process.exitcode


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a run that two undisturbed runs have in common."""
    files = (one for one in sorted(folder.rglob("*")) if one.is_file() and one.suffix != ".png")
    return {str(one.relative_to(folder)): one.read_bytes() for one in files if one.name not in (*TIMED, ".lock")}


def survive(folder: Path, model: Path, seed: int) -> dict[str, Any]:
    """Kill a run at every entry of `PLAN`, finish it, and compare it with an undisturbed one.

    Returns `kills` by stage, `rows_lost` and `rows_doubled` of the final files, `differing` files, what the undisturbed
    run `computed` by file, and by file `again`: rows (for `steps`: training steps) that were computed once more.
    """
    arms = {"arms": ["original", "tokenskip", "truncation_forced", "random"], "ratios": [0.5], "latency_samples": 0}
    train = {"save_steps": SAVE_STEPS}
    recipe_file = str(recipe(folder, model, evaluate={**arms, "batch_size": 2}, train=train))
    write_problems(folder, n_train=48, n_test=24)
    whole, killed = Runs(), Runs()
    assert whole.start(["run", recipe_file, "--out", str(folder / "a" / "run")]) == 0
    rng = random.Random(seed)
    arguments = ["run", recipe_file, "--out", str(folder / "b" / "run")]
    for i, target in enumerate(PLAN):
        once = target in ("dataset", "report")  # they are written as a whole
        first = target not in PLAN[:i]  # at once, since a quick stage is over in milliseconds
        delay_s = rng.uniform(0, 0.02) * (not first)
        killed.start(arguments, Kill(target, after=0 if once else rng.randrange(2), delay_s=delay_s))
    assert killed.start(arguments) == 0, "the last start did not end well"
    expected, got = files_of(folder / "a" / "run"), files_of(folder / "b" / "run")
    rows = {name: [data.splitlines() for data in (expected[name], got.get(name, b""))]
            for name in expected if name.endswith(".jsonl")}  # fmt: skip
    return {
        "kills": {stage: killed.kills[stage] for stage in STAGES},
        "rows_lost": sum((Counter(before) - Counter(after)).total() for before, after in rows.values()),
        "rows_doubled": sum((Counter(after) - Counter(before)).total() for before, after in rows.values()),
        "differing": sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)),
        "files": len(expected),
        "computed": dict(whole.computed),
        "again": {name: killed.computed[name] - n for name, n in whole.computed.items()},
    }
