"""The tables of the paper, the ablations and the closed loop: the pages say what the rows say, and trials run whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import ablations
import ablations_page
import loop
import paper
import paper_page
import pytest
from synthetic_results import results_of

from tokenskip.arms import ARMS
from tokenskip.config import RunConfig
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.storage.store import (
    COMPLETIONS,
    TRAIN,
    TRAJECTORIES,
    RunFolder,
    dump_row,
    grade_row,
    read_rows,
    trajectory_row,
)
from tokenskip.types import Grade, Trajectory

N = 200


def arm(solved: int, n_tokens: int, start: int = 0) -> list[Trajectory]:
    """`solved` of N problems right, from number `start` on."""
    return [
        Trajectory(
            id=f"p{i}", question="q", gold="1", cot="c", n_tokens=n_tokens, n_cot_tokens=n_tokens,
            grade=Grade(correct=start <= i < start + solved, reason=""),
        )
        for i in range(N)
    ]  # fmt: skip


def folder_of(path: Path, arms: dict[str, list[Trajectory]]) -> RunFolder:
    (path / "eval").mkdir(parents=True)
    for name, rows in arms.items():
        text = "".join(dump_row(trajectory_row(row)) for row in rows)
        (path / "eval" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return RunFolder(path, RunConfig())


def test_a_larger_size_holds_up_better_only_where_the_interval_says_so(tmp_path: Path) -> None:
    per_ratio = {"tokenskip-0.5": arm(150, 50), "tokenskip-0.6": arm(150, 60)}
    small = folder_of(tmp_path / "xs", {"original": arm(180, 100), **per_ratio})
    large = folder_of(tmp_path / "s", {"original": arm(190, 100), "tokenskip-0.5": arm(160, 50),
                                       "tokenskip-0.6": arm(190, 60)})  # fmt: skip
    found = {one["ratio"]: one for one in paper.held_up({"xs": small, "s": large})}
    assert found[0.6]["difference"] == pytest.approx(0.15)  # 0 lost instead of 30 of 200
    assert found[0.5]["difference"] == pytest.approx(0.0)
    verdict = paper_page.verdict
    assert verdict(found[0.6]) == "holds up better"
    assert verdict(found[0.5]).startswith("not decided")
    assert verdict({"low": -0.2, "high": -0.1}) == "holds up worse"


def paper_results(tmp_path: Path) -> dict[str, Any]:
    arms = {
        "original": arm(180, 100),
        **{f"tokenskip-{ratio}": arm(170, round(100 * ratio)) for ratio in (0.5, 0.6, 0.7, 0.8, 1.0)},
        "tokenskip-0.9": arm(160, 70),
        "prompt_be_concise": arm(175, 40),
        "prompt_lc-0.5": arm(178, 99),
        "truncation-0.6": arm(20, 60),
    }
    rows = paper.measured(folder_of(tmp_path / "run", arms))
    about = {"size": "xs", "parameters": 87_328, "pretraining_tokens": 1_000, "dev_accuracy": 0.9, "generated": 100,
             "correct": 90, "training_rows": 540}  # fmt: skip
    train = RunConfig().train.model_dump(mode="json", exclude={"trainer"})
    settings = {"chains": 100, "steps": 5, "scorer": "llmlingua2", "token_cap": 224, "train": train,
                "prune": RunConfig().prune.model_dump(mode="json")}  # fmt: skip
    return {"sizes": [about], "rows": [{"size": "xs", **row} for row in rows], "held_up": [], "absent": ["s", "b"],
            "settings": settings}  # fmt: skip


def test_the_page_of_the_paper_sets_our_rows_beside_its_own(tmp_path: Path) -> None:
    results = paper_results(tmp_path)
    assert len(results["rows"]) == 10
    first = {"arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean", "achieved_ratio"}
    assert all(first <= set(row) for row in results["rows"])
    text = paper_page.page(results)
    assert "| 0.6 | 85.0% [79.4, 89.3] / 0.60 | 77.3% / 0.63 | 87.9% / 0.60 | 92.7% / 0.57 | 81.1% / 0.61 |" in text
    assert "achieves 0.70 where 0.9 was asked for" in text
    assert "| truncation | 0.6 | 10.0% [6.6, 14.9] / 0.60 | – |" in text
    # 178 right with 99 of 100 tokens shortens nothing; 175 with 40 beats the tuned rows, all longer and worse
    assert "is prompt_be_concise: 87.5% with 0.40 of the tokens; it beats TokenSkip at γ = 0.9, 0.8, 0.7, 0.6" in text
    paper.publish(results, tmp_path)
    assert json.loads((tmp_path / "paper.json").read_text(encoding="utf-8")) == results
    assert "Not run yet, so not in the tables: `s`, `b`." in text


def test_the_shipped_model_is_taken_from_the_headline_run(tmp_path: Path) -> None:
    original = arm(180, 100)
    arms = [summarise_arm(ARMS["original"], None, original, original),
            summarise_arm(ARMS["random"], 0.6, arm(9, 60), original),
            summarise_arm(ARMS["tokenskip"], 0.6, arm(175, 60), original)]  # fmt: skip
    funnel = [{"reason": reason, "count": 7} for reason in ("generated", "correct", "training rows")]
    (tmp_path / "embedded.json").write_text(results_of(arms, funnel=tuple(funnel)).to_json(), encoding="utf-8")
    size, rows = paper.shipped(tmp_path / "embedded.json")
    assert (size["size"], size["parameters"], size["training_rows"]) == ("shipped", 275_008, 7)
    assert [(row["size"], row["arm"], row["accuracy"]) for row in rows] == [
        ("shipped", "original", 0.9), ("shipped", "tokenskip", 0.875),
    ]  # fmt: skip
    assert paper.shipped(tmp_path / "none.json") is None


def test_half_an_arm_is_no_row(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"original": arm(180, 100), "tokenskip-0.6": arm(150, 60)[:10]})
    assert [row["arm"] for row in paper.measured(folder)] == ["original"]


def variant(name: str, group: str, chains: int, achieved: Sequence[float], change: float | None) -> dict[str, Any]:
    original = arm(190, 100)
    rows = []
    for ratio, share in zip((0.5, 0.6, 0.7, 0.9, 0.8), achieved, strict=False):
        row = paper.row_of(summarise_arm(ARMS["tokenskip"], ratio, arm(170, round(100 * share)), original))
        if change is not None:
            row["to_base"] = {"difference": change, "low": change - 0.02, "high": change + 0.02}
        rows.append(row)
    return {"variant": name, "group": group, "about": name, "chains": chains, "training_rows": 6 * chains,
            "epochs": 2.0, "steps": chains // 2, "loss": 0.1, "rows": rows, "between": []}  # fmt: skip


def test_the_ablations_say_who_obeys_the_ratio_and_where_data_runs_out() -> None:
    results = {
        "ratios": [0.5, 0.6, 0.7, 0.9], "between": [0.55], "test": N, "chains": 800, "absent": ["lora_8"],
        "variants": [
            variant("base", "Base", 800, (0.51, 0.6, 0.7, 0.9), None),
            variant("no_atoms", "Atoms", 800, (0.5, 0.6, 0.7, 0.9), -0.1),
            variant("data_200", "Data", 200, (0.55, 0.62, 0.7, 0.9), -0.01),
            variant("data_50", "Data", 50, (1.0, 1.0, 1.0, 1.0), -0.01),
        ],
    }  # fmt: skip
    results["variants"][0]["between"] = [
        paper.row_of(summarise_arm(ARMS["tokenskip"], 0.55, arm(170, 55), arm(190, 100)))
    ]
    text = ablations_page.page(results)
    assert "| variant | γ = 0.55 |\n| --- | --: |\n| base | 85.0% / 0.55 |\n" in text
    assert "`base` obeys the ratio (mean error 0.003)." in text
    assert "`no_atoms` obeys the ratio (mean error 0.000); less accurate than base at 4, more at 0 of 4 ratios" in text
    assert "**−10.0 [−12.0, −8.0]**" in text
    assert "`data_50` does not obey the ratio: mean error 0.325, its chains span 0% of the range asked for" in text
    assert "25 steps do not give control of the ratio; 100 do." in text
    assert "Not run yet, so not in the tables: `lora_8`." in text


def test_the_loop_shows_what_is_there() -> None:
    check = {"asked": 0.55, "prompted": 0.5, "before": 0.6, "after": 0.56, "accuracy_before": 0.9,
             "accuracy_after": 0.8}  # fmt: skip
    calibration = {"n_fit": 150, "n_check": 150, "checks": [check],
                   "measured": [{"prompted": 0.5, "achieved": 0.56}], "out_of_reach": [0.4], "error_before": 0.05,
                   "error_after": 0.01, "misread": [0.65]}  # fmt: skip
    results = {"calibration": calibration, "beyond": "refused: ratio 0.15 is outside", "rounds": [], "rows": []}
    text = loop.page(results)
    assert "| 0.5 |\n| --: |\n| 0.560 |" in text
    assert "\nRead as something else, and so left out of the map: 0.65. The map" in text
    assert "| 0.55 | 0.600 | 0.5 | 0.560 | 90.0% | 80.0% |" in text
    assert "0.050 before, 0.010 through the map" in text
    nothing = calibration | {"checks": [], "error_before": None, "error_after": None}
    assert "No asked ratio can be reached." in loop.page(results | {"calibration": nothing})
    assert "refused: ratio 0.15 is outside" in text
    assert "on-policy" not in text
    counts = {"candidates": 800, "right": 700, "near": {"0.5": 600}, "won": {"0.5": 400}}
    rows = variant("base", "Base", 800, (0.51, 0.6, 0.7, 0.9, 0.8), None)["rows"]
    longer = [{**row, "arm": "tokenskip_longer", "to_first": {"difference": 0.1, "low": 0.05, "high": 0.15}}
              for row in rows]  # fmt: skip
    rounds = [{"round": 1, "train_tokens": 1, **counts}]
    settings = loop.ROUND.model_dump()
    text = loop.page({"calibration": None, "rounds": rounds, "rows": rows + longer, "settings": settings})
    assert "800 chains, 700 of them right" in text
    assert "| 0.5 | 600 | 400 |" in text
    assert "| `tokenskip_longer` | 0.5 | **+10.0 [+5.0, +15.0]** |" in text
    assert "Calibration" not in text


def test_relabelled_rows_carry_what_their_chain_achieved(tmp_path: Path) -> None:
    rows = [{"ratio": 0.5, "achieved_ratio": 0.4649}, {"ratio": 1.0, "achieved_ratio": 1.0}]
    (tmp_path / TRAIN).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = RunFolder(tmp_path, RunConfig())
    for _ in range(2):  # twice is the same
        ablations.relabel(folder)
    found = list(read_rows(folder.file(TRAIN)))
    assert [row["ratio"] for row in found] == [0.46, 1.0]
    assert found[0]["chat_template_kwargs"] != found[1]["chat_template_kwargs"]


def test_the_shortest_right_sample_of_each_problem_is_chosen(tmp_path: Path) -> None:
    def sample(id: str, k: int, n_tokens: int, dropped: str | None = None) -> Trajectory:
        grade = Grade(correct=not dropped, reason="")
        one = Trajectory(id=id, sample=k, question="q", gold="1", cot="c", n_cot_tokens=n_tokens, grade=grade)
        return one.drop(dropped) if dropped else one

    samples = [
        sample("a", 0, 9),
        sample("a", 1, 7),
        sample("a", 2, 7),
        sample("a", 3, 5, "wrong"),
        sample("b", 0, 3, "wrong"),
    ]
    for name, row in ((COMPLETIONS, trajectory_row), (TRAJECTORIES, grade_row)):
        (tmp_path / name).write_text("".join(dump_row(row(one)) for one in samples), encoding="utf-8")
    assert ablations.shortest(tmp_path) == {1}


def test_an_unknown_variant_is_named(capsys: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        ablations.main(["--only", "lora_9", "--out", str(tmp_path)])
    assert "unknown variant 'lora_9' (did you mean 'lora_8'?)" in capsys.readouterr().err


def test_each_size_of_the_family_is_three_to_four_times_the_one_before() -> None:
    from embedded_model.pretrain import SIZES, build_model
    from embedded_model.tokenizer import load_or_build

    from tokenskip.embedded import model_path

    assert list(SIZES) == list(paper.SIZES)
    tokenizer = load_or_build(model_path())
    counts = [build_model(size, tokenizer).num_parameters() for size in SIZES]
    assert all(3 <= large / small <= 4 for small, large in pairwise(counts))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute and a half of one core
def test_trials_run_whole_and_again_without_work(monkeypatch: Any, tmp_path: Path) -> None:
    trial = ["--limit", "12", "--out", str(tmp_path)]
    paper.main([*trial, "--size", "s"])
    found = json.loads((tmp_path / "published/paper.json").read_text(encoding="utf-8"))
    rows = [row for row in found["rows"] if row["size"] == "s"]
    assert len(rows) == 24
    assert all(row["n"] == 12 for row in rows)
    assert found["absent"] == ["xs", "b"]
    ablations.main([*trial, "--only", "base", "--only", "achieved_labels", "--only", "concise"])
    found = json.loads((tmp_path / "published/ablations.json").read_text(encoding="utf-8"))
    assert [one["variant"] for one in found["variants"]] == ["base", "achieved_labels", "concise"]
    assert {row["ratio"] for row in read_rows(tmp_path / "achieved_labels" / TRAIN)} - {0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    loop.main([*trial, "--part", "rounds"])
    found = json.loads((tmp_path / "published/loop.json").read_text(encoding="utf-8"))
    assert {row["arm"] for row in found["rows"]} == {"original", *loop.ARMS}

    def again(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr("tokenskip.plugins.load_model", again)
    monkeypatch.setattr("tokenskip.training.train.load_model", again)
    ablations.main([*trial, "--only", "concise"])
