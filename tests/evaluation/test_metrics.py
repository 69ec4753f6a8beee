"""Statistics against scipy, closed forms and hand-worked cases; the report's own warnings against planted faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from tokenskip.evaluation import metrics
from tokenskip.types import Grade, Trajectory


def rows(correct: str, tokens: int | list[int] = 100, suffix: str = "") -> list[Trajectory]:
    """One row a character: '1' right, '0' wrong, '?' ungradable."""
    counts = tokens if isinstance(tokens, list) else [tokens] * len(correct)
    meaning = {"1": True, "0": False, "?": None}
    return [
        Trajectory(
            id=f"p{i}{suffix}",
            question="q",
            gold="1",
            n_cot_tokens=count,
            n_tokens=count + 10,
            grade=Grade(correct=meaning[mark], reason=""),
        )
        for i, (mark, count) in enumerate(zip(correct, counts, strict=True))
    ]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (961, 1000), (0, 1), (1, 1)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert metrics.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= metrics.wilson(k, n)[0] <= k / n <= metrics.wilson(k, n)[1] <= 1


def test_wilson_of_nothing() -> None:
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_by_hand() -> None:
    assert metrics.mcnemar_exact(0, 0) == 1.0
    assert metrics.mcnemar_exact(5, 0) == pytest.approx(2 * 0.5**5)
    assert metrics.mcnemar_exact(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert metrics.mcnemar_exact(4, 4) == pytest.approx(1.0)


def test_bootstrap_agrees_with_scipy() -> None:
    import numpy as np

    values = np.array([-1.0] * 30 + [0.0] * 150 + [1.0] * 20)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1))
    interval = metrics.bootstrap_mean(values)
    assert interval == pytest.approx(tuple(expected.confidence_interval), abs=0.011)
    assert interval == metrics.bootstrap_mean(values), "the seed fixes it"


def test_paired_difference_by_hand() -> None:
    paired = metrics.paired_difference(rows("1111100000"), rows("1100010000"))
    assert paired is not None
    assert (paired.n, paired.lost, paired.gained) == (10, 3, 1)
    assert paired.difference == pytest.approx(-0.2)
    assert paired.p_value == pytest.approx(2 * (1 + 4) / 16)
    assert paired.low <= -0.2 <= paired.high
    assert paired.equivalence == metrics.UNDECIDED


def test_pairing_is_by_problem_and_ignores_order() -> None:
    original, other = rows("110"), rows("011")
    paired = metrics.paired_difference(original, list(reversed(other)))
    assert paired is not None
    assert (paired.lost, paired.gained) == (1, 1)
    assert metrics.paired_difference(original, rows("1", suffix="x")) is None


@pytest.mark.parametrize(
    ("n", "lost", "statement"),
    [
        (2000, 0, metrics.WITHIN),
        (2000, 6, metrics.WITHIN),
        (100, 0, metrics.UNDECIDED),  # nothing changed, yet 100 problems cannot show less than a point
        (2000, 60, metrics.DIFFERS),
        (200, 3, metrics.UNDECIDED),
    ],
)
def test_equivalence(n: int, lost: int, statement: str) -> None:
    paired = metrics.paired_difference(rows("1" * n), rows("0" * lost + "1" * (n - lost)))
    assert paired is not None
    assert paired.equivalence == statement


def test_repeated_problems_widen_the_interval() -> None:
    """Ten samples of the same answer are one problem's worth of evidence, not ten."""
    once = rows("1" * 30 + "0" * 30)
    many = [replace(row, sample=sample) for row in once for sample in range(10)]
    one, ten = metrics.summarise_arm("tokenskip", 0.6, once, once), metrics.summarise_arm("tokenskip", 0.6, many, once)
    assert (ten["n"], ten["n_problems"]) == (600, 60)
    assert ten["accuracy"] == one["accuracy"] == 0.5
    width = ten["accuracy_high"] - ten["accuracy_low"]
    assert width == pytest.approx(one["accuracy_high"] - one["accuracy_low"], abs=0.03)
    low, high = metrics.wilson(300, 600)
    assert width > 2 * (high - low), "as if the 600 rows were independent"
    assert (ten["lost"], ten["gained"]) == (0, 0)


def test_an_id_is_data_and_no_sample_number() -> None:
    named = [replace(row, id=f"algebra#{i}") for i, row in enumerate(rows("1010"))]
    assert metrics.summarise_arm("original", None, named, named)["n_problems"] == 4
    again = [replace(one, sample=k) for k in range(3) for one in named]
    summary = metrics.summarise_arm("original", None, again, again)
    assert (summary["n"], summary["n_problems"], summary["accuracy"]) == (12, 4, 0.5)


