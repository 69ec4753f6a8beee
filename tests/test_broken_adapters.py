"""Adapters that are broken on purpose: the run's own warnings must say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import check_config, load_recipe
from tokenskip.models.loading import load_model, load_tokenizer


def test_an_adapter_that_ignores_the_ratio_is_named(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(
        tmp_path,
        model_folder,
        generate={"backend": "bent_ratio:BentRatio", "options": {"ignores_ratio": True}, "max_new_tokens": 300},
        evaluate={"arms": ["original", "tokenskip"], "ratios": [0.5, 0.7, 0.9], "latency_samples": 0},
    )
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run:
        pipeline.generate(run)
        pipeline.grade(run)
        pipeline.evaluate(run)
        pipeline.report(run)
    warnings = json.loads((tmp_path / "run" / "results.json").read_text())["warnings"]
    assert any(text.startswith("The ratio is ignored: tokenskip uses 1.00 to 1.00") for text in warnings), warnings


@pytest.mark.slow
def test_an_adapter_of_random_weights_is_named(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    config = check_config(
        {
            "model": {"path": "embedded", "device": "cpu"},
            "task": {"name": "embedded", "train_limit": 2, "test_limit": 16},
            "generate": {"batch_size": 16, "max_new_tokens": 200},
            "evaluate": {"arms": ["original", "tokenskip"], "ratios": [0.5, 0.9], "latency_samples": 0},
        },
        "test",
    )
    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    adapter = tmp_path / "run" / "adapter"
    model = get_peft_model(load_model(config.model), lora)
    for name, weights in model.named_parameters():
        if "lora_" in name:  # peft's own random start is a hundredth of the weights beneath, which changes little
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(str(adapter))
    load_tokenizer(config.model).save_pretrained(str(adapter))
    with pipeline.Run(tmp_path / "run", config) as run:
        pipeline.generate(run)
        pipeline.grade(run)
        pipeline.evaluate(run)
        pipeline.report(run)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["arms"][0]["accuracy"] > 0.5, "the embedded model itself"
    assert any("At every ratio: the adapter looks broken." in text for text in results["warnings"]), results["warnings"]
