"""Reinforcement learning on the ratio: the reward, the prompts, the brake, and that kills change no byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_runs import chain, recipe
from test_pipeline import Kill, Killing

from tokenskip import pipeline
from tokenskip.config import check_config, load_recipe
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.storage.store import read_rows
from tokenskip.training import grpo
from tokenskip.training.grpo import Reward, has_collapsed, questions, worth
from tokenskip.training.settings import GrpoConfig

GRPO = {"steps": 4, "batch_size": 4, "generations": 2, "save_steps": 2, "learning_rate": 0.01}
WEIGHTS = "grpo/adapter/adapter_model.safetensors"


@pytest.mark.parametrize(
    ("correct", "tokens", "settings", "expected"),
    [
        (True, 40, {}, 1.0),
        (True, 50, {}, 1.0),
        (True, 55, {}, 0.5),
        (True, 60, {}, 0.0),
        (True, 90, {}, 0.0),
        (True, 51, {"slack": 0.0}, 0.0),
        (False, 40, {}, 0.0),
        (False, 400, {}, 0.0),
        (True, 45, {"length": "near"}, 0.5),
        (True, 50, {"length": "near"}, 1.0),
        (True, 55, {"length": "near"}, 0.5),
        (True, 10, {"length": "near"}, 0.0),
        (False, 50, {"length": "near"}, 0.0),
    ],
)
def test_a_right_answer_is_worth_what_is_left_of_its_budget(
    correct: bool, tokens: int, settings: dict[str, Any], expected: float
) -> None:
    assert worth(correct, tokens, 50.0, GrpoConfig(slack=0.2).model_copy(update=settings)) == pytest.approx(expected)


def test_a_run_that_forgets_how_to_answer_is_stopped() -> None:
    def log(*rights: float) -> list[dict[str, float]]:
        return [{"right": right} for right in rights]

    assert not has_collapsed(log(*[0.8] * 10, *[0.1] * 9)), "too soon to tell"
    assert has_collapsed(log(*[0.8] * 10, *[0.1] * 10))
    assert not has_collapsed(log(*[0.8] * 10, *[0.5] * 10))
    assert not has_collapsed(log(*[0.0] * 40)), "nothing to lose"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    """(recipe, run folder) of a run that is to have four steps of GRPO, before its training."""
    folder = tmp_path_factory.mktemp("grpo")
    evaluate = {"arms": ["original"], "latency_samples": 0}
    generate = {"max_new_tokens": 80, "batch_size": 8}
    recipe_file = recipe(folder, model_folder, grpo=GRPO, evaluate=evaluate, generate=generate)
    with pipeline.Run(folder / "run", load_recipe(recipe_file)) as run:
        pipeline.generate(run)
        pipeline.grade(run)
    return recipe_file, folder / "run"


@pytest.fixture(scope="module")
def trained(graded: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same, trained."""
    recipe_file, path = graded
    target = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(path, target)
    with pipeline.Run(target, load_recipe(recipe_file)) as run:
        for stage in ("score", "prune", "train"):
            pipeline.STAGES[stage](run)
    return recipe_file, target