def test_summary_by_hand() -> None:
    original = rows("11110", tokens=[100, 100, 200, 200, 400])
    other = rows("111?0", tokens=[50, 60, 100, 140, 150])
    other[4] = replace(other[4], finish="length")
    timings = [
        {"arm": "tokenskip", "ratio": 0.5, "batch_size": 64, "n": 5, "seconds": 1.0},
        {"arm": "tokenskip", "ratio": 0.5, "batch_size": 1, "n": 1, "seconds": 0.5},
        {"arm": "tokenskip", "ratio": 0.5, "batch_size": 1, "n": 1, "seconds": 0.7},
        {"arm": "tokenskip", "ratio": 0.5, "batch_size": 1, "n": 1, "seconds": 9.0},
        {"arm": "tokenskip", "ratio": 0.6, "batch_size": 64, "n": 5, "seconds": 99.0},
    ]
    arm = metrics.summarise_arm("tokenskip", 0.5, other, original, timings)
    assert (arm["n"], arm["accuracy"], arm["lost"], arm["gained"]) == (5, 0.6, 1, 0)
    assert arm["difference"] == pytest.approx(-0.2)
    assert (arm["cot_tokens_mean"], arm["cot_tokens_median"]) == (100, 100)
    assert arm["cot_tokens_p95"] == pytest.approx(148)
    assert arm["achieved_ratio"] == pytest.approx(0.5)
    assert arm["ratio_error"] == pytest.approx(0)
    assert arm["achieved_ratio_problem_median"] == pytest.approx(0.5)
    assert arm["tokens_saved_per_1000"] == pytest.approx(100_000)
    assert (arm["ungradable_rate"], arm["cap_hit_rate"], arm["loop_rate"]) == (0.2, 0.2, 0.0)
    assert (arm["latency_s"], arm["latency_batch_size"], arm["latency_b1_s"]) == (0.2, 64, 0.7)


def test_the_first_window_warms_up_and_is_not_timed() -> None:
    timings = [
        {"arm": "original", "ratio": None, "batch_size": 64, "n": 256, "seconds": seconds, "device": "cpu"}
        for seconds in (90.0, 2.0, 2.0)
    ]
    arm = metrics.summarise_arm("original", None, rows("1"), rows("1"), timings)
    assert arm["latency_s"] == pytest.approx(4 / 512)
    assert arm["throughput_per_s"] == pytest.approx(128)
    assert arm["latency_device"] == "cpu"
    assert arm["latency_warm"] is True
    alone = metrics.summarise_arm("original", None, rows("1"), rows("1"), timings[:1])
    assert (alone["latency_s"], alone["latency_warm"]) == (90 / 256, False)
    assert metrics.summarise_arm("original", None, rows("1"), rows("1"))["latency_warm"] is None


def test_ratios_of_problems_agree_with_numpy() -> None:
    import numpy as np

    tokens = [37, 52, 61, 48, 90, 55, 43]
    arm = metrics.summarise_arm("tokenskip", 0.5, rows("1" * 7, tokens=tokens), rows("1" * 7))
    for share, value in arm["achieved_ratio_quantiles"].items():
        assert value == pytest.approx(np.quantile(np.array(tokens) / 100, float(share) / 100))
    assert arm["achieved_ratio_quantiles"]["50"] == arm["achieved_ratio_problem_median"] == 0.52
    assert list(arm["achieved_ratio_quantiles"]) == ["5", "10", "25", "50", "75", "90", "95"]


def test_a_dial_that_turns_back_is_not_monotone() -> None:
    arms = good()
    assert metrics.monotone(arms) == {"tokenskip": True}  # the one row of truncation is no dial
    arms[1] |= {"achieved_ratio": 0.62}  # asked .5
    assert metrics.monotone(arms) == {"tokenskip": False}


def test_the_original_is_not_compared_with_itself() -> None:
    arm = metrics.summarise_arm("original", 1.0, rows("10"), rows("10"))
    assert arm["achieved_ratio"] == 1.0
    assert [arm[key] for key in ("difference", "p_value", "equivalence", "ratio_error", "latency_s")] == [None] * 5


def test_no_rows_is_no_crash() -> None:
    arm = metrics.summarise_arm("tokenskip", 0.5, [], rows("1"))
    assert (arm["n"], arm["accuracy"], arm["achieved_ratio"]) == (0, None, None)
    assert metrics.warnings({"arms": [arm]})[0].startswith("Only 0 problems")


def test_levels_are_in_order() -> None:
    levelled = [replace(row, level=level) for row, level in zip(rows("101"), ("10", "9", "9"), strict=True)]
    by_level = metrics.summarise_arm("original", None, levelled, levelled)["by_level"]
    assert list(by_level) == ["9", "10"]
    assert by_level["9"] == {"n": 2, "accuracy": 0.5, "cot_tokens_mean": 100}


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("", False),
        ("So 3 + 4 = 7. Then 7 + 4 = 11. Then 11 + 4 = 15. Then 15 + 4 = 19. The final answer is 19.", False),
        ("Let us think. " + "wait, wait, wait, ", False),
        ("First, 2 + 2 = 4. " + "So she has 4 apples. " * 6, True),
        ("First, 2 + 2 = 4. " + "So she has 4 apples. " * 6 + "The answer is 4.", True),
        ("the " * 40, True),
        ("answer " + "10" * 60, True),
        ("-" * 80 + " | table", False),
    ],
)
def test_loops(text: str, looping: bool) -> None:
    assert metrics.has_loop(text) is looping


