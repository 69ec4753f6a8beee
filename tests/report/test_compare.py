"""Runs side by side: paired only where problems are the same, and a page that opens."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from rich.console import Console
from synthetic_results import results_of

from tokenskip.arms import ARMS
from tokenskip.errors import ConfigError, DataError, RunError
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.schema import Results
from tokenskip.report import compare
from tokenskip.storage.store import trajectory_row
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
    folder: Path,
    name: str,
    wrong: set[int],
    *,
    prefix: str = "q",
    files: bool = True,
    shown: int = 20,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run with an original and one ratio; with `files` its completions, else `shown` problems in results.json."""
    (folder / "eval").mkdir(parents=True)
    before, after = rows(set(), prefix=prefix), rows(wrong, prefix=prefix)
    arms = [summarise_arm(ARMS["original"], None, before, before), summarise_arm(ARMS["tokenskip"], 0.6, after, before)]
    problems = [
        {"id": a.id, "question": a.question, "gold": a.gold, "level": None}
        | {
            "arms": {
                label: {"correct": one.grade and one.grade.correct, "n_cot_tokens": 5, "output": ""}
                for label, one in both
            }
        }
        for a, b in zip(before, after, strict=True)
        for both in [(("original", a), ("tokenskip 0.6", b))]
    ]
    values: dict[str, Any] = {"run": name, "problems": tuple(problems[:shown]), "warnings": (f"about {EVIL}",)}
    results = results_of(arms, **values, **({"config": config} if config else {}))
    (folder / "results.json").write_text(results.to_json(), encoding="utf-8")
    for label, found in (("original", before), ("tokenskip-0.6", after)):
        if files:
            text = "".join(json.dumps(trajectory_row(one)) + "\n" for one in found)
            (folder / "eval" / f"{label}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_same_problems_are_paired(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "one", {0})
    second = write_run(tmp_path / "b", "one", {1, 2, 3, 4, 5, 6})
    runs = compare.read_runs([first, second])
    assert [run.name for run in runs] == ["one (a)", "one (b)"]
    named = [run.name for run in compare.read_runs([first, first / "results.json", second])]
    assert named == ["one (a)", "one (a) 2", "one (b)"]
    original, ours = compare.pairs(runs)
    assert original.paired is not None
    assert ours.paired is not None
    assert (original.label, original.change, original.paired.p_value) == ("original", 0.0, 1.0)
    assert (ours.paired.n, ours.paired.lost, ours.paired.gained) == (20, 6, 1)
    assert ours.change == pytest.approx(-5 / 20)
    assert ours.paired.p_value == pytest.approx(2 * (1 + 7) / 2**7), "by hand: P(at most 1 of 7), both sides"


def test_problems_that_only_share_an_id_are_not_paired(tmp_path: Path) -> None:
    runs = compare.read_runs(
        [write_run(tmp_path / "a", "a", set()), write_run(tmp_path / "b", "b", {1}, prefix="other")]
    )
    assert [row.paired for row in compare.pairs(runs)] == [None, None]


@pytest.mark.parametrize(("shown", "n"), [(20, 20), (19, None)])
def test_a_results_file_is_paired_when_it_shows_every_problem(tmp_path: Path, shown: int, n: int | None) -> None:
    first = write_run(tmp_path / "a", "a", {0})
    second = write_run(tmp_path / "b", "b", {0, 1}, files=False, shown=shown) / "results.json"
    found = compare.pairs(compare.read_runs([first, second]))
    assert [row.paired.n if row.paired else None for row in found] == [n, n]


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
    console.print(compare.terminal_table(compare.pairs(runs), runs[0].name))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("95.0%" in line or "100.0%" in line for line in lines) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page(tmp_path: Path) -> None:
    runs = compare.read_runs([write_run(tmp_path / "a", "a", {0}), write_run(tmp_path / "b", EVIL, {1})])
    page = compare.write_comparison(runs, tmp_path / "out" / "compare.html")
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


def test_trainings_that_differ_only_in_their_seed_are_shown_together(tmp_path: Path) -> None:
    def config(seed: int, **train: Any) -> dict[str, Any]:
        return {
            "name": f"seed-{seed}",
            "seed": seed,
            "train": {"rank": 8, "seed": None, **train},
            "engine": {"name": "x"},
        }

    folders = [
        write_run(tmp_path / f"s{seed}", f"seed-{seed}", set(range(wrong)), config=config(seed))
        for seed, wrong in enumerate((2, 4, 6))
    ]
    other = write_run(tmp_path / "other", "other", {0}, config=config(3, rank=16))
    runs = compare.read_runs([*folders, other])
    (row,) = compare.spreads(runs)
    assert (row.label, row.n_trainings, row.runs) == ("tokenskip 0.6", 3, ("seed-0", "seed-1", "seed-2"))
    assert (row.accuracy.least, row.accuracy.greatest) == (0.7, 0.9)
    assert row.accuracy.mean == pytest.approx(0.8)
    assert row.accuracy.deviation == pytest.approx(0.1)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compare.spread_table([row]))
    (line,) = (line for line in console.export_text().splitlines() if "tokenskip" in line)
    assert line.split() == [
        "tokenskip", "0.6", "3", "80.0", "70.0–90.0", "10.0", "58.4–91.9", "1.00", "1.00–1.00", "0.000",
    ]  # fmt: skip
    html = compare.write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Over trainings" in html
    assert "70.0% – 90.0%" in html
    assert "Over trainings" not in compare.write_comparison(runs[2:], tmp_path / "two.html").read_text(encoding="utf-8")


