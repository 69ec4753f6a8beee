"""Several runs on one page: `compare.html` from run folders or `results.json` files, paired where problems coincide.

    tokenskip compare runs/a runs/b docs/results/embedded.json -o compare.html

Every run is paired arm by arm with the first one: on the problems whose id, question and gold answer are the same in
both, exact McNemar says whether the difference may be chance. A run folder has every graded completion; a
`results.json` alone is paired only when it shows every problem, since the ones it shows first are picked. Runs that
differ only in their seed are also shown together: how much a number varies from one training to the next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenskip.errors import ConfigError
from tokenskip.evaluation.comparisons import headline, main_arm
from tokenskip.evaluation.metrics import Paired, paired_difference
from tokenskip.evaluation.schema import ArmResult, Results, load_results
from tokenskip.evaluation.spread import ArmSpread, spread
from tokenskip.report.page import embed, environment, on_charts, read_templates
from tokenskip.report.tables import plain
from tokenskip.report.text import num, p_value_text, pct, points, signed
from tokenskip.storage.outputs import writing
from tokenskip.storage.store import EVAL, RESULTS, read_rows, trajectory_from_row
from tokenskip.types import Grade, Trajectory

PALETTE = (
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#ee8340"),
    ("#00875f", "#2dbd92"),
    ("#b8608f", "#dd94bd"),
    ("#c98500", "#e8a92e"),
    ("#6a5acd", "#a99cf0"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run with a name that no other one on the page has, and the file its results are from."""

    name: str
    file: Path
    results: Results


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedArm:
    """An arm of another run beside the first run's; `paired` is None where no problem is known to be the same."""

    label: str
    run: str
    first: float | None
    this: float | None
    paired: Paired | None

    @property
    def change(self) -> float | None:
        """Accuracy minus the first run's: on the same problems where they are known, else of both as they are."""
        if self.paired:
            return self.paired.difference
        return None if self.first is None or self.this is None else self.this - self.first


def read_runs(sources: Sequence[Path]) -> list[NamedRun]:
    """Every source's results, with a unique name.

    Raises:
        ConfigError: fewer than two sources. RunError, DataError: as `load_results`.
    """
    if len(sources) < 2:
        raise ConfigError("compare needs at least two runs (folders or results.json files)")
    read = [load_results(source) for source in sources]
    names = [results.run for results in read]
    runs: list[NamedRun] = []
    for source, results in zip(sources, read, strict=True):
        first = results.run
        if names.count(first) > 1:  # runs of one recipe: distinguished by their folders
            place = source.resolve()
            first = f"{first} ({(place if place.is_dir() else place.parent).name})"
        name, k = first, 2
        while name in [other.name for other in runs]:
            name, k = f"{first} {k}", k + 1
        runs.append(NamedRun(name=name, file=source / RESULTS if source.is_dir() else source, results=results))
    return runs


def completions(run: NamedRun, arm: ArmResult) -> list[Trajectory]:
    """The graded completions of an arm; empty where not every one of them is known."""
    file = run.file.parent / EVAL / f"{arm.label.replace(' ', '-')}.jsonl"
    if run.file.name == RESULTS and file.exists():
        rows = [trajectory_from_row(row) for row in read_rows(file)]
        return rows if len(rows) == arm.n else []  # an evaluation under way: not what the results sum up
    shown = [problem for problem in run.results.problems if arm.label in problem.arms]
    if len(shown) != arm.n:
        return []
    return [
        Trajectory(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            grade=Grade(correct=problem.arms[arm.label].correct, reason=""),
        )
        for problem in shown
    ]


def pairs(runs: Sequence[NamedRun]) -> list[PairedArm]:
    """Every arm of the first run beside every other run that has it."""
    first, found = runs[0], []
    for arm in first.results.arms:
        before = _by_content(completions(first, arm))
        for run in runs[1:]:
            other = next((row for row in run.results.arms if row.label == arm.label), None)
            if other is None:
                continue
            paired = paired_difference(before, _by_content(completions(run, other)))
            row = PairedArm(label=arm.label, run=run.name, first=arm.accuracy, this=other.accuracy, paired=paired)
            found.append(row)
    return found


def spreads(runs: Sequence[NamedRun]) -> list[ArmSpread]:
    """Every trained arm over trainings, where runs differ only in their seeds."""
    return spread([(run.name, run.results) for run in runs])


