"""Whole runs on a tiny model of random weights whose chains are scripted: every file, every number, and every kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import cli, pipeline
from tokenskip.commands.preview import ask, shared_words
from tokenskip.config import TrainConfig, load_recipe
from tokenskip.errors import RunError, StageError
from tokenskip.storage.store import read_rows
from tokenskip.training.dataset import FEW_STEPS, few_steps

EQUAL = ("completions.jsonl", "trajectories.jsonl", "scores.jsonl", "pruned.jsonl", "train.jsonl")
ADAPTER = "adapter/adapter_model.safetensors"
QUICK = {"evaluate": {"arms": ["original", "tokenskip", "truncation_forced"], "ratios": [0.5], "latency_samples": 0}}


class Kill(BaseException):
    """Nothing in the package catches it, as it would not catch a kill."""


class Killing:
    """A `Progress` that stops the run at its n-th report."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Any]:
        def advance(n: int, *, total: int | None = None, note: str = "") -> None:
            self.left -= 1
            if self.left < 0:
                raise Kill

        yield advance


def run(path: Path, recipe_file: Path, progress: Any = None) -> None:
    with pipeline.Run(path, load_recipe(recipe_file), progress) as a_run:
        pipeline.run(a_run)


def contents(path: Path, *names: str) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    """(recipe, run folder) of a finished run with all arms."""
    folder = tmp_path_factory.mktemp("whole")
    recipe_file = recipe(folder, model_folder)
    run(folder / "run", recipe_file)
    return recipe_file, folder / "run"


def test_every_file_is_there_and_rows_belong_together(whole: tuple[Path, Path]) -> None:
    _, path = whole
    for name in (*EQUAL, ADAPTER, "config.json", "results.json", "report.html", "adapter/chat_template.jinja"):
        assert (path / name).stat().st_size, name
    assert not (path / "checkpoints").exists()
    ids = [[row["id"] for row in read_rows(path / name)] for name in EQUAL[:4]]
    assert ids == [[f"p{i}" for i in range(1, 25)]] * 4


def test_the_folder_says_what_a_training_was_done_in(whole: tuple[Path, Path]) -> None:
    noted = json.loads((whole[1] / "config.json").read_text())["notes"]["trained_in"]
    assert noted["products"] == "float32", "the model is narrow"
    assert noted["threads"] >= 1


def test_whole_chains_are_trained_on_at_ratio_one_and_shorter_ones_below(whole: tuple[Path, Path]) -> None:
    recipe_file, path = whole
    with pipeline.Run(path, load_recipe(recipe_file)) as a_run:
        sources = {one.id: one for one in a_run.folder.trajectories()}
    rows = list(read_rows(path / "train.jsonl"))
    assert {row["ratio"] for row in rows} == {0.5, 0.8, 1.0}
    for row in rows:
        source = sources[row["id"]]
        text = row["completion"][0]["content"]
        assert source.grade is not None
        assert source.grade.correct
        assert text.endswith(source.tail)
        if row["ratio"] == 1:
            assert text == source.output
            assert row["chat_template_kwargs"] == {}
        else:
            assert len(text) < len(source.output)
            assert row["chat_template_kwargs"] == {"compression_ratio": str(row["ratio"])}
            assert abs(row["achieved_ratio"] - row["ratio"]) < 0.25


def test_the_funnel_counts_every_trajectory(whole: tuple[Path, Path]) -> None:
    _, path = whole
    results = json.loads((path / "results.json").read_text())
    counts = {step["reason"]: step["count"] for step in results["funnel"]}
    # of 1 ... 24 every seventh is cut off (7, 14, 21), and of the others every fifth is wrong (5, 10, 15, 20)
    assert counts["generated"] == 24
    assert (counts["correct"], counts["truncated"], counts["incorrect"]) == (17, 3, 4)
    assert counts["pruned texts"] == 17 * 3
    assert counts["training rows"] == counts["pruned texts"] - counts["rejected by the equation check or for its ratio"]


def test_too_short_a_fine_tuning_is_warned_of(whole: tuple[Path, Path]) -> None:
    _, path = whole
    warnings = json.loads((path / "results.json").read_text())["warnings"]
    rows = sum(1 for _ in read_rows(path / "train.jsonl"))
    assert any(text.startswith(f"{rows} training rows are {-(-rows // 6)} optimiser steps") for text in warnings)


