"""The names that others may build on; a change here is a change of the major or minor version."""

from __future__ import annotations

import inspect

import pytest

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

    assert parameters(tokenskip.add_ratio_control) == ["tokenizer", "delimiter"]
    assert parameters(tokenskip.split_completion) == ["output", "finish", "prompt"]
    assert parameters(tokenskip.prune_chain) == ["cot", "scores", "ratio", "counter", "config"]
    assert parameters(tokenskip.load_recipe) == ["path", "overrides"]
    assert parameters(tokenskip.load_results) == ["path"]


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
