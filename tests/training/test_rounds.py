"""On-policy rounds: what is kept of the samples, and that killed, repeated and late rounds end in the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_runs import recipe
from test_pipeline import Kill, Killing

from tokenskip import pipeline
from tokenskip.config import RoundsConfig, check_config, load_recipe
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.generation.generate import complete, repeat_in_passes
from tokenskip.storage.store import RunFolder, read_rows
from tokenskip.training import controls
from tokenskip.training.rounds import choose
from tokenskip.types import Completion, Problem, Prompt, Sampling, Trajectory

EVALUATE = {"arms": ["original", "tokenskip"], "ratios": [0.8, 1.0], "latency_samples": 0}
ROUNDS = {"count": 2, "tolerance": 0.1}
WEIGHTS = "adapter/adapter_model.safetensors"


def sample(id: str, ratio: float, tokens: int, *, wrong: bool = False, text: str = "") -> Trajectory:
    one = Trajectory(id=id, question="q", gold="1", ratio=ratio, n_cot_tokens=tokens, output=text or f"{tokens}")
    return one.drop("incorrect") if wrong else one


def picked(samples: list[Trajectory], **settings: Any) -> tuple[dict[tuple[str, float], list[str]], dict[str, Any]]:
    lengths = {"p": 100.0, "q": 200.0}
    chosen, info = choose(iter(samples), lengths, [0.8, 0.5], RoundsConfig(count=1, **settings))
    return {key: [one.output for one in ones] for key, ones in chosen.items()}, info


def test_right_and_near_the_ratio_is_kept() -> None:
    samples = [
        sample("p", 0.8, 83),
        sample("p", 0.5, 56),  # .06 too long
        sample("q", 0.8, 160, wrong=True),
        sample("q", 0.5, 96),
    ]
    chosen, info = picked(samples)
    assert chosen == {("p", 0.8): ["83"], ("q", 0.5): ["96"]}
    assert {key: info[key] for key in ("sampled", "correct", "near", "kept")} == {
        "sampled": 4, "correct": 3, "near": 2, "kept": 2,
    }  # fmt: skip
    assert info["by_ratio"]["0.5"] == {"sampled": 2, "correct": 2, "near": 1, "kept": 1, "achieved_ratio_correct": 0.52}


def test_the_nearest_come_first_equal_texts_count_once() -> None:
    samples = [sample("p", 0.8, tokens) for tokens in (84, 76, 81, 81, 83)]
    assert picked(samples)[0] == {("p", 0.8): ["81"]}
    assert picked(samples, keep=3)[0] == {("p", 0.8): ["81", "83", "84"]}, "84 was sampled before 76, as far away"
    assert picked(samples, keep=9)[1]["kept"] == 4


def test_a_chain_may_count_for_the_ratio_it_achieved() -> None:
    samples = [sample("p", 0.5, 78), sample("q", 0.5, 130)]
    assert picked(samples)[0] == {}
    chosen, info = picked(samples, label="achieved")
    assert chosen == {("p", 0.8): ["78"]}
    assert info["by_ratio"]["0.5"]["sampled"] == 2
    assert info["by_ratio"]["0.8"]["kept"] == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    """(recipe, folder) of a run with two rounds, the last one adopted."""
    folder = tmp_path_factory.mktemp("rounds")
    recipe_file = recipe(folder, model_folder, evaluate=EVALUATE, rounds=ROUNDS)
    run(folder / "run", recipe_file)
    return recipe_file, folder / "run"


def run(path: Path, recipe_file: Path, *overrides: str, progress: Any = None) -> None:
    with pipeline.Run(path, load_recipe(recipe_file, overrides), progress) as a_run:
        pipeline.run(a_run)


def rows_by_origin(path: Path) -> tuple[list[Any], list[Any]]:
    rows = list(read_rows(path / "train.jsonl"))
    return [row for row in rows if "round" not in row], [row for row in rows if "round" in row]


def test_rounds_train_on_the_models_own_chains(whole: tuple[Path, Path]) -> None:
    _, path = whole
    old, new = rows_by_origin(path / "round-1")
    samples = {(row["id"], row["ratio"]): row for row in read_rows(path / "round-1" / "samples.jsonl")}
    assert len(samples) == 21 * 2  # of 24 problems three were cut off: they have no length to compare with
    assert new
    assert all(abs(row["achieved_ratio"] - row["ratio"]) <= 0.1 for row in new)
    for row in new:
        taken = samples[row["id"], row["ratio"]]
        assert taken["dropped"] is None
        assert row["completion"][0]["content"] == taken["output"]
        assert row["chat_template_kwargs"] == {"compression_ratio": str(row["ratio"])}
    covered = {(row["id"], row["ratio"]) for row in new}
    own = list(read_rows(path / "train.jsonl"))
    assert old == [row for row in own if row["ratio"] == 1 or (row["id"], row["ratio"]) not in covered], "fill"


def test_the_last_round_is_the_adapter_and_every_round_is_measured(whole: tuple[Path, Path]) -> None:
    _, path = whole
    first, last = (path / f"round-{k}" / WEIGHTS for k in (0, 2))
    assert (path / WEIGHTS).read_bytes() == last.read_bytes()
    assert first.read_bytes() != last.read_bytes()
    results = json.loads((path / "results.json").read_text())
    assert [(arm["arm"], arm["ratio"]) for arm in results["arms"]] == [
        ("original", None),
        *((name, ratio) for name in ("tokenskip", "tokenskip_round_0", "tokenskip_round_1") for ratio in (1.0, 0.8)),
    ]
    assert [info["round"] for info in results["rounds"]] == [1, 2]
    assert all(info["train_tokens"] > 0 and info["kept"] > 0 for info in results["rounds"])
    measured = results["rounds"][0]["by_ratio"]["0.8"]
    assert {"accuracy", "achieved_ratio", "ratio_error"} <= measured.keys()


@pytest.mark.parametrize("data", ["replace", "join"])
def test_round_data_replace_or_join(tmp_path: Path, whole: tuple[Path, Path], data: str) -> None:
    recipe_file, path = whole
    for name in ("completions", "trajectories", "scores", "pruned", "train"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    shutil.copytree(path / "round-0" / "adapter", tmp_path / "adapter")
    config = load_recipe(recipe_file, ["rounds.count=1", f"rounds.data={data}"])
    with pipeline.Run(tmp_path, config) as a_run:
        pipeline.rounds(a_run)
    old, new = rows_by_origin(tmp_path / "round-1")
    parent = list(read_rows(path / "train.jsonl"))
    assert len([row for row in old if row["ratio"] < 1]) == (
        0 if data == "replace" else len([row for row in parent if row["ratio"] < 1])
    )
    assert len([row for row in old if row["ratio"] == 1]) == 17
    assert new


@pytest.mark.parametrize("stop", [9, 23, 31])
def test_killed_rounds_go_on_to_the_same_bytes(whole: tuple[Path, Path], tmp_path: Path, stop: int) -> None:
    recipe_file, path = whole
    for name in ("completions", "trajectories", "scores", "pruned", "train"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    shutil.copytree(path / "round-0" / "adapter", tmp_path / "adapter")
    config = load_recipe(recipe_file)
    with pytest.raises(Kill), pipeline.Run(tmp_path, config, Killing(stop)) as a_run:
        pipeline.rounds(a_run)
    samples = tmp_path / "round-1" / "samples.jsonl"
    if not (tmp_path / "round-1" / "adapter").exists():
        samples.write_bytes(samples.read_bytes()[:-40])
    for _ in range(2):  # the second time there is nothing to do
        with pipeline.Run(tmp_path, config) as a_run:
            pipeline.rounds(a_run)
    names = [f"round-{k}/{name}" for k in (1, 2) for name in ("samples.jsonl", "train.jsonl", "round.json", WEIGHTS)]
    for name in (*names, WEIGHTS, f"round-0/{WEIGHTS}"):
        assert (tmp_path / name).read_bytes() == (path / name).read_bytes(), name


def test_a_run_that_was_evaluated_gets_rounds_beside_it(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, evaluate=EVALUATE)
    run(tmp_path / "run", recipe_file)
    before = (tmp_path / "run" / WEIGHTS).read_bytes()
    with pytest.raises(StageError, match=r"evaluated with its first adapter already: --set rounds\.adopt=false"):
        run(tmp_path / "run", recipe_file, "rounds={count: 1, tolerance: 0.1}")
    late = "rounds={count: 1, tolerance: 0.1, adopt: false}"
    arms = "evaluate.arms=[original,tokenskip,tokenskip_longer]"
    run(tmp_path / "run", recipe_file, late, arms)
    shutil.rmtree(tmp_path / "run" / "control-longer" / "adapter")
    run(tmp_path / "run", recipe_file, late, arms)  # as after a stop: the folders inside can be read again
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == before
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    assert names == ["original", "tokenskip", "tokenskip_longer", "tokenskip_round_1"]
    longer = json.loads((tmp_path / "run" / "control-longer" / "config.json").read_text())["config"]["train"]["epochs"]
    tokens = sum(row["n_cot_tokens"] for row in read_rows(tmp_path / "run" / "train.jsonl"))
    assert longer == pytest.approx(1 + results["rounds"][0]["train_tokens"] / tokens, abs=1e-3)
    with pytest.raises(RunError, match=r"rounds\.tolerance: 0\.1 -> 0\.2"):
        run(tmp_path / "run", recipe_file, "rounds={count: 1, tolerance: 0.2, adopt: false}", arms)


def test_the_longer_control_is_longer_also_where_the_steps_are_fixed(tmp_path: Path, monkeypatch: Any) -> None:
    settings = {"train": {"epochs": 2, "trainer": {"max_steps": 100}}, "rounds": {"count": 1}}
    config = check_config(settings, "test")
    for name, row in (("train.jsonl", {"n_cot_tokens": 10}), ("round-1/round.json", {"train_tokens": 5})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    trained: list[Any] = []
    monkeypatch.setattr(controls, "_train", lambda _job, folder, _rows: trained.append(folder["train"]))
    folder = RunFolder(tmp_path, config)
    a_run: Any = SimpleNamespace(config=config, folder=folder, sub_folder=lambda _name, **changes: changes)
    controls.train_longer(a_run)
    assert [(one.epochs, one.trainer["max_steps"]) for one in trained] == [(3.0, 150)]


def test_nothing_near_the_ratio_is_one_line(tmp_path: Path, whole: tuple[Path, Path]) -> None:
    recipe_file, path = whole
    for name in ("completions", "trajectories", "scores", "pruned", "train"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    shutil.copytree(path / "round-0" / "adapter", tmp_path / "adapter")
    with (
        pipeline.Run(tmp_path, load_recipe(recipe_file, ["rounds={count: 1, tolerance: 0.0001}"])) as a_run,
        pytest.raises(StageError, match=r"^round 1 kept 0 of 42 chains \(34 correct\): raise rounds\.tolerance"),
    ):
        pipeline.rounds(a_run)


def test_several_samples_need_a_temperature() -> None:
    with pytest.raises(ConfigError, match=r"rounds\.samples=4 needs rounds\.temperature above 0"):
        check_config({"rounds": {"count": 1, "samples": 4}}, "recipe")
    assert check_config({"rounds": 2}, "recipe").rounds.count == 2
    with pytest.raises(ConfigError, match=r"unknown key 'rounds\.tolerence' \(did you mean 'rounds\.tolerance'"):
        check_config({"rounds": {"tolerence": 1}}, "recipe")


class Echo:
    """Answers with the seed of the call, so that equal seeds show."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [Completion(text=f"{sampling.seed} {prompt.seed}", n_tokens=1) for prompt in prompts]


def test_samples_of_one_problem_have_seeds_of_their_own() -> None:
    problems = list(repeat_in_passes(lambda: (Problem(id=id, question=id, gold="1") for id in "ab"), 3))
    samples = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [(problem.id, problem.sample) for problem in problems] == samples
    prompts = [Prompt(messages=()) for _ in problems]
    config = load_recipe(None).prompt
    done = complete(problems, prompts, Echo(), Sampling(seed=7), config, len)
    assert [(one.id, one.sample) for one in done] == samples
    assert [one.output.split()[0] for one in done] == ["7", "7", "8", "8", "9", "9"]
    own = [one.output.split()[1] for one in done]
    assert len(set(own)) == 6, "every completion has a seed of its own"
    again = complete(problems[3:], prompts[3:], Echo(), Sampling(seed=7), config, len)
    assert [one.output.split()[1] for one in again] == own[3:], "whatever else is asked for with it"
