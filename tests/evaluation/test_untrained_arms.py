"""Ways to shorten without training: worked examples, a token budget, opened answers, deletion at equal length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from scripted_runs import ChainBackend, recipe

from tokenskip import pipeline
from tokenskip.config import load_recipe
from tokenskip.errors import ConfigError
from tokenskip.storage.store import read_rows
from tokenskip.types import Completion, Prompt, Sampling

ARMS = ["original", "marked", "deleted", "prompt_draft", "prompt_budget", "prompt_seeded"]
DEFINE = {
    "marked": {"per_ratio": True, "marker": True},
    "deleted": {"per_ratio": True, "matches": "marked"},
}


class Listening(ChainBackend):
    """The scripted model, which writes its prompts down."""

    heard: ClassVar[list[Prompt]] = []

    def generate(self, prompts: Any, sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`."""
        self.heard += prompts
        return super().generate(prompts, sampling)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, list[Prompt]]:
    """(run folder, prompts) of an evaluation without any training."""
    folder = tmp_path_factory.mktemp("untrained")
    evaluate = {"arms": ARMS, "define": DEFINE, "ratios": [0.5, 0.8], "latency_samples": 1}
    generate = {"backend": "test_untrained_arms:Listening"}
    recipe_file = recipe(folder, model_folder, evaluate=evaluate, generate=generate)
    Listening.heard = []
    with pipeline.Run(folder / "run", load_recipe(recipe_file)) as run:
        for stage in ("generate", "grade", "evaluate", "report"):
            pipeline.STAGES[stage](run)
    return folder / "run", Listening.heard


def rows(path: Path, name: str) -> list[Any]:
    return list(read_rows(path / "eval" / f"{name}.jsonl"))


def test_deletion_is_as_long_as_the_arm_that_it_matches(evaluated: tuple[Path, list[Prompt]]) -> None:
    path, _ = evaluated
    for ratio in (0.8, 0.5):
        originals, matched, deleted = (rows(path, name) for name in ("original", f"marked-{ratio}", f"deleted-{ratio}"))
        shorter = 0
        for original, target, row in zip(originals, matched, deleted, strict=True):
            assert abs(row["n_cot_tokens"] - min(target["n_cot_tokens"], original["n_cot_tokens"])) <= 12, "a unit"
            if target["n_cot_tokens"] < original["n_cot_tokens"]:
                shorter += 1
                chain, whole = ("".join(one["output"][slice(*one["cot"])].split()) for one in (row, original))
                left = iter(whole)
                assert all(character in left for character in chain), "parts of the original, in order"
                assert row["output"][row["cot"][1] :].startswith("\n\nThe final answer is")
        assert shorter
    results = json.loads((path / "results.json").read_text())
    achieved = {(arm["arm"], arm["ratio"]): arm["achieved_ratio"] for arm in results["arms"]}
    for ratio in (0.8, 0.5):
        assert achieved["deleted", ratio] == pytest.approx(achieved["marked", ratio], abs=0.05)


def test_each_prompt_says_what_it_is_named_for(evaluated: tuple[Path, list[Prompt]]) -> None:
    path, heard = evaluated
    tokens = {row["question"]: row["n_cot_tokens"] for row in rows(path, "original")}
    budgets = [prompt for prompt in heard if "use less than" in prompt.messages[-1]["content"]]
    assert budgets
    for prompt in budgets:
        question, _, rest = prompt.messages[-1]["content"].partition(" Let's think step by step and use less than ")
        assert int(rest.split()[0]) in {max(1, round(ratio * tokens[question])) for ratio in (0.5, 0.8)}
    drafts = [prompt for prompt in heard if len(prompt.messages) > 2]
    assert {len(prompt.messages) for prompt in drafts} == {7}, "three worked examples"
    assert drafts[0].messages[1]["content"].endswith("The final answer is 8.")
    assert all(prompt.ratio == 1 for prompt in budgets + drafts)


def test_an_opened_answer_counts_from_its_first_word(evaluated: tuple[Path, list[Prompt]]) -> None:
    path, heard = evaluated
    seeded = [prompt for prompt in heard if prompt.prefill == "Let me"]
    assert seeded
    assert all(prompt.messages[0]["role"] == "system" for prompt in seeded)
    assert all(row["output"].startswith("Let me") for row in rows(path, "prompt_seeded") if row["finish"] != "error")


def test_an_effort_that_the_template_does_not_know_is_one_line(tmp_path: Path, model_folder: Path) -> None:
    evaluate = {"arms": ["original", "effort_low"], "latency_samples": 0}
    config = load_recipe(recipe(tmp_path, model_folder, evaluate=evaluate))
    message = r"arm effort_low: the chat template of .* reads no reasoning_effort"
    with pipeline.Run(tmp_path / "run", config) as run, pytest.raises(ConfigError, match=message):
        pipeline.evaluate(run)


def test_an_effort_reaches_the_prompt(tmp_path: Path, model_folder: Path) -> None:
    from tokenskip.prompting.prompts import Prompts

    config = load_recipe(recipe(tmp_path, model_folder))
    with pipeline.Run(tmp_path / "run", config) as run:
        tokenizer = run.prompts.tokenizer
        turns = "{%- for m in messages -%}{{ m['content'] }}{%- endfor -%}"
        tokenizer.chat_template = "{{ 'effort ' + (reasoning_effort | default('none')) }}" + turns
        prompts = Prompts(tokenizer, config.prompt)
        low = prompts.prompt("Q", template_kwargs={"reasoning_effort": "low"})
        assert tokenizer.decode(low.token_ids) == "effort lowQ"
        assert low.template_kwargs == (("reasoning_effort", "low"),)
        assert tokenizer.decode(prompts.prompt("Q").token_ids) == "effort noneQ"