# --- comparisons and warnings


def arm(name: str, ratio: float, accuracy: float, tokens: float, **other: Any) -> dict[str, Any]:
    values = {
        "arm": name,
        "ratio": ratio,
        "n": 1000,
        "accuracy": accuracy,
        "cot_tokens_mean": tokens,
        "cot_tokens_median": tokens,
        "achieved_ratio": tokens / 100,
        "ratio_error": tokens / 100 - ratio,
        "cap_hit_rate": 0.0,
        "loop_rate": 0.0,
        "ungradable_rate": 0.0,
    }
    return values | other


def good() -> list[dict[str, Any]]:
    dial = [arm("tokenskip", ratio, 0.9 + ratio / 20, 100 * ratio) for ratio in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    return [arm("original", 1.0, 0.96, 100), *dial, arm("truncation", 0.5, 0.1, 50, cap_hit_rate=1.0)]


def test_nothing_to_warn_about() -> None:
    assert metrics.warnings({"arms": good()}) == []


@pytest.mark.parametrize(
    ("position", "change", "words"),
    [
        (1, {"cot_tokens_mean": 62.0, "achieved_ratio": 0.62, "ratio_error": 0.12}, "not monotone"),
        (1, {"ratio_error": 0.06}, "misses the ratio"),
        (1, {"accuracy": 0.3}, "collapsed"),
        (1, {"cot_tokens_median": 20.0}, "runaway"),
        (2, {"cap_hit_rate": 0.06}, "token cap"),
        (2, {"loop_rate": 0.02}, "loop"),
        (2, {"ungradable_rate": 0.2}, "graded"),
        (0, {"n": 20}, "Only 20 problems"),
    ],
)
def test_each_warning(position: int, change: dict[str, Any], words: str) -> None:
    arms = good()
    arms[position] |= change
    found = metrics.warnings({"arms": arms})
    assert any(words in text for text in found), found


def test_an_adapter_that_ignores_the_ratio_is_recognised() -> None:
    arms = [arm("original", 1.0, 0.96, 100)] + [arm("tokenskip", r, 0.96, 99 + r) for r in (0.5, 0.7, 0.9, 1.0)]
    found = metrics.warnings({"arms": arms})
    assert len(found) == 1
    assert "The ratio is ignored" in found[0]
    # shorter chains, of one length whatever is asked; what it writes at 1 does not change that
    deaf = [arm("tokenskip", r, 0.95, tokens) for r, tokens in ((0.6, 70.8), (0.8, 71.4), (1.0, 100.0))]
    for asked in (deaf, deaf[:2]):
        assert metrics.warnings({"arms": [arm("original", 1.0, 0.96, 100), *asked]}) == [
            "The ratio is ignored: tokenskip uses 0.71 to 0.71 of the original's tokens whatever is asked from 0.6 to "
            "0.8."
        ]


def test_a_broken_adapter_is_recognised() -> None:
    arms = [arm("original", 1.0, 0.96, 100)] + [arm("tokenskip", r, 0.0, 100 * r) for r in (0.5, 0.7, 0.9, 1.0)]
    assert any("the adapter looks broken" in text for text in metrics.warnings({"arms": arms}))


def test_a_prompt_that_wins_is_said() -> None:
    arms = [*good(), arm("prompt_be_concise", 1.0, 0.95, 55)]
    found = metrics.warnings({"arms": arms})
    assert len(found) == 1
    assert "A control without training beats tokenskip" in found[0]
    assert metrics.prompt_wins(good()) == []


def test_pareto_by_hand() -> None:
    arms = [
        arm("tokenskip", 0.5, 0.8, 50),
        arm("tokenskip", 1.0, 0.9, 100),
        arm("random", 0.6, 0.7, 60),
        arm("prompt_be_concise", 1.0, 0.89, 75),
        arm("original", 1.0, 0.9, 120),
    ]
    compared = {(row["arm"], row["ratio"]): row for row in metrics.pareto(arms)}
    assert compared["random", 0.6]["reference_accuracy"] == pytest.approx(0.82)
    assert compared["random", 0.6]["advantage"] == pytest.approx(-0.12)
    assert compared["prompt_be_concise", 1.0]["advantage"] == pytest.approx(0.04)
    assert compared["original", 1.0]["reference_accuracy"] is None, "no extrapolation"
    front = {key for key, row in compared.items() if row["on_front"]}
    assert front == {("tokenskip", 0.5), ("prompt_be_concise", 1.0), ("tokenskip", 1.0)}


def test_labels() -> None:
    labels = [("original", 1.0), ("tokenskip", 1.0), ("prompt_be_concise", 1.0), ("prompt_lc", 0.5), ("x", None)]
    assert [metrics.arm_label(*label) for label in labels] == [
        "original",
        "tokenskip 1.0",
        "prompt_be_concise",
        "prompt_lc 0.5",
        "x",
    ]