@pytest.mark.parametrize(
    ("rows", "train", "steps"),
    [
        (12000, TrainConfig(batch_size=24, epochs=1), 500),
        (2401, TrainConfig(batch_size=24, epochs=0.5), 51),
        (10, TrainConfig(trainer={"max_steps": 499}), 499),
        (10, TrainConfig(batch_size=4, epochs=3, trainer={"max_steps": -1}), 9),
    ],
)
def test_steps_of_a_fine_tuning(rows: int, train: TrainConfig, steps: int) -> None:
    assert train.steps(rows) == steps
    assert (few_steps(rows, train) is None) == (steps >= FEW_STEPS)


def test_results_hold_every_arm_with_every_number(whole: tuple[Path, Path]) -> None:
    _, path = whole
    arms = json.loads((path / "results.json").read_text())["arms"]
    assert [(arm["arm"], arm["ratio"]) for arm in arms] == [
        ("original", None),
        ("tokenskip", 1.0),
        ("tokenskip", 0.5),
        ("prompt_be_concise", None),
        ("marker_only", 0.5),
        ("truncation", 0.5),
        ("truncation_forced", 0.5),
        ("random", 1.0),
        ("random", 0.5),
    ]
    keys = {
        "arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean", "cot_tokens_median",
        "achieved_ratio", "p_value", "latency_s",
    }  # fmt: skip
    for arm in arms:
        assert keys <= arm.keys()
        assert arm["n"] == 10
        assert 0 <= arm["accuracy_low"] <= arm["accuracy"] <= arm["accuracy_high"] <= 1
    by_name = {(arm["arm"], arm["ratio"]): arm for arm in arms}
    assert by_name["original", None]["accuracy"] == 0.8  # of 100 ... 109, 100 is wrong and 105 cut off
    assert by_name["tokenskip", 0.5]["achieved_ratio"] < by_name["tokenskip", 1.0]["achieved_ratio"]
    assert by_name["truncation", 0.5]["accuracy"] < by_name["truncation_forced", 0.5]["accuracy"]


