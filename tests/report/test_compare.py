"""Runs side by side: paired only where problems are the same, and a page that opens."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from rich.console import Console

from tokenskip.errors import ConfigError, DataError, RunError
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.report import compare
from tokenskip.store import trajectory_row
from tokenskip.types import Grade, Trajectory

EVIL = "</script><img src=x onerror=alert(1)>[bold]"


def rows(wrong: set[int], *, n: int = 20, prefix: str = "q") -> list[Trajectory]:
    return [
        Trajectory(
            id=f"p{i}",
            question=f"{prefix}{i}",
            gold="1",
            n_cot_tokens=40 + i,
            n_tokens=50,
            grade=Grade(correct=i not in wrong, reason=""),
        )
        for i in range(n)
    ]


def write_run(
    folder: Path, name: str, wrong: set[int], *, prefix: str = "q", files: bool = True, shown: int = 20
) -> Path:
    """A run with an original and one ratio; with `files` its completions, else `shown` problems in results.json."""
    (folder / "eval").mkdir(parents=True)
    before, after = rows(set(), prefix=prefix), rows(wrong, prefix=prefix)
    arms = [summarise_arm("original", None, before, before), summarise_arm("tokenskip", 0.6, after, before)]
    problems = [
        {"id": a.id, "question": a.question, "gold": a.gold}
        | {
            "arms": {
                label: {"correct": one.grade and one.grade.correct, "n_cot_tokens": 5, "output": ""}
                for label, one in both
            }
        }
        for a, b in zip(before, after, strict=True)
        for both in [(("original", a), ("tokenskip 0.6", b))]
    ]
    results: dict[str, Any] = {"run": name, "arms": arms, "problems": problems[:shown], "warnings": [f"about {EVIL}"]}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for label, found in (("original", before), ("tokenskip-0.6", after)):
        if files:
            text = "".join(json.dumps(trajectory_row(one)) + "\n" for one in found)
            (folder / "eval" / f"{label}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_same_problems_are_paired(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "one", {0})
    second = write_run(tmp_path / "b", "one", {1, 2, 3, 4, 5, 6})
    runs = compare.read_runs([first, second])
    assert [run["name"] for run in runs] == ["one (a)", "one (b)"]
    named = [run["name"] for run in compare.read_runs([first, first / "results.json", second])]
    assert named == ["one (a)", "one (a) 2", "one (b)"]
    original, ours = compare.pairs(runs)
    assert (original["label"], original["difference"], original["p_value"]) == ("original", 0.0, 1.0)
    assert (ours["n"], ours["lost"], ours["gained"]) == (20, 6, 1)
    assert ours["difference"] == pytest.approx(-5 / 20)
    assert ours["p_value"] == pytest.approx(2 * (1 + 7) / 2**7), "by hand: P(at most 1 of 7), both sides"


def test_problems_that_only_share_an_id_are_not_paired(tmp_path: Path) -> None:
    runs = compare.read_runs(
        [write_run(tmp_path / "a", "a", set()), write_run(tmp_path / "b", "b", {1}, prefix="other")]
    )
    assert [row["n"] for row in compare.pairs(runs)] == [None, None]


@pytest.mark.parametrize(("shown", "n"), [(20, 20), (19, None)])
def test_a_results_file_is_paired_when_it_shows_every_problem(tmp_path: Path, shown: int, n: int | None) -> None:
    first = write_run(tmp_path / "a", "a", {0})
    second = write_run(tmp_path / "b", "b", {0, 1}, files=False, shown=shown) / "results.json"
    assert [row["n"] for row in compare.pairs(compare.read_runs([first, second]))] == [n, n]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", "a", set())
    with pytest.raises(ConfigError, match="at least two"):
        compare.read_runs([good])
    with pytest.raises(RunError, match=r"tokenskip report"):
        compare.read_runs([good, tmp_path / "nowhere"])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(DataError, match=r"bad\.json is not a results file"):
        compare.read_runs([good, tmp_path / "bad.json"])


def test_the_terminal_table_fits(tmp_path: Path) -> None:
    runs = compare.read_runs([write_run(tmp_path / "a", "a", {0}), write_run(tmp_path / "b", EVIL, {1})])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compare.terminal_table(compare.pairs(runs), runs[0]["name"]))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("95.0%" in line or "100.0%" in line for line in lines) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page(tmp_path: Path) -> None:
    runs = compare.read_runs([write_run(tmp_path / "a", "a", {0}), write_run(tmp_path / "b", EVIL, {1})])
    page = compare.write_page(runs, tmp_path / "out" / "compare.html")
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("no problem differs") == 1  # the original's row
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri(), width=390, dark=True)
        assert browser.errors == []
        assert browser.run("document.documentElement.scrollWidth") == 390
        dots = "document.querySelectorAll('#curve .dot').length"
        assert browser.run(dots) == 4
        browser.run("document.querySelector('#runs input').click()")
        assert browser.run(dots) == 2
        browser.run("document.querySelector('#legend input[value=original]').click()")
        assert browser.run(dots) == 1
        column = "[...document.querySelectorAll('#all tbody tr')].map((row) => row.cells[1].dataset.v)"
        before = browser.run(column)
        browser.run("document.querySelectorAll('#all thead button')[1].click()")
        assert browser.run(column) == sorted(before) != before
        assert browser.errors == []
