"""The names that others may build on; a change here is a change of the major or minor version."""

from __future__ import annotations

import inspect

import pytest
from scripted_runs import recipe

import tokenskip

PUBLIC = [
    "ConfigError",
    "Problem",
    "PromptConfig",
    "PruneConfig",
    "Pruned",
    "RunConfig",
    "Scores",
    "Span",
    "TokenskipError",
    "Trajectory",
    "__version__",
    "add_ratio_control",
    "load_recipe",
    "load_results",
    "prune_chain",
    "run_recipe",
    "score_texts",
    "split_completion",
    "token_counter",
]


def test_the_public_names():
    assert sorted(tokenskip.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(tokenskip))
    assert all(getattr(tokenskip, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        tokenskip.nope  # noqa: B018


def test_the_public_parameters():
    def parameters(function):
        return list(inspect.signature(function).parameters)

    assert parameters(tokenskip.add_ratio_control) == ["tokenizer", "delimiter", "settings"]
    assert parameters(tokenskip.split_completion) == ["output", "finish", "prompt"]
    assert parameters(tokenskip.prune_chain) == ["cot", "scores", "ratio", "counter", "config"]
    assert parameters(tokenskip.load_recipe) == ["path", "overrides"]
    assert parameters(tokenskip.load_results) == ["path"]
    assert parameters(tokenskip.run_recipe) == ["recipe", "out", "overrides"]
    assert parameters(tokenskip.score_texts) == ["texts", "scorer", "model", "questions", "answers", "overrides"]


def test_pruning_with_what_is_public(tokenizer):
    split = tokenskip.split_completion(
        "Well, so 2 + 3 = 5. Fine.\n\nThe final answer is 5.", "stop", tokenskip.PromptConfig()
    )
    spans = (tokenskip.Span(0, 5, 0.1), tokenskip.Span(6, 19, 0.9), tokenskip.Span(20, 25, 0.2))
    scores = tokenskip.Scores(scorer="mine", spans=spans)
    counter = tokenskip.token_counter(tokenizer)
    cut = tokenskip.prune_chain(split.cot, scores, 0.5, counter, tokenskip.PruneConfig())
    assert "2 + 3 = 5." in cut.text
    assert "Well" not in cut.text
    assert cut.n_tokens_pruned < cut.n_tokens


def test_texts_are_scored_in_their_order(model_folder):
    texts = ["So 12 + 5 = 17.", "", "Tom has 12 apples."]
    found = tokenskip.score_texts(texts, model=str(model_folder))
    for text, scores in zip(texts, found, strict=True):
        assert all(text[span.start : span.end] for span in scores.spans)
        assert bool(scores.spans) == bool(text)
    assert tokenskip.score_texts([]) == []
    alone = tokenskip.score_texts(texts[:1], model=str(model_folder), questions=["How many apples?"])
    assert [span.value for span in alone[0].spans] != [span.value for span in found[0].spans]
    gradients = tokenskip.score_texts(texts[:1], "goal_gradient", model=str(model_folder), answers=["17"])
    assert gradients[0].scorer.startswith("goal_gradient")
    with pytest.raises(tokenskip.ConfigError, match="1 texts, but 2 answers"):
        tokenskip.score_texts(["x"], answers=["a", "b"])
    with pytest.raises(tokenskip.ConfigError, match="unknown scorer 'surprise'"):
        tokenskip.score_texts(["x"], "surprise")


def test_a_recipe_runs_and_returns_its_results(model_folder, tmp_path):
    small = {"arms": ["original", "tokenskip"], "ratios": [0.5], "latency_samples": 0}
    file = recipe(tmp_path, model_folder, evaluate=small)
    results = tokenskip.run_recipe(file, tmp_path / "run", ["train.trainer.max_steps=1"])
    assert [arm.arm for arm in results.arms] == ["original", "tokenskip"]
    assert results == tokenskip.load_results(tmp_path / "run")
    config = tokenskip.load_recipe(file, ["train.trainer.max_steps=1"])
    again = tokenskip.run_recipe(config, tmp_path / "run")  # all is there: only the report is written anew
    assert again.arms == results.arms
    with pytest.raises(tokenskip.ConfigError, match="a configuration is complete"):
        tokenskip.run_recipe(config, overrides=["seed=1"])
    with pytest.raises(tokenskip.ConfigError, match="no recipe nothing"):
        tokenskip.run_recipe("nothing")
