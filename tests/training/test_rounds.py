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
from tokenskip.config import check_config, load_recipe
from tokenskip.errors import RunError, StageError
from tokenskip.generation.generate import complete, repeat_in_passes
from tokenskip.storage.store import RunFolder, read_rows
from tokenskip.training import controls
from tokenskip.types import Completion, Problem, Prompt, Sampling

EVALUATE = {"arms": ["original", "tokenskip"], "ratios": [0.8, 1.0], "latency_samples": 0}
CANDIDATES = {
    "sources": {"on_policy": {"rounds": 2}, "prune": {}},
    "prefer": "listed",
    "tolerance": 0.1,
}
WEIGHTS = "adapter/adapter_model.safetensors"
FIRST = ("completions", "trajectories", "scores", "pruned", "train")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    """(recipe, folder) of a run with two rounds."""
    folder = tmp_path_factory.mktemp("rounds")
    recipe_file = recipe(folder, model_folder, evaluate=EVALUATE, candidates=CANDIDATES)
    run(folder / "run", recipe_file)
    return recipe_file, folder / "run"


def run(path: Path, recipe_file: Path, *overrides: str, progress: Any = None) -> None:
    with pipeline.Run(path, load_recipe(recipe_file, overrides), progress) as a_run:
        pipeline.run(a_run)


def before_the_rounds(path: Path, target: Path) -> None:
    """The finished run's files as they were before its first round."""
    for name in FIRST:
        shutil.copy(path / f"{name}.jsonl", target)
    shutil.copytree(path / "round-0" / "adapter", target / "adapter")


def test_rounds_train_on_the_models_own_chains(whole: tuple[Path, Path]) -> None:
    _, path = whole
    rows = list(read_rows(path / "round-1" / "train.jsonl"))
    written = {
        row["id"]: {one["output"] for one in row["candidates"] if not one["dropped"]}
        for row in read_rows(path / "round-1" / "candidates" / "on_policy.jsonl")
    }
    assert list(written) == [f"p{number}" for number in range(1, 25)], "row i belongs to row i of completions.jsonl"
    assert sum(map(bool, written.values())) == 17, "three of 24 have no length to compare with, four are always wrong"
    own = [row for row in rows if row.get("source") == "on_policy"]
    assert own
    for row in own:
        assert row["completion"][0]["content"] in written[row["id"]]
        assert abs(row["achieved_ratio"] - row["ratio"]) <= 0.1
        assert row["chat_template_kwargs"] == {"compression_ratio": str(row["ratio"])}
    covered = {(row["id"], row["ratio"]) for row in own}
    pruned = [row for row in rows if row.get("source") == "prune"]
    assert pruned, "what the round has nothing for, the other sources fill"
    assert not covered & {(row["id"], row["ratio"]) for row in pruned}, "the source listed first goes first"
    assert all("source" not in row for row in rows if row["ratio"] == 1)


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
    assert [(one["round"], one["arm"]) for one in results["rounds"]] == [(1, "tokenskip_round_1"), (2, "tokenskip")]
    for one in results["rounds"]:
        rows = list(read_rows(path / f"round-{one['round']}" / "train.jsonl"))
        assert one["train_tokens"] == sum(row["n_cot_tokens"] for row in rows)
        assert one["kept"] == sum(row.get("source") == "on_policy" for row in rows) > 0
        assert {"near", "kept", "accuracy", "achieved_ratio", "ratio_error"} <= one["by_ratio"]["0.8"].keys()
    assert {source["source"] for source in results["pool"]["sources"]} == {"prune", "on_policy"}


def test_the_second_round_chooses_from_both(whole: tuple[Path, Path]) -> None:
    _, path = whole
    infos = [json.loads((path / f"round-{k}" / "candidates.json").read_text()) for k in (1, 2)]
    first, second = (info["sources"]["on_policy"]["candidates"] for info in infos)
    assert (first, second) == (42, 84)


