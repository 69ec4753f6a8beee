"""Arms as values: the built-in table, a recipe's own, and the adapters that some of them are trained for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import ChainBackend, chain, recipe

from tokenskip import pipeline
from tokenskip.arms import ARMS, DEFAULT_ARMS, Arm, rows_of
from tokenskip.config import check_config, load_recipe
from tokenskip.errors import ConfigError, RunError
from tokenskip.evaluation.comparisons import headline_rows
from tokenskip.evaluation.schema import load_results
from tokenskip.prompting.terse import spelled
from tokenskip.report.tables import markdown_table
from tokenskip.report.text import summary
from tokenskip.run import Run
from tokenskip.storage.store import read_rows
from tokenskip.types import Completion, Prompt


def configured(**evaluate: Any) -> Any:
    return check_config({"evaluate": evaluate}, "recipe")


def test_the_papers_prompts_word_for_word() -> None:
    """TokenSkip, section 4.1 and appendix B.3; the last one at 50% there."""
    assert ARMS["prompt_be_concise"].instruction == "Be concise."
    assert ARMS["prompt_only_numbers"].instruction == "Only use numbers or equations."
    assert ARMS["prompt_abbreviate"].instruction == "Abbreviate words as much as possible."
    half = "Please reduce 50% of the words in your Chain-of-Thought process."
    assert (
        spelled(ARMS["prompt_lc"].instruction, 0.5, 0) == spelled(ARMS["tokenskip_prompt"].instruction, 0.5, 0) == half
    )


@pytest.mark.parametrize(("ratio", "percent"), [(0.9, "10"), (0.7, "30"), (0.55, "45"), (0.325, "67.5")])
def test_the_percentage_is_what_is_left_out(ratio: float, percent: str) -> None:
    assert f"reduce {percent}% of" in spelled(ARMS["prompt_lc"].instruction, ratio, 0)


def test_rows_that_say_nothing_are_left_out() -> None:
    names = ("original", "tokenskip", "prompt_lc", "tokenskip_prompt", "marker_only", "truncation", "full_chain")
    rows = [(arm.name, ratio) for arm, ratio in rows_of([ARMS[name] for name in names], [0.5, 1.0])]
    assert rows == [
        ("original", 1.0),
        ("tokenskip", 1.0),
        ("tokenskip", 0.5),
        ("prompt_lc", 0.5),
        ("tokenskip_prompt", 0.5),
        ("marker_only", 0.5),
        ("truncation", 0.5),
        ("full_chain", 1.0),
    ]


def test_what_an_arm_is_follows_from_its_fields() -> None:
    kinds = {arm.name: (arm.role, arm.shortened_by) for arm in ARMS.values()}
    assert kinds["original"] == ("original", "nothing")
    assert kinds["tokenskip"] == kinds["tokenskip_prompt"] == ("method", "ratio")
    assert kinds["prompt_lc"] == kinds["prompt_be_concise"] == ("control", "instruction")
    assert kinds["marker_only"] == kinds["random"] == ("control", "ratio")
    assert kinds["truncation_forced"] == ("control", "truncation")
    assert kinds["full_chain"] == ("control", "nothing")
    assert kinds["prompt_draft"] == kinds["prompt_budget"] == kinds["effort_low"] == ("control", "instruction")
    assert kinds["random_matched"] == ("control", "deletion")
    assert Arm(name="a", weights="runs/other/adapter").role == "method"
    assert Arm(name="a", weights="runs/other/adapter", role="control").role == "control"
    assert Arm.model_validate({"name": "a", "dial": True, "marker": True}).per_ratio, "the old spelling"


def test_a_ratio_is_one_row_however_often_it_is_given() -> None:
    assert list(ARMS["tokenskip"].ratios([0.5, 1.0, 0.5])) == [1.0, 0.5]


def test_the_default_costs_what_it_did() -> None:
    assert [arm.name for arm in configured().chosen_arms()] == list(DEFAULT_ARMS)
    assert {arm.weights for arm in configured().chosen_arms()} == {"base", "tokenskip", "random"}


@pytest.mark.parametrize(
    ("define", "message"),
    [
        ({"tokenskip": {}}, "arm 'tokenskip' is built in: choose another name"),
        ({"a-b": {}}, "evaluate.define.a-b.name"),
        (
            {"a": {"instruction": "{p}%"}},
            "arm a: marker, cut, matches, {p} and {budget} need a ratio: set per_ratio: true",
        ),
        ({"a": {"terse": "budget"}}, "arm a: marker, cut, matches, {p} and {budget} need a ratio"),
        ({"a": {"terse": "brief"}}, "arm a: unknown terse 'brief': allowed are abbreviate"),
        ({"a": {"terse": "draft", "instruction": "x"}}, "arm a: terse is an instruction by name: give one of"),
        ({"a": {"matches": "tokenskip", "per_ratio": True, "cut": True}}, "arm a: matches shortens the original's own"),
        ({"a": {"matches": "tokenskip", "per_ratio": True}}, "arm a matches 'tokenskip', which must be one of"),
        ({"a": {"cut": True, "per_ratio": True, "marker": True}}, "arm a: cut shortens the original's own chains"),
        ({"a": {"forced": True}}, "arm a: forced needs cut: true"),
        ({"a": {"weights": "best"}}, "arm a: unknown weights 'best': allowed are base, tokenskip, random, full_chain"),
        ({"a": {"weights": "no/such"}}, "arm a: no/such is no adapter folder"),
        ({"a": {"weights": "round_1", "per_ratio": True}}, "arm a needs rounds: set candidates.sources="),
        ({"a": {"calibrated": True}}, "arm a: calibrated needs weights: tokenskip and marker: true"),
        ({"a": {"instuction": "x"}}, "unknown key 'evaluate.define.a.instuction' (did you mean"),
        ({"a": {"length": "short"}}, "evaluate.define.a.length"),
        ({"a": {"dial": True, "per_ratio": True}}, "evaluate.define.a: dial is the old name of per_ratio"),
        ({"a": {"role": "original"}}, "arm 'a': role is method or control; the original is built in"),
        ({"a": {"role": "method"}}, "arm a: role: method needs weights that were trained"),
        ({"a": {"role": "king"}}, "evaluate.define.a.role"),
        ({"a": {"weights": ["base"]}}, "evaluate.define.a.weights"),
    ],
)
def test_impossible_arms_are_one_line(define: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        configured(define=define, arms=["original", *define])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_arms_of_a_recipe_and_controls_with_adapters_of_their_own(tmp_path: Path, model_folder: Path) -> None:
    own = {
        "terse": {"instruction": "Use {p}% fewer words.", "dial": True, "about": "a terse prompt"},
        "short_terse": {"weights": "tokenskip", "instruction": "Be brief.", "per_ratio": True, "marker": True},
    }
    arms = ["original", "tokenskip", "terse", "short_terse", "prompt_lc", "full_chain"]
    evaluate = {"arms": arms, "define": own, "ratios": [0.5, 1.0], "latency_samples": 0}
    recipe_file = recipe(tmp_path, model_folder, evaluate=evaluate)
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run:
        pipeline.run(run)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [(arm["arm"], arm["ratio"]) for arm in results["arms"]] == [
        ("original", None),
        ("tokenskip", 1.0),
        ("tokenskip", 0.5),
        ("prompt_lc", 0.5),
        ("full_chain", None),
        ("short_terse", 1.0),
        ("short_terse", 0.5),
        ("terse", 0.5),
    ]
    assert next(arm["about"] for arm in results["arms"] if arm["arm"] == "terse") == "a terse prompt"

    rows = list(read_rows(tmp_path / "run" / "control-full-chain" / "train.jsonl"))
    outputs = {row["id"]: row["output"] for row in read_rows(tmp_path / "run" / "completions.jsonl")}
    assert len(rows) == 17  # every correct chain, once, whole
    assert all(row["completion"][0]["content"] == outputs[row["id"]] and row["ratio"] == 1 for row in rows)
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / "control-full-chain" / weights).read_bytes() != (tmp_path / "run" / weights).read_bytes()

    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file, ["evaluate.define.more={instruction: More}"])):
        pass  # an arm may be added at any time ...
    # ... but not change under its rows
    changed = load_recipe(recipe_file, ["evaluate.define.terse={instruction: Other}"])
    with pytest.raises(RunError, match=r"evaluate\.define\.terse: .*Set them back"):
        pipeline.Run(tmp_path / "run", changed).__enter__()


class TerseBackend(ChainBackend):
    """A trained model that writes half a chain and errs at every third problem; asked to be terse, it never does."""

    def _complete(self, prompt: Prompt) -> Completion:
        a, b = (int(number) for number in re.findall(r"\d+", prompt.messages[-1]["content"])[:2])
        terse = "terse" in prompt.messages[-1]["content"]
        wrong = prompt.ratio < 1 and a % 3 == 0
        text = f"{a} + {b} = {a + b}.\n\nThe final answer is {a + b}." if terse else chain(a, b, a + b + wrong)
        text = re.sub(r"Well, |in his basket|goes and ", "", text) if prompt.ratio < 1 else text
        return Completion(text=text, n_tokens=len(self.tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.parametrize(
    ("name", "ratio", "fields"),
    [
        ("prompt_of_mine", None, {"instruction": "Be terse."}),
        ("tokenskip_like", 0.5, {"instruction": "Be terse, leave out {p}%.", "per_ratio": True}),
        ("constructor", None, {"instruction": "Be terse.", "about": "a name that objects answer to"}),
    ],
)
def test_a_prompt_of_the_recipe_that_beats_the_trained_model_is_reported_like_a_built_in_one(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ratio: float | None,
    fields: dict[str, Any],
) -> None:
    monkeypatch.setenv("TOKENSKIP_TRUST", __name__)
    evaluate = {
        "arms": ["original", "tokenskip", name],
        "define": {name: fields},
        "ratios": [0.5, 1.0],
        "latency_samples": 0,
    }
    file = recipe(tmp_path, model_folder, generate={"backend": f"{__name__}:TerseBackend"}, evaluate=evaluate)
    with Run(tmp_path / "run", load_recipe(file, ["train.trainer.max_steps=1"])) as run:
        pipeline.run(run)
    results = load_results(tmp_path / "run")
    label = name if ratio is None else f"{name} {ratio}"
    assert [arm.label for arm in results.arms] == ["original", "tokenskip 1.0", "tokenskip 0.5", label]
    assert (results.arms[-1].role, results.arms[-1].shortened_by) == ("control", "instruction")
    assert any(f"A control without training beats tokenskip at equal or fewer tokens: {label} reaches 100.0%" in text
               for text in results.warnings), results.warnings  # fmt: skip
    assert f"something that needs no training does better: {label}" in summary(results)
    assert next(row for row in results.matched if row.label == label).on_front
    assert f"| {name} | {ratio or '–'} | 100.0%" in markdown_table(headline_rows(results.arms))
    assert label in results.problems[0].arms
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"needs no training does better: {label}" in html


def test_the_instruction_reaches_the_prompt(tmp_path: Path, model_folder: Path) -> None:
    """The backend sees the very text: the question, the instruction and, with a marker, the ratio."""
    from tokenskip.evaluation.evaluate import prompt_of
    from tokenskip.types import Problem

    recipe_file = recipe(tmp_path, model_folder)
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run:
        problem = Problem(id="a", question="How many?", gold="1")
        made = prompt_of(run, ARMS["tokenskip_prompt"], 0.6, problem)
        text = run.prompts.tokenizer.decode(made.token_ids)
    asked = "Please reduce 40% of the words in your Chain-of-Thought process."
    assert text == f"<user>How many? {asked}<eos>0.6<eos>\n<bot>"