@pytest.fixture(scope="module")
def whole(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder after GRPO."""
    recipe_file, path = trained
    target = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(path, target)
    with pipeline.Run(target, load_recipe(recipe_file)) as run:
        pipeline.grpo(run)
    return target


def test_every_question_with_a_length_is_asked_under_a_ratio(graded: tuple[Path, Path]) -> None:
    recipe_file, path = graded
    with pipeline.Run(path, load_recipe(recipe_file)) as run:
        rows = list(questions(run))
        tokens = {row["id"]: row["n_cot_tokens"] for row in read_rows(path / "completions.jsonl")}
        assert {row["ratio"] for row in rows} == {0.5, 0.8}
        for row in rows:
            assert f"<eos>{row['ratio']}<eos>" in row["prompt"]
            assert row["n_cot_tokens"] == tokens[row["id"]]


def test_the_reward_grades_and_counts_like_the_evaluation(graded: tuple[Path, Path]) -> None:
    recipe_file, path = graded
    log: list[Any] = []
    with pipeline.Run(path, load_recipe(recipe_file)) as run:
        texts = [chain(3, 4, 7), chain(3, 4, 8), "3 + 4 = 7.\n\nThe final answer is 7.", chain(3, 4, 7)]
        ids = [run.prompts.completion_ids(text) for text in texts]
        ids[3] = ids[3][:-1]  # never ended
        n = len(run.prompts.ids(texts[0].partition("\n\nThe final")[0]))
        columns = {"id": "p", "question": "q", "gold": "7", "ratio": 0.5, "n_cot_tokens": float(n)}
        state = SimpleNamespace(global_step=6)
        repeated = {key: [value] * 4 for key, value in columns.items()}
        rewards = Reward(run, log)(completions=texts, completion_ids=ids, trainer_state=state, **repeated)
    assert rewards == [0.0, 0.0, 1.0, 0.0]
    assert (log[0]["step"], log[0]["reward"], log[0]["right"]) == (7, 0.25, 0.5)
    assert 0 < log[0]["ratio_error"] < 0.5


@pytest.mark.slow
def test_the_steps_are_logged_and_the_adapter_is_another(trained: tuple[Path, Path], whole: Path) -> None:
    log = list(read_rows(whole / "grpo" / "log.jsonl"))
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert all(row.keys() == {"step", "reward", "right", "cot_tokens", "ratio_error"} for row in log)
    assert not (whole / "grpo" / "checkpoints").exists()
    assert (whole / WEIGHTS).exists()
    assert (whole / "adapter/adapter_model.safetensors").exists()
    assert "0.5" in (whole / "grpo/adapter/chat_template.jinja").read_text()


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(trained: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    recipe_file, path = trained
    shutil.copytree(path, tmp_path / "run")
    with pytest.raises(Kill), pipeline.Run(tmp_path / "run", load_recipe(recipe_file), Killing(4)) as run:
        pipeline.grpo(run)
    assert not (tmp_path / "run" / WEIGHTS).exists()
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run:
        pipeline.grpo(run)
    for name in (WEIGHTS, "grpo/log.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_a_collapse_is_one_line_and_no_adapter(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_file, path = trained
    shutil.copytree(path, tmp_path / "run")
    monkeypatch.setattr(grpo, "has_collapsed", lambda log: len(log) >= 2)
    with (
        pipeline.Run(tmp_path / "run", load_recipe(recipe_file)) as run,
        pytest.raises(
            StageError, match=r"^grpo collapsed: .* at step 2 \(see .*log\.jsonl\); lower grpo\.learning_rate"
        ),
    ):
        pipeline.grpo(run)
    assert not (tmp_path / "run" / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grpo": {"steps": 1, "generations": 7}}, r"generations=7 must divide batch_size=64"),
        ({"grpo": {"step": 1}}, r"unknown key 'grpo\.step' \(did you mean 'grpo\.steps'"),
        (
            {"evaluate": {"arms": ["original", "tokenskip_grpo"]}},
            "arm tokenskip_grpo needs grpo: set grpo.steps above 0",
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(settings, "recipe")
    assert check_config({"grpo": 200}, "recipe").grpo.steps == 200


def test_steps_may_be_added_until_they_have_begun(graded: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = graded
    shutil.copytree(path, tmp_path / "run")
    with pipeline.Run(tmp_path / "run", load_recipe(recipe_file, ["grpo.steps=5"])):
        pass
    (tmp_path / "run" / "grpo").mkdir()
    with (
        pytest.raises(RunError, match=r"grpo\.steps: 5 -> 6"),
        pipeline.Run(tmp_path / "run", load_recipe(recipe_file, ["grpo.steps=6"])),
    ):
        pass
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["grpo"]["steps"] == 5
