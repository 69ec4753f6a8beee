"""The table of scorers: shares and correlations are counted right, parts are kept, and the page says what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scorers as bench
import scoring
import scoring_page

from tokenskip.types import Scores, Span, Trajectory


def test_kinds_are_counted_by_characters() -> None:
    cot = "So Ann has 12 + 3.5 = 15.5 apples"
    counts = bench.kind_counts(cot, [(3, 14), (22, 26)])  # "Ann has 12 " and "15.5"
    assert (counts["number"], counts["number kept"]) == (9, 6)
    assert (counts["operator"], counts["operator kept"]) == (2, 0)
    assert (counts["filler"], counts["filler kept"]) == (5, 3)  # So, has
    assert (counts["word"], counts["word kept"]) == (9, 3)  # Ann, apples
    assert not [word for word in bench.FILLERS if not word.islower()]


def scored(id: str, cot: str, sign: float) -> Trajectory:
    words, at = [], 0
    for number, word in enumerate(cot.split(" ")):
        words.append(Span(at, at + len(word), sign * (number * 7 % 11)))
        at += len(word) + 1
    return Trajectory(id=id, question="", gold="", cot=cot, scores=Scores(scorer="s", spans=tuple(words)))


def test_rank_correlation_is_one_with_itself_and_minus_one_reversed() -> None:
    cots = ("one two three four five six seven", "red green blue white black grey", "a b")
    same = [scored(str(i), cot, 1) for i, cot in enumerate(cots)]
    reverse = [scored(str(i), cot, -1) for i, cot in enumerate(cots)]
    assert bench.rank_correlation(same, same) == {"n": 2, "mean": 1.0, "error": 0.0}  # "a b" has too few units
    assert bench.rank_correlation(same, reverse)["mean"] == -1.0
    blind = [replace(one, scores=Scores(scorer="s", spans=())) for one in same]
    assert bench.rank_correlation(same, blind) == {"n": 0, "mean": None, "error": None}


def test_a_small_run_is_kept_and_published(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    arguments = [
        "--limit",
        "8",
        "--reference",
        "3",
        "--out",
        str(tmp_path),
        "--only",
        "random",
        "--only",
        "llmlingua2",
        "--no-train",
    ]
    bench.main(arguments)
    results = json.loads((tmp_path / "published/scorers.json").read_text(encoding="utf-8"))
    assert set(results["scorers"]) == {"random", "llmlingua2"}
    assert results["n_chains"] >= 4
    assert results["default"] == "llmlingua2"
    for found in results["scorers"].values():
        assert found["n"] == results["n_chains"]
        assert found["spearman"]["leave_one_out"]["n"] == 3
        for cut in found["cuts"].values():
            assert all(0 <= cut[ratio]["kept"][kind] <= 1 for ratio in cut for kind in cut[ratio]["kept"])
            assert cut["0.5"]["achieved"] < cut["0.7"]["achieved"] < cut["0.9"]["achieved"]
            assert all(abs(cut[ratio]["achieved"] - float(ratio)) < 0.1 for ratio in cut)
    page = (tmp_path / "published/scorers.md").read_text(encoding="utf-8")
    assert results["example"]["cot"] in page  # with its line breaks
    assert "| random | " in page
    assert "Not measured here" in page

    def scores_again(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(bench, "make_scorer", scores_again)
    bench.main(arguments)
    assert json.loads((tmp_path / "published/scorers.json").read_text(encoding="utf-8")) == results
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--only", "mixt", "--out", str(tmp_path)])
    assert "unknown scorer 'mixt' (did you mean 'mist'?)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_scorer_gets_rows_with_intervals(tmp_path: Path) -> None:
    arguments = ["--limit", "12", "--reference", "2", "--test", "6", "--out", str(tmp_path), "--only", "random"]
    bench.main([*arguments, "--set", "train.epochs=0.1"])
    results = json.loads((tmp_path / "published/scorers.json").read_text(encoding="utf-8"))
    arms = results["scorers"]["random"]["trained"]["arms"]
    rows = [(arm["arm"], arm["ratio"]) for arm in arms]
    assert rows == [("original", None), *(("tokenskip", ratio) for ratio in bench.GAMMAS)]
    assert all(arm["n"] == 6 and arm["accuracy_low"] <= arm["accuracy"] <= arm["accuracy_high"] for arm in arms)
    page = (tmp_path / "published/scorers.md").read_text(encoding="utf-8")
    assert "| random | 0.5 | 6 | " in page


def test_who_wins_follows_its_ratio_and_is_apart_from_the_default() -> None:
    from scorers_page import verdict

    def trained(accuracy: float, *achieved: float, p_value: float | None = None) -> dict[str, Any]:
        row = {"n": 300, "accuracy": accuracy, "accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.05}
        arms: list[dict[str, Any]] = [{"arm": "original", "ratio": None, "achieved_ratio": 1.0, **row}]
        for ratio, own in zip(bench.GAMMAS, achieved or bench.GAMMAS, strict=True):
            arms.append({"arm": "tokenskip", "ratio": ratio, "achieved_ratio": own, **row})
        return {"arms": arms, "to_default": p_value and {"difference": 0.02, "p_value": p_value}}

    default, deaf, loose = trained(0.9), trained(0.99, 0.97, 0.97, 0.97), trained(0.95, 0.5, 0.76, 0.9)
    lines = verdict({"deaf": deaf, "own": default, "loose": loose}, "own")
    assert lines[0].endswith(
        "off by more than 0.05 of it somewhere: deaf (0.97 / 0.97 / 0.97), loose (0.50 / 0.76 / 0.90)"
    )
    assert lines[1].startswith("- of the others at γ = 0.5: own 90.0% [85.0%, 95.0%]. **own wins**")
    lines = verdict({"own": default, "better": trained(0.92, p_value=0.3)}, "own")
    assert lines[1].endswith("**No winner**: better leads by +2.0 points to `own`, p = 0.3; the default stays `own`")
    lines = verdict({"own": default, "better": trained(0.92, p_value=0.01)}, "own")
    assert lines[1].endswith("**better wins** (+2.0 points to `own`, p = 0.01); the embedded recipes' default is `own`")
    assert verdict({"own": deaf}, "own")[1] == "- no verdict: no model follows γ"
    assert verdict({"other": default}, "own")[0].startswith("- no verdict: nothing was fine-tuned")


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["llmlingua2", "surprisal"])
def test_memory_does_not_grow_with_the_file(scorer: str) -> None:
    found = scoring.memory(scoring.load_texts(None, 5000), scorer)
    assert found["5000"]["peak_mib"] - found["500"]["peak_mib"] < 60


def speed(size: str, speedup: float, share: float, threads: int = 1) -> dict[str, Any]:
    run = {"threads": threads, "speedup_cpu": speedup, "sgemm_share": share, "flop_ratio": 15.4, "mean_tokens": 171.0,
           "identical": True, "n_texts": 64, "n_reference": 4,
           "speedup_cpu_range": [speedup - 1, speedup + 1], "sgemm_share_range": [0.8, 0.9]}  # fmt: skip
    return {"texts": "GSM8K", "load": 2.1, "cpu": "a CPU", "size": size, "runs": [run]}


def test_the_page_of_scoring_says_which_targets_are_met(tmp_path: Path) -> None:
    results = {"base": speed("base", 15.7, 0.931), "large": speed("large", 12.7, 0.84)}
    text = scoring_page.page(results)
    assert "| base | 1 | 64 of GSM8K | 171 | 15.4 | 15.7× [14.7, 16.7] | 0.931 [0.80, 0.90] | yes (20 results)" in text
    assert "12.7× [11.7, 13.7] | 0.840 [0.80, 0.90] | yes (20 results) | 2.1 | **no** |" in text
    assert "1 of 2 rows meet both targets: 13× at base, 11× at large, and a share of 0.85." in text
    assert "python benchmarks/scoring.py --size base --texts 24 --reference 5 --threads 1 --data FILE.jsonl" in text
    assert "## Memory" not in text
    sizes = {"747": {"peak_mib": 511.2, "cpu_s": 15.0}, "7473": {"peak_mib": 622.0, "cpu_s": 99.4}}
    memory = {"texts": "GSM8K", "load": 1.0, "cpu": "a CPU", "scorers": {"llmlingua2": sizes}}
    dtypes = {"float32": {"cpu_s": 0.2}, "bfloat16": {"cpu_s": 0.1, "texts_changed": 0.254, "words_changed": 0.004}}
    rule = {"texts": "GSM8K", "load": 1.0, "cpu": "a CPU", "scorer": "rule llmlingua", "n_texts": 400, "dtypes": dtypes}
    text = scoring_page.page({"memory": memory, "decisions, rule": rule})
    assert "| 7,473 | 622 MiB | 99 |" in text
    assert "| rule llmlingua | embedded | 400 of GSM8K | bfloat16 | 25.4% | 0.40% | 0.50 |" in text
    assert "## Speed" not in text
    scoring_page.publish(results, tmp_path)
    assert json.loads((tmp_path / "scoring.json").read_text(encoding="utf-8")) == results


@pytest.mark.slow
def test_a_part_of_scoring_is_measured_once(monkeypatch: Any, tmp_path: Path) -> None:
    tiny = scoring_page.Part("--decisions --texts 8 --dtypes bfloat16", own=True)
    monkeypatch.setattr(scoring_page, "PARTS", {"decisions, rule": tiny})
    monkeypatch.setattr(scoring_page, "RESULTS", tmp_path)
    scoring_page.main(["--out", str(tmp_path / "parts")])
    monkeypatch.setattr(scoring_page, "measure", None)  # what is there is not measured again
    scoring_page.main(["--out", str(tmp_path / "parts")])
    found = json.loads((tmp_path / "scoring.json").read_text(encoding="utf-8"))["decisions, rule"]
    assert (found["texts"], found["n_texts"]) == (scoring_page.OWN_FAMILY, 8)
