"""Training settings that could only fail later: one line before the first stage, and in a dry run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip.config import load_recipe
from tokenskip.errors import ConfigError
from tokenskip.models.loading import load_tokenizer
from tokenskip.prompting.prompts import Prompts
from tokenskip.run import Run
from tokenskip.training.check import check_training

WRONG = [
    ("train.scheduler=cosinee", "unknown scheduler 'cosinee' (did you mean 'cosine'?)"),
    ("train.scheduler=reduce_lr_on_plateau", "needs an evaluation"),
    ("train.scheduler=cosine_with_min_lr", "needs min_lr or min_lr_rate"),
    ("train.target_modules=[foo]", "has no module 'foo'"),
    ("train.target_modules=[q_proj, v_prj]", "has no module 'v_prj' (did you mean 'v_proj'?)"),
    ("train.target_modules=q_proj", "a name goes into a list: [q_proj]"),
    ("train.target_modules=['.*q_proj']", "has no module '.*q_proj'"),
    ("train.target_modules='[q_proj'", "is no regular expression"),
    ("train.target_modules=[q_proj, lm_head]", "an adapter on the head is not trained"),
    ("train.target_modules=[input_layernorm]", "not supported"),
    ("train.trainer={max_seq_length: 512}", "max_seq_length is set by train.max_length"),
    ("train.trainer={per_device_train_batch_size: 4}", "is set by train.batch_size and train.accumulation"),
    ("train.trainer={max_step: 3}", "unknown key 'max_step' (did you mean 'max_steps'?)"),
    ("train.trainer={max_steps: '3'}", "max_steps is a number; given: '3'"),
    ("train.trainer={bf16: 'yes'}", "bf16 is true or false; given: 'yes'"),
    ("train.trainer={max_grad_norm: true}", "max_grad_norm is a number; given: True"),
    ("train.trainer={optim: nonsense}", "nonsense"),
    ("train.trainer={optim: adamw_8bit}", "bitsandbytes"),
    ("train.trainer={packing: true}", "packed ones would see each other"),
    ("train.trainer={padding_free: true}", "packed ones would see each other"),
    ("train.trainer={eval_strategy: steps}", "nothing is evaluated during training"),
    ("train.trainer={push_to_hub: true}", "`tokenskip push` uploads"),
    ("train.trainer={save_strategy: 'no'}", "keeps its own checkpoints"),
    ("model.device=cuda:7", "this machine has no such device"),
    ("model.device=gpu", "model.device: auto, cpu, cuda"),
    ("seed=4294967296", "seed"),
    ("prune.ratios=[0.5, 0.5, 1.0]", "the ratio 0.5 is given twice"),
    ("evaluate.ratios=[0.5, 0.50000001]", "the ratio 0.5 is given twice"),
    ("evaluate.arms=[tokenskip]", "needs the arm original"),
    ("train.report_to=[tensorbord]", "tensorboard"),
    ("train.accumulation=7", "must divide"),
]
RIGHT = [
    "train.scheduler=constant_with_warmup",
    "train.scheduler=polynomial",
    "train.target_modules=[q_proj, v_proj]",
    "train.target_modules='.*\\.(q|v)_proj'",
    "train.target_modules=[model.layers.0.self_attn.q_proj]",
    "train.trainer={max_steps: 3, optim: adamw_torch, packing: false, weight_decay: 0, logging_steps: 1}",
    "train.trainer={lr_scheduler_kwargs: {}, eval_strategy: 'no'}",
    "train.trainer={train_sampling_strategy: sequential}",
]


@pytest.fixture
def recipe_file(tmp_path: Path, model_folder: Path) -> Path:
    return recipe(tmp_path, model_folder)


@pytest.mark.parametrize(("override", "line"), WRONG)
def test_a_wrong_setting_is_one_line_before_anything_runs(
    override: str, line: str, recipe_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path / "run", load_recipe(recipe_file, [override]))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("override", RIGHT)
def test_right_settings_pass(override: str, recipe_file: Path) -> None:
    config = load_recipe(recipe_file, [override])
    check_training(config, Prompts(load_tokenizer(config.model), config.prompt))


@pytest.mark.parametrize("modules", ["[embed_tokens]", "[q_proj, embed_tokens]", "'.*(q_proj|embed_tokens)'"])
def test_tied_embeddings_get_no_adapter(modules: str) -> None:
    """Merged, it would change the head as well (the embedded model's, SmolLM2's, Qwen2.5-0.5B's and 3B's are tied)."""
    with pytest.raises(ConfigError, match="the embeddings of embedded are tied to its head"):
        check_training(load_recipe(None, [f"train.target_modules={modules}"]))


def test_rows_must_have_room_for_more_than_the_prompt(recipe_file: Path, tmp_path: Path) -> None:
    long = ["train.max_length=8", "prompt.template='Think step by step and then answer. {question}'"]
    with pytest.raises(ConfigError, match=r"train\.max_length=8 leaves no room: the prompt alone has \d+ tokens"):
        Run(tmp_path / "run", load_recipe(recipe_file, long))


def test_a_dry_run_says_the_same(recipe_file: Path, monkeypatch: Any, capsys: Any) -> None:
    from tokenskip import cli

    for override, line in (WRONG[0], WRONG[4], WRONG[13], WRONG[20]):
        monkeypatch.setattr("sys.argv", ["tokenskip", "run", str(recipe_file), "--set", override, "--dry-run"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1


def test_a_setting_changed_between_two_stages_is_checked(recipe_file: Path, tmp_path: Path) -> None:
    with Run(tmp_path / "run", load_recipe(recipe_file)):
        pass
    with pytest.raises(ConfigError, match="unknown scheduler"):
        Run(tmp_path / "run", load_recipe(recipe_file, ["train.scheduler=cosinee"]))


def test_embeddings_that_are_not_tied_can_have_an_adapter(
    recipe_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    untied = tmp_path / "untied"
    shutil.copytree(model_folder, untied)
    values = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    config = load_recipe(recipe_file, [f"model.path={untied}", "train.target_modules=[embed_tokens, q_proj]"])
    check_training(config)


def test_a_calibrated_arm_needs_a_calibration(recipe_file: Path, tmp_path: Path) -> None:
    from tokenskip import pipeline

    config = load_recipe(recipe_file, ["evaluate.arms=[original, tokenskip_calibrated]"])
    with Run(tmp_path / "run", config) as run, pytest.raises(ConfigError, match=r"set calibrate\.n=300"):
        pipeline.run(run)
    load_recipe(recipe_file, ["evaluate.arms=[original, tokenskip_calibrated]", "calibrate=20"]).check_calibration()