def wrong_values(folder: Path, change: Any) -> Path:
    values = json.loads((folder / "results.json").read_text())
    change(values)
    file = folder / "wrong.json"
    file.write_text(json.dumps(values))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["arms"][1].update(accuracy="0.5"),
            'arms.1.accuracy: Input should be a valid number; given: "0.5"',
        ),
        (lambda v: v["arms"][1].update(accuracy=[1]), "arms.1.accuracy"),
        (lambda v: v["arms"][1].update(accuracy=1.5), "arms.1.accuracy: Input should be less than or equal to 1"),
        (lambda v: v["arms"][1].update(cot_tokens_mean=float("nan")), "arms.1.cot_tokens_mean"),
        (lambda v: v["arms"][1].update(arm="../../etc/passwd"), "arms.1.arm: String should match pattern"),
        (lambda v: v["arms"][1].update(arm="a\x1b[2J"), "arms.1.arm: String should match pattern"),
        (lambda v: v["arms"][1].update(role="king"), "arms.1.role"),
        (lambda v: v["arms"][1].update(n=True), "arms.1.n"),
        (lambda v: v["arms"].append(7), "arms.2"),
        (lambda v: v["arms"][1].pop("accuracy"), "arms.1.accuracy: Field required"),
        (lambda v: v.update(arms={"a": 1}), "it has no list of arms"),
        (lambda v: v.update(problems=5), "problems"),
        (lambda v: v["problems"][0]["arms"]["original"].update(correct="yes"), "problems.0.arms.original.correct"),
        (lambda v: v["samples"].append({"id": 1}), "samples.0.id"),
        (lambda v: v.update(warnings="none"), "warnings"),
        (lambda v: v.update(run=None), "run"),
    ],
)
def test_values_of_wrong_types_are_one_line(tmp_path: Path, change: Any, message: str) -> None:
    good = write_run(tmp_path / "a", "a", set())
    bad = wrong_values(write_run(tmp_path / "b", "b", set()), change)
    with pytest.raises(DataError) as error:
        compare.read_runs([good, bad])
    assert f"{bad} is not a results file: " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_schema_says_what_to_type(tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", "a", set())
    for version in (None, 1, 3, "2", True):
        bad = wrong_values(
            good,
            lambda v, version=version: v.pop("schema_version") if version is None else v.update(schema_version=version),
        )
        with pytest.raises(
            RunError, match=r"has the results schema .*; this version of tokenskip reads 2: run `tokenskip report`"
        ):
            compare.read_runs([good, bad])


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"arms": [], "schema_version": NaN}', b"null", b"\x00"]
)
def test_damaged_files_are_one_line(tmp_path: Path, text: bytes) -> None:
    good = write_run(tmp_path / "a", "a", set())
    (tmp_path / "bad.json").write_bytes(text)
    with pytest.raises((DataError, RunError)) as error:
        compare.read_runs([good, tmp_path / "bad.json"])
    assert "bad.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "a", {1})
    results = compare.load_results(folder)
    assert isinstance(results, Results)
    assert Results.model_validate_json(results.to_json()) == results
    with pytest.raises(ValueError, match="frozen"):
        results.arms[0].accuracy = 1.0
