"""Several runs on one page: `compare.html` from run folders or `results.json` files, paired where problems coincide.

    tokenskip compare runs/a runs/b docs/results/embedded.json -o compare.html

Every run is paired arm by arm with the first one: on the problems whose id, question and gold answer are the same in
both, exact McNemar says whether the difference may be chance. A run folder has every graded completion; a
`results.json` alone is paired only when it shows every problem, since the ones it shows first are picked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenskip.commands.outputs import writing
from tokenskip.errors import ConfigError, DataError, RunError
from tokenskip.evaluation.metrics import arm_label, paired_difference, takes_ratio
from tokenskip.report.page import complete, embed, environment, headline, num, pct, read_templates, signed
from tokenskip.store import EVAL, RESULTS, read_rows, trajectory_from_row
from tokenskip.types import Grade, Trajectory

Run = dict[str, Any]
PALETTE = (
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#ee8340"),
    ("#00875f", "#2dbd92"),
    ("#b8608f", "#dd94bd"),
    ("#c98500", "#e8a92e"),
    ("#6a5acd", "#a99cf0"),
)
SHOWN: tuple[str, ...] = ("arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high")
SHOWN += ("cot_tokens_mean", "cot_tokens_median", "achieved_ratio")
_PAIRED = ("n", "difference", "low", "high", "lost", "gained", "p_value", "equivalence")


def read_runs(sources: Sequence[Path]) -> list[Run]:
    """Every source's results, with a unique `name` and the file it is from as `source`.

    Raises:
        ConfigError: fewer than two sources. RunError, DataError: as `read_run`.
    """
    if len(sources) < 2:
        raise ConfigError("compare needs at least two runs (folders or results.json files)")
    read = [read_run(source) for source in sources]
    given = [run["run"] for run in read]
    runs: list[Run] = []
    for source, run in zip(sources, read, strict=True):
        first = run["run"]
        if given.count(first) > 1:  # runs of one recipe: told apart by their folders
            place = source.resolve()
            first = f"{first} ({(place if place.is_dir() else place.parent).name})"
        name, k = first, 2
        while name in [other["name"] for other in runs]:
            name, k = f"{first} {k}", k + 1
        runs.append(run | {"name": name})
    return runs


def read_run(source: Path) -> Run:
    """The results of a run folder or of a results file, every optional key filled in.

    Raises:
        RunError: nothing is there. DataError: it is no results file.
    """
    file = source / RESULTS if source.is_dir() else source
    try:
        results = complete(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RunError(f"no {file}: give run folders (after `tokenskip report`) or results.json files") from None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a results file: {type(error).__name__}: {error}") from None
    return results | {"source": file}


def completions(run: Run, label: str) -> list[Trajectory]:
    """The graded completions of an arm; empty where not every one of them is known."""
    n = next(arm["n"] for arm in run["arms"] if arm_label(arm["arm"], arm["ratio"]) == label)
    file = run["source"].parent / EVAL / f"{label.replace(' ', '-')}.jsonl"
    if run["source"].name == RESULTS and file.exists():
        rows = [trajectory_from_row(row) for row in read_rows(file)]
        return rows if len(rows) == n else []  # an evaluation under way: not what the results sum up
    shown = [problem for problem in run["problems"] if label in problem["arms"]]
    if len(shown) != n:
        return []
    return [
        Trajectory(
            id=problem["id"],
            question=problem["question"],
            gold=problem["gold"],
            grade=Grade(correct=problem["arms"][label]["correct"], reason=""),
        )
        for problem in shown
    ]


def pairs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For every arm of the first run and every other run that has it: `{label, run, from, to, n, difference, …}`.

    `from` and `to` are accuracies; `n` and what follows from pairs is None where no problem is known to be the same.
    """
    first, found = runs[0], []
    for arm in first["arms"]:
        label = arm_label(arm["arm"], arm["ratio"])
        before = _by_content(completions(first, label))
        for run in runs[1:]:
            other = next((one for one in run["arms"] if arm_label(one["arm"], one["ratio"]) == label), None)
            if other is None:
                continue
            paired = paired_difference(before, _by_content(completions(run, label)))
            row: dict[str, Any] = {"label": label, "run": run["name"], "from": arm["accuracy"], "to": other["accuracy"]}
            found.append(row | {key: getattr(paired, key) if paired else None for key in _PAIRED})
    return found


def _by_content(rows: Sequence[Trajectory]) -> list[Trajectory]:
    """The rows under ids that are equal only where the problems are: two runs may call different ones `test-7`."""
    return [replace(row, id=json.dumps([row.id, row.question, row.gold])) for row in rows]


def write_page(runs: Sequence[Run], target: Path) -> Path:
    """`target`, just written: one file that opens offline.

    Raises:
        RunError: it cannot be written.
    """
    names = list(dict.fromkeys(arm["arm"] for run in runs for arm in run["arms"]))
    template = environment().get_template("compare.html")
    page = template.render(
        runs=runs,
        names=names,
        shown=[name for name in names if name in ("original", "tokenskip")] or names,
        colours=[(k, *PALETTE[k % len(PALETTE)]) for k in range(len(runs))],
        css=read_templates("report.css"),
        js=read_templates("charts.js", "compare.js"),
        island=embed([{"run": run["name"], "arms": [_point(run, arm) for arm in run["arms"]]} for run in runs]),
        pairs=pairs(runs),
        takes_ratio=takes_ratio,
        summary=summary(runs),
    )
    with writing(target, inputs=[run["source"] for run in runs]) as out:
        out.write(page)
    return target


def _point(run: Run, arm: Mapping[str, Any]) -> dict[str, Any]:
    label = f"{run['name']}: {arm_label(arm['arm'], arm['ratio'])}"
    return {key: arm.get(key) for key in SHOWN} | {"label": label, "dial": takes_ratio(arm["arm"], arm["ratio"])}


def summary(runs: Sequence[Run]) -> str:
    """One sentence a run: what TokenSkip near the headline ratio costs and saves there."""
    said = []
    for run in runs:
        pair = headline(run["arms"])
        if pair is None:
            said.append(f"{run['name']} has no TokenSkip model beside its original.")
            continue
        original, arm = pair
        said.append(
            f"{run['name']}, asked for {arm['ratio']}, writes {pct(arm['achieved_ratio'], 0)} of the tokens and solves "
            f"{pct(arm['accuracy'])} ({signed(100 * (arm['accuracy'] - original['accuracy']))} points)."
        )
    return " ".join(said)


def terminal_table(rows: Sequence[Mapping[str, Any]], first: str) -> Any:
    """`pairs` as a rich table within 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"against {first}, arm by arm"), box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True, max_width=22)
    table.add_column("run", no_wrap=True, max_width=16)
    for title in ("right", "points", "paired", "lost/gained", "p"):
        table.add_column(title, justify="right")
    for row in rows:
        points = row["difference"] if row["n"] else row["to"] - row["from"]
        table.add_row(
            Text(row["label"]),
            Text(row["run"]),
            pct(row["to"]),
            signed(100 * points),
            num(row["n"]) if row["n"] else "no",
            f"{row['lost']}/{row['gained']}" if row["n"] else "–",
            "< 0.001" if row["n"] and row["p_value"] < 0.001 else num(row["p_value"], 3),
        )
    return table