def _by_content(rows: Sequence[Trajectory]) -> list[Trajectory]:
    """The rows under ids that are equal only where the problems are: two runs may call different ones `test-7`."""
    return [replace(row, id=json.dumps([row.id, row.question, row.gold])) for row in rows]


def write_comparison(runs: Sequence[NamedRun], target: Path) -> Path:
    """`target`, just written: one file that opens offline.

    Raises:
        RunError: it cannot be written.
    """
    names = list(dict.fromkeys(arm.arm for run in runs for arm in run.results.arms))
    first_shown = {arm.arm for run in runs for arm in run.results.arms if _is_shown_first(run, arm)}
    page = (
        environment()
        .get_template("compare.html")
        .render(
            runs=runs,
            names=names,
            shown=[name for name in names if name in first_shown] or names,
            colours=[(k, *PALETTE[k % len(PALETTE)]) for k in range(len(runs))],
            css=read_templates("report.css"),
            js=read_templates("charts.js", "compare.js"),
            data=embed([{"run": run.name, "arms": _points(run)} for run in runs]),
            pairs=pairs(runs),
            spreads=spreads(runs),
            summary=summary(runs),
        )
    )
    with writing(target, inputs=[run.file for run in runs]) as out:
        out.write(page)
    return target


def _is_shown_first(run: NamedRun, arm: ArmResult) -> bool:
    return arm.role == "original" or arm.arm == main_arm(run.results.arms)


def _points(run: NamedRun) -> list[dict[str, Any]]:
    """What the charts need of a run's arms."""
    main = main_arm(run.results.arms)
    return [{**on_charts(arm, main), "label": f"{run.name}: {arm.label}"} for arm in run.results.arms]


def summary(runs: Sequence[NamedRun]) -> str:
    """One sentence a run: what TokenSkip near the headline ratio costs and saves there."""
    said = []
    for run in runs:
        pair = headline(run.results.arms)
        if pair is None:
            said.append(f"{run.name} has no TokenSkip model beside its original.")
            continue
        original, arm = pair
        said.append(
            f"{run.name}, asked for {arm.ratio}, writes {pct(arm.achieved_ratio, 0)} of the tokens and solves "
            f"{pct(arm.accuracy)} ({signed(points((arm.accuracy or 0) - (original.accuracy or 0)))} points)."
        )
    return " ".join(said)


def terminal_table(rows: Sequence[PairedArm], first: str) -> Any:
    """`pairs` as a rich table within 80 columns."""
    from rich.table import Table

    table = Table(title=plain(f"against {first}, arm by arm"), box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True, max_width=22)
    table.add_column("run", no_wrap=True, max_width=16)
    for title in ("right", "points", "paired", "lost/gained", "p"):
        table.add_column(title, justify="right")
    for row in rows:
        paired = row.paired
        table.add_row(
            plain(row.label),
            plain(row.run),
            pct(row.this),
            signed(points(row.change)),
            num(paired.n) if paired else "no",
            f"{paired.lost}/{paired.gained}" if paired else "–",
            p_value_text(paired.p_value) if paired else "–",
        )
    return table


def spread_table(rows: Sequence[ArmSpread]) -> Any:
    """`spreads` as a rich table within 80 columns: mean, least to greatest and standard deviation over trainings."""
    from rich.table import Table

    table = Table(
        title="over trainings that differ only in their seed", box=None, padding=(0, 1, 0, 0), header_style="bold"
    )
    table.add_column("arm", no_wrap=True, max_width=18)
    for title in ("runs", "right", "range", "SD", "problems", "ratio", "range", "SD"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        accuracy, achieved = row.accuracy, row.achieved_ratio
        table.add_row(
            plain(row.label),
            f"{row.n_trainings}",
            num(points(accuracy.mean), 1),
            f"{num(points(accuracy.least), 1)}–{num(points(accuracy.greatest), 1)}",
            num(points(accuracy.deviation), 1),
            f"{num(points(row.problems_low), 1)}–{num(points(row.problems_high), 1)}",
            num(achieved.mean, 2) if achieved else "–",
            f"{num(achieved.least, 2)}–{num(achieved.greatest, 2)}" if achieved else "–",
            num(achieved.deviation, 3) if achieved else "–",
        )
    table.caption = "right: % (SD in points); problems: 95% interval at the mean; ratio: as achieved"
    table.caption_justify = "left"
    return table