def test_only_lora_weights_are_trained_and_without_them_the_base_is_back(
    whole: tuple[Path, Path], model_folder: Path
) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    adapter = whole[1] / "adapter"
    weights = load_file(adapter / "adapter_model.safetensors")
    assert weights
    assert all(".lora_" in name for name in weights)
    assert any(value.abs().sum() > 0 for name, value in weights.items() if "lora_B" in name)
    ids = torch.arange(4, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    with torch.no_grad():
        expected = base(ids).logits
        adapted = PeftModel.from_pretrained(base, str(adapter)).eval()
        assert not torch.equal(adapted(ids).logits, expected)
        with adapted.disable_adapter():
            assert torch.equal(adapted(ids).logits, expected)


def test_a_finished_run_is_finished(whole: tuple[Path, Path]) -> None:
    recipe_file, path = whole
    names = [str(file.relative_to(path)) for file in path.rglob("*.jsonl")]  # timings too: nothing is computed again
    before = contents(path, *names)
    run(path, recipe_file)
    assert contents(path, *names) == before


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(whole: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    """In-process, so many stops cost little; the slow test below kills a real process."""
    recipe_file, path = whole
    rng = random.Random(seed)
    stops = 0
    for _ in range(20):
        try:
            run(tmp_path, recipe_file, Killing(rng.randrange(4, 40)))
            break
        except Kill:
            stops += 1
            for name in EQUAL[:4]:  # what a kill in the middle of a write leaves
                file = tmp_path / name
                if file.exists() and rng.random() < 0.5 and not (tmp_path / "adapter").exists():
                    size = file.stat().st_size
                    os.truncate(file, max(0, size - rng.randrange(1, 200)))
    else:
        run(tmp_path, recipe_file)
    assert stops
    assert contents(tmp_path, *EQUAL, ADAPTER) == contents(path, *EQUAL, ADAPTER)
    evaluations = sorted(file.name for file in (path / "eval").glob("*.jsonl") if file.name != "timings.jsonl")
    for name in evaluations:
        assert (tmp_path / "eval" / name).read_bytes() == (path / "eval" / name).read_bytes()


def test_a_half_written_checkpoint_is_left_out(whole: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = whole
    rows = contents(path, *EQUAL)
    for name, data in rows.items():
        (tmp_path / name).write_bytes(data)
    config = load_recipe(recipe_file, ["evaluate.arms=[original]"])
    with pytest.raises(Kill), pipeline.Run(tmp_path, config, Killing(5)) as a_run:
        pipeline.train(a_run)
    whole_ones = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert whole_ones
    torn = tmp_path / "checkpoints" / "checkpoint-99"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    with pipeline.Run(tmp_path, config) as a_run:
        pipeline.train(a_run)
    assert (tmp_path / ADAPTER).read_bytes() == (path / ADAPTER).read_bytes()


def test_stage_by_stage_is_the_same_as_the_whole_run(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_file, path = whole

    def tokenskip(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["tokenskip", *map(str, arguments)])
        cli.main()
        return capsys.readouterr().out

    assert "generate: done" in tokenskip("generate", tmp_path, "--recipe", recipe_file)
    for stage in ("grade", "score", "prune"):
        assert f"{stage}: done, see {tmp_path}" in tokenskip(stage, tmp_path)
    assert contents(tmp_path, *EQUAL) == contents(path, *EQUAL)
    shown = tokenskip("report", path)
    assert "tiny: 10 problems" in shown
    assert f"report: {path / 'report.html'}" in shown


def test_asking_a_finished_adapter(
    whole: tuple[Path, Path], model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = whole[1] / "adapter"
    ask("Tom has 3 apples.", "0.50", str(model_folder), adapter, ["generate.max_new_tokens=12"])
    shown = capsys.readouterr().out
    assert "original" in shown
    assert "ratio 0.5" in shown
    assert "CoT tokens (" in shown


def test_an_adapter_beside_a_model_takes_the_defaults(
    whole: tuple[Path, Path], model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`MODEL/adapter`: the config.json above it is the model's, not a run's."""
    shutil.copytree(model_folder, tmp_path / "model")
    shutil.copytree(whole[1] / "adapter", tmp_path / "model" / "adapter")
    ask("Tom has 3 apples.", 0.5, str(model_folder), tmp_path / "model" / "adapter", ["generate.max_new_tokens=8"])
    assert "ratio 0.5" in capsys.readouterr().out
    (tmp_path / "model" / "config.json").write_text('{"neither": "nor"}')
    with pytest.raises(RunError, match="was not written by tokenskip"):
        ask("Tom?", 0.5, str(model_folder), tmp_path / "model" / "adapter", [])


def test_shared_words_are_those_of_the_short_chain() -> None:
    text, short = "Well, Tom has 3 apples, so 3 + 4 = 7.", "Tom has 3 3 + 4 = 7."
    kept = shared_words(text, short)
    assert " ".join(text[start:end] for start, end in kept) == short
    assert shared_words("a b", "c") == []


def test_nothing_correct_is_one_line_and_everything_is_kept(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, generate={"options": {"wrong": True}})
    with pytest.raises(StageError, match=r"^0 of 24 trajectories are correct: nothing to train on \(21 inc"):
        run(tmp_path / "run", recipe_file)
    assert len(list(read_rows(tmp_path / "run" / "trajectories.jsonl"))) == 24
    assert not (tmp_path / "run" / "scores.jsonl").exists()


def test_corpus_cut_and_full_fine_tuning(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(
        tmp_path,
        model_folder,
        prune={"cut": "corpus", "ratios": [0.6, 1.0]},
        score={"scorer": "random"},
        train={"method": "full", "epochs": 0.5},
        evaluate=QUICK["evaluate"],
    )
    run(tmp_path / "run", recipe_file)
    assert (tmp_path / "run" / "adapter" / "model.safetensors").exists()
    kept = [row for row in read_rows(tmp_path / "run" / "train.jsonl") if row["ratio"] == 0.6]
    assert abs(sum(row["achieved_ratio"] for row in kept) / len(kept) - 0.6) < 0.1


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, generate={"options": {"pause": 0.2}}, **QUICK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tokenskip.cli", "run", str(recipe_file), "--out", str(tmp_path / out)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    begin = time.monotonic()
    _, errors = (undisturbed := start("a")).communicate()
    assert undisturbed.returncode == 0, errors.decode()
    seconds = time.monotonic() - begin
    rng = random.Random(0)
    kills = 0
    for share in (0.55, 0.75, 0.95):
        process = start("b")
        try:
            process.communicate(timeout=seconds * share * rng.uniform(0.9, 1.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills
    _, errors = (last := start("b")).communicate()
    assert last.returncode == 0, errors.decode()
    names = (*EQUAL, ADAPTER, "eval/original.jsonl", "eval/tokenskip-0.5.jsonl", "eval/truncation_forced-0.5.jsonl")
    assert contents(tmp_path / "b", *names) == contents(tmp_path / "a", *names)
