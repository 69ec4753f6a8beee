"""What arms say of each other: warnings against planted faults, the front by hand, and no arm's name matters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import arm_result, results_of

from tokenskip.arms import ARMS, Arm
from tokenskip.evaluation import comparisons
from tokenskip.evaluation.schema import ArmResult
from tokenskip.evaluation.warnings import warnings
from tokenskip.report.tables import table_rows
from tokenskip.report.text import summary

PACKAGE = Path(comparisons.__file__).parents[1]


def arm(name: str | Arm, ratio: float | None, accuracy: float, tokens: float, **other: Any) -> ArmResult:
    values = {
        "n": 1000,
        "n_problems": 1000,
        "accuracy": accuracy,
        "cot_tokens_mean": float(tokens),
        "cot_tokens_median": float(tokens),
        "achieved_ratio": tokens / 100,
        "ratio_error": None if ratio is None else tokens / 100 - ratio,
        "cap_hit_rate": 0.0,
        "loop_rate": 0.0,
        "ungradable_rate": 0.0,
        "error_rate": 0.0,
    }
    return arm_result(name, ratio, **values | other)


def good() -> list[ArmResult]:
    ours = [arm("tokenskip", ratio, 0.9 + ratio / 20, 100 * ratio) for ratio in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    return [arm("original", None, 0.96, 100), *ours, arm("truncation", 0.5, 0.1, 50, cap_hit_rate=1.0)]


def changed(arms: list[ArmResult], position: int, **change: Any) -> list[ArmResult]:
    return [row.model_copy(update=change) if i == position else row for i, row in enumerate(arms)]


def test_nothing_to_warn_about() -> None:
    assert warnings(good()) == []


@pytest.mark.parametrize(
    ("position", "change", "words"),
    [
        (1, {"cot_tokens_mean": 62.0, "achieved_ratio": 0.62}, "not monotone"),
        (1, {"achieved_ratio": 0.44}, "misses the ratio"),
        (1, {"accuracy": 0.3}, "collapsed"),
        (1, {"cot_tokens_median": 20.0}, "runaway"),
        (2, {"cap_hit_rate": 0.06}, "token cap"),
        (2, {"loop_rate": 0.02}, "loop"),
        (2, {"ungradable_rate": 0.2}, "graded"),
        (2, {"unclosed_rate": 0.2}, "never close their thinking"),
        (2, {"error_rate": 0.01}, "failed in the backend"),
        (0, {"n_problems": 20}, "Only 20 problems"),
        (2, {"length": "paper"}, "The token cap of tokenskip shrinks with the ratio"),
    ],
)
def test_each_warning(position: int, change: dict[str, Any], words: str) -> None:
    found = warnings(changed(good(), position, **change))
    assert any(words in text for text in found), found


def test_an_adapter_that_ignores_the_ratio_is_recognised() -> None:
    arms = [arm("original", None, 0.96, 100)] + [arm("tokenskip", r, 0.96, 99 + r) for r in (0.5, 0.7, 0.9, 1.0)]
    found = warnings(arms)
    assert len(found) == 1
    assert "The ratio is ignored" in found[0]
    # shorter chains, of one length whatever is asked; what it writes at 1 does not change that
    same = [arm("tokenskip", r, 0.95, tokens) for r, tokens in ((0.6, 70.8), (0.8, 71.4), (1.0, 100.0))]
    for rows in (same, same[:2]):
        assert warnings([arm("original", None, 0.96, 100), *rows]) == [
            "The ratio is ignored: tokenskip uses 0.71 to 0.71 of the original's tokens whatever is asked from 0.6 to "
            "0.8."
        ]


def test_a_broken_adapter_is_recognised() -> None:
    arms = [arm("original", None, 0.96, 100)] + [arm("tokenskip", r, 0.0, 100 * r) for r in (0.5, 0.7, 0.9, 1.0)]
    assert any("the adapter looks broken" in text for text in warnings(arms))


OWN_PROMPT = Arm(name="terse", instruction="Be terse.", about="a prompt of the recipe")
OWN_RATIO_PROMPT = Arm(name="tokenskipping", instruction="Use {p}% fewer words.", per_ratio=True)
CONTROLS = [("prompt_be_concise", None), (OWN_PROMPT, None), (OWN_RATIO_PROMPT, 0.5), ("marker_only", 0.5)]
CONTROLS += [("truncation_forced", 0.5)]


@pytest.mark.parametrize(("control", "ratio"), CONTROLS)
def test_a_control_that_wins_is_reported_whatever_it_is_called(control: Arm | str, ratio: float | None) -> None:
    arms = [*good(), arm(control, ratio, 0.95, 55)]
    label = arms[-1].label
    found = [text for text in warnings(arms) if "A control without training beats tokenskip" in text]
    assert len(found) == 1
    assert f"{label} reaches 95.0% with 55 tokens, tokenskip 0.6 93.0% with 60 (" in found[0]
    text = summary(results_of(arms))
    assert f"But something that needs no training does better: {label}" in text
    assert "where TokenSkip at 0.6 solved 93.0% with 60" in text
    assert table_rows(arms)[-1][:2] == (arms[-1].arm, "–" if ratio is None else str(ratio))
    assert comparisons.pareto(arms)[-1].on_front


def test_a_win_that_another_ratio_matches_is_told_with_it() -> None:
    arms = [*good(), arm("prompt_be_concise", None, 0.95, 50), arm("tokenskip", 0.3, 0.96, 50.3)]
    text = summary(results_of(arms))
    assert "But something that needs no training does better at some ratios: prompt_be_concise" in text
    assert text.endswith("at 0.3 it solved 96.0% with 50.")
    longer = [*good(), arm("prompt_be_concise", None, 0.95, 50), arm("tokenskip", 0.3, 0.96, 52)]
    assert comparisons.match_of(longer[-2], longer) is None


def test_a_trained_control_that_wins_is_reported_as_one() -> None:
    arms = [*good(), arm("random", 0.5, 0.95, 50)]
    assert [text.split(" beats ")[0] for text in warnings(arms)] == ["A control that was trained too"]
    assert "But a control that was trained too does better: random 0.5" in summary(results_of(arms))
    assert comparisons.control_wins(good()) == []


def test_an_own_adapter_is_the_method_and_a_name_like_ours_is_not() -> None:
    adapter = Arm(name="mine", weights="runs/other/adapter", per_ratio=True, marker=True)
    arms = [arm("original", None, 0.96, 100), arm(adapter, 0.6, 0.3, 60), arm(adapter, 1.0, 0.96, 100)]
    assert comparisons.main_arm(arms) == "mine"
    assert any("Accuracy collapsed" in text and "mine 0.6 (30.0%)" in text for text in warnings(arms))
    prompts = [arm("original", None, 0.96, 100), arm(OWN_RATIO_PROMPT, 0.5, 0.96, 99)]
    assert comparisons.headline(prompts) is None, "tokenskipping is a prompt"
    assert not any("ratio" in text for text in warnings(prompts))


def test_monotone() -> None:
    assert comparisons.monotone(good()) == {"tokenskip": True}  # truncation has one row
    assert comparisons.monotone(changed(good(), 1, achieved_ratio=0.62)) == {"tokenskip": False}


def test_pareto_by_hand() -> None:
    arms = [
        arm("tokenskip", 0.5, 0.8, 50),
        arm("tokenskip", 1.0, 0.9, 100),
        arm("random", 0.6, 0.7, 60),
        arm("prompt_be_concise", None, 0.89, 75),
        arm("original", None, 0.9, 120),
    ]
    compared = {(row.arm, row.ratio): row for row in comparisons.pareto(arms)}
    assert compared["random", 0.6].reference_accuracy == pytest.approx(0.82)
    assert compared["random", 0.6].advantage == pytest.approx(-0.12)
    assert compared["prompt_be_concise", None].advantage == pytest.approx(0.04)
    assert compared["original", None].reference_accuracy is None, "no extrapolation"
    front = {key for key, row in compared.items() if row.on_front}
    assert front == {("tokenskip", 0.5), ("prompt_be_concise", None), ("tokenskip", 1.0)}


def test_the_short_table() -> None:
    arms = [*good(), arm("random", 0.6, 0.7, 60), arm("random", 0.7, 0.7, 60), arm("full_chain", None, 0.9, 100)]
    rows = [row.label for row in comparisons.headline_rows(arms)]
    assert rows[0] == "original"
    assert rows[-2:] == ["random 0.6", "full_chain"]
    assert "truncation 0.5" not in rows
    assert len(rows) == 1 + 6 + 2


def test_no_code_asks_for_the_name_of_an_arm() -> None:
    """Neither equality with, nor the beginning of, a built-in arm's name, in Python, templates and scripts."""
    names = "|".join(sorted(ARMS))
    # `weights` and stages have names like arms have; those are compared as `weights == "random"`.
    asked = re.compile(
        rf"""(?:arm|name|label|arm\.arm|\["arm"\]|\.arm)\s*(?:===?|!==?|\bin\b)\s*[("']+(?:{names})\b"""
        r"""|(?:arm|label|name|file)\w*(?:\["arm"\]|\.arm)?\.(?:startswith|startsWith)\(["'](?:prompt|tokenskip|trunc)"""
    )
    found = [
        f"{file.relative_to(PACKAGE)}: {match.group()}"
        for folder in ("report", "evaluation", "serving", "commands")
        for file in sorted((PACKAGE / folder).rglob("*"))
        if file.suffix in (".py", ".js", ".html")
        for match in asked.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert asked.search('if arm["arm"] == "tokenskip"')
    assert asked.search('arm["arm"].startswith("prompt")')
    assert asked.search('name === "original"')