@pytest.mark.parametrize("stop", [9, 23, 31])
def test_killed_rounds_go_on_to_the_same_bytes(whole: tuple[Path, Path], tmp_path: Path, stop: int) -> None:
    recipe_file, path = whole
    before_the_rounds(path, tmp_path)
    config = load_recipe(recipe_file)
    with pytest.raises(Kill), pipeline.Run(tmp_path, config, Killing(stop)) as a_run:
        pipeline.rounds(a_run)
    written = tmp_path / "round-1" / "candidates" / "on_policy.jsonl"
    if not (tmp_path / "round-1" / "adapter").exists():
        written.write_bytes(written.read_bytes()[:-40])
    for _ in range(2):  # the second time there is nothing to do
        with pipeline.Run(tmp_path, config) as a_run:
            pipeline.rounds(a_run)
    files = ("candidates/on_policy.jsonl", "train.jsonl", "candidates.json", WEIGHTS)
    names = [f"round-{k}/{name}" for k in (1, 2) for name in files]
    for name in (*names, WEIGHTS, f"round-0/{WEIGHTS}"):
        assert (tmp_path / name).read_bytes() == (path / name).read_bytes(), name


def test_rounds_come_before_the_evaluation(whole: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = whole
    before_the_rounds(path, tmp_path)
    (tmp_path / "eval").mkdir()
    shutil.copy(path / "eval" / "tokenskip_round_0-0.8.jsonl", tmp_path / "eval" / "tokenskip-0.8.jsonl")
    message = "evaluated with its first adapter already, and rounds replace it: remove its"
    with pipeline.Run(tmp_path, load_recipe(recipe_file)) as a_run, pytest.raises(StageError, match=message):
        pipeline.rounds(a_run)


@pytest.mark.slow
def test_the_longer_control_is_trained_beside_rounds(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, evaluate=EVALUATE)
    rounds = "candidates={sources: {on_policy: {rounds: 1}, prune: {}}, prefer: listed, tolerance: 0.1}"
    arms = "evaluate.arms=[original,tokenskip,tokenskip_longer]"
    run(tmp_path / "run", recipe_file, rounds, arms)
    shutil.rmtree(tmp_path / "run" / "control-longer" / "adapter")
    run(tmp_path / "run", recipe_file, rounds, arms)  # as after a stop: the folders inside can be read again
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    assert names == ["original", "tokenskip", "tokenskip_longer", "tokenskip_round_0"]
    longer = json.loads((tmp_path / "run" / "control-longer" / "config.json").read_text())["config"]["train"]["epochs"]
    tokens = sum(row["n_cot_tokens"] for row in read_rows(tmp_path / "run" / "train.jsonl"))
    assert longer == pytest.approx(1 + results["rounds"][0]["train_tokens"] / tokens, abs=1e-3)
    with pytest.raises(RunError, match=r"candidates\.sources\.on_policy\.rounds: "):
        run(tmp_path / "run", recipe_file, rounds.replace("rounds: 1", "rounds: 2"), arms)


def test_the_longer_control_is_longer_also_where_the_steps_are_fixed(tmp_path: Path, monkeypatch: Any) -> None:
    settings = {
        "train": {"epochs": 2, "trainer": {"max_steps": 100}},
        "candidates": {"sources": {"prune": {}, "on_policy": {"rounds": 1}}},
    }
    config = check_config(settings, "test")
    info = {"train_tokens": 5, "sources": {}, "rows": {}, "missing": {}}
    for name, row in (("train.jsonl", {"n_cot_tokens": 10}), ("round-1/candidates.json", info)):
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
    before_the_rounds(path, tmp_path)
    config = load_recipe(recipe_file, ["candidates.tolerance=0.000001", "prune.ratios=[0.1234, 1.0]"])
    for name in ("pruned", "train"):
        (tmp_path / f"{name}.jsonl").unlink()
    shutil.rmtree(tmp_path / "adapter")
    with pipeline.Run(tmp_path, config) as a_run:
        pipeline.prune(a_run)
        pipeline.train(a_run)
        with pytest.raises(
            StageError, match=r"^no candidate is within 1e-06 of any ratio \(prune: \d+ right of \d+, on"
        ):
            pipeline.rounds(a_run)


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
