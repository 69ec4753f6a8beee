"""The numbers of one arm: statistics against scipy, closed forms and hand-worked cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from tokenskip.arms import ARMS, Arm
from tokenskip.evaluation import metrics
from tokenskip.evaluation import stats as our_stats
from tokenskip.evaluation.warnings import warnings
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
    assert our_stats.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= our_stats.wilson(k, n)[0] <= k / n <= our_stats.wilson(k, n)[1] <= 1


def test_wilson_of_nothing() -> None:
    assert our_stats.wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_by_hand() -> None:
    assert our_stats.mcnemar_exact(0, 0) == 1.0
    assert our_stats.mcnemar_exact(5, 0) == pytest.approx(2 * 0.5**5)
    assert our_stats.mcnemar_exact(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert our_stats.mcnemar_exact(4, 4) == pytest.approx(1.0)


def test_bootstrap_agrees_with_scipy() -> None:
    import numpy as np

    values = np.array([-1.0] * 30 + [0.0] * 150 + [1.0] * 20)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1))
    interval = our_stats.bootstrap_mean(values)
    assert interval == pytest.approx(tuple(expected.confidence_interval), abs=0.011)
    assert interval == our_stats.bootstrap_mean(values), "the seed fixes it"


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
    one, ten = (
        metrics.summarise_arm(ARMS["tokenskip"], 0.6, once, once),
        metrics.summarise_arm(ARMS["tokenskip"], 0.6, many, once),
    )
    assert (ten.n, ten.n_problems) == (600, 60)
    assert ten.accuracy == one.accuracy == 0.5
    width = ten.accuracy_high - ten.accuracy_low
    assert width == pytest.approx(one.accuracy_high - one.accuracy_low, abs=0.03)
    low, high = our_stats.wilson(300, 600)
    assert width > 2 * (high - low), "as if the 600 rows were independent"
    assert (ten.lost, ten.gained) == (0, 0)


def test_an_id_is_data_and_no_sample_number() -> None:
    named = [replace(row, id=f"algebra#{i}") for i, row in enumerate(rows("1010"))]
    assert metrics.summarise_arm(ARMS["original"], None, named, named).n_problems == 4
    again = [replace(one, sample=k) for k in range(3) for one in named]
    summary = metrics.summarise_arm(ARMS["original"], None, again, again)
    assert (summary.n, summary.n_problems, summary.accuracy) == (12, 4, 0.5)


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
    arm = metrics.summarise_arm(ARMS["tokenskip"], 0.5, other, original, timings)
    assert (arm.n, arm.accuracy, arm.lost, arm.gained) == (5, 0.6, 1, 0)
    assert arm.difference == pytest.approx(-0.2)
    assert (arm.cot_tokens_mean, arm.cot_tokens_median) == (100, 100)
    assert arm.cot_tokens_p95 == pytest.approx(148)
    assert arm.achieved_ratio == pytest.approx(0.5)
    assert arm.ratio_error == pytest.approx(0)
    assert arm.achieved_ratio_problem_median == pytest.approx(0.5)
    assert arm.tokens_saved_per_1000 == pytest.approx(100_000)
    assert (arm.ungradable_rate, arm.cap_hit_rate, arm.loop_rate) == (0.2, 0.2, 0.0)
    assert (arm.latency_s, arm.latency_batch_size, arm.latency_b1_s) == (0.2, 64, 0.7)


def test_the_first_window_warms_up_and_is_not_timed() -> None:
    timings = [
        {"arm": "original", "ratio": None, "batch_size": 64, "n": 256, "seconds": seconds, "device": "cpu"}
        for seconds in (90.0, 2.0, 2.0)
    ]
    arm = metrics.summarise_arm(ARMS["original"], None, rows("1"), rows("1"), timings)
    assert arm.latency_s == pytest.approx(4 / 512)
    assert arm.throughput_per_s == pytest.approx(128)
    assert arm.latency_device == "cpu"
    assert arm.latency_warm is True
    alone = metrics.summarise_arm(ARMS["original"], None, rows("1"), rows("1"), timings[:1])
    assert (alone.latency_s, alone.latency_warm) == (90 / 256, False)
    assert metrics.summarise_arm(ARMS["original"], None, rows("1"), rows("1")).latency_warm is None


def test_ratios_of_problems_agree_with_numpy() -> None:
    import numpy as np

    tokens = [37, 52, 61, 48, 90, 55, 43]
    arm = metrics.summarise_arm(ARMS["tokenskip"], 0.5, rows("1" * 7, tokens=tokens), rows("1" * 7))
    for share, value in arm.achieved_ratio_quantiles.items():
        assert value == pytest.approx(np.quantile(np.array(tokens) / 100, float(share) / 100))
    assert arm.achieved_ratio_quantiles["50"] == arm.achieved_ratio_problem_median == 0.52
    assert list(arm.achieved_ratio_quantiles) == ["5", "10", "25", "50", "75", "90", "95"]


def test_the_original_is_not_compared_with_itself() -> None:
    arm = metrics.summarise_arm(ARMS["original"], None, rows("10"), rows("10"))
    assert arm.achieved_ratio == 1.0
    assert [arm.difference, arm.p_value, arm.equivalence, arm.ratio_error, arm.latency_s] == [None] * 5


def test_no_rows_is_no_crash() -> None:
    arm = metrics.summarise_arm(ARMS["tokenskip"], 0.5, [], rows("1"))
    assert (arm.n, arm.accuracy, arm.achieved_ratio, arm.tokens_per_right_answer) == (0, None, None, None)
    assert warnings([arm]) == ["Only 0 problems were evaluated: differences of several points may be chance."]


def test_levels_are_in_order() -> None:
    levelled = [replace(row, level=level) for row, level in zip(rows("101"), ("10", "9", "9"), strict=True)]
    by_level = metrics.summarise_arm(ARMS["original"], None, levelled, levelled).by_level
    assert list(by_level) == ["9", "10"]
    assert dict(by_level["9"]) == {"n": 2, "accuracy": 0.5, "cot_tokens_mean": 100}


def test_how_completions_ended_and_what_a_right_answer_cost() -> None:
    original = rows("1111", tokens=90)
    looping, cut, unclosed = "so it is 4. " * 9, "and then", "<think>well"
    outputs = ("<think>2</think> 4", f"<think>{looping}</think> 4", f"<think>{cut}", unclosed)
    other = [replace(row, output=output) for row, output in zip(rows("10?0", tokens=40), outputs, strict=True)]
    other[2] = replace(other[2], finish="length", grade=Grade(correct=None, reason="truncated"))
    arm = metrics.summarise_arm(ARMS["tokenskip"], 0.5, other, original, is_closed=lambda output: "</think>" in output)
    assert (arm.finished_rate, arm.cap_hit_rate, arm.loop_rate, arm.unclosed_rate) == (0.25, 0.25, 0.25, 0.5)
    assert arm.ungradable_reasons == {"truncated": 1}
    assert arm.tokens_per_right_answer == 4 * 50, "all that was written, for the one right answer"
    assert arm.total_tokens_p95 == 50
    plain = metrics.summarise_arm(ARMS["tokenskip"], 0.5, other, original)
    assert (plain.unclosed_rate, plain.finished_rate) == (None, 0.5)


def test_what_an_arm_is_goes_with_its_numbers() -> None:
    own = Arm(name="terse", instruction="Be terse.", about="my prompt")
    arm = metrics.summarise_arm(own, None, rows("1"), rows("1"))
    assert (arm.arm, arm.label, arm.role, arm.shortened_by, arm.trained) == (
        "terse", "terse", "control", "instruction", False,
    )  # fmt: skip
    ours = metrics.summarise_arm(ARMS["tokenskip"], 0.6, rows("1"), rows("1"))
    assert (ours.label, ours.role, ours.shortened_by, ours.trained) == ("tokenskip 0.6", "method", "ratio", True)
