"""Ray and the local engine write the same bytes; a worker that dies loses and doubles nothing.

The pool's own logic (order, backpressure, errors) is tested on a stand-in for Ray that finishes windows in any order,
quickly; the slow tests below run a real local cluster of several processes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import EngineConfig, load_recipe
from tokenskip.engine import RayPool, check_engine
from tokenskip.errors import BackendError, ConfigError, StageError
from tokenskip.generation.generate import answer, one_by_one
from tokenskip.storage.store import read_rows
from tokenskip.types import Completion, Prompt, Sampling


class FakeRay:
    """Runs a call when it is waited for, and finishes calls in a random order."""

    exceptions = SimpleNamespace(RayTaskError=type("TaskError", (Exception,), {}), RayError=type("E", (Exception,), {}))

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.most = 0

    def put(self, value: Any) -> Any:
        return value

    def wait(self, refs: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(refs))
        return [self.rng.choice(refs)], []

    def get(self, ref: Any) -> Any:
        _stage, make, window = ref.call
        return make(None)(window)


class Ref:
    """One call; told apart by identity, as Ray's are by their ids."""

    def __init__(self, *call: Any) -> None:
        self.call = call


def pool_on(monkeypatch: pytest.MonkeyPatch, workers: int, seed: int = 0) -> tuple[RayPool, FakeRay]:
    fake = FakeRay(seed)
    monkeypatch.setitem(sys.modules, "ray", fake)
    pool = RayPool(EngineConfig(name="ray", workers=workers), lambda: None)
    pool.actors = [SimpleNamespace(run=SimpleNamespace(remote=Ref)) for _ in range(workers)]
    monkeypatch.setattr(pool, "_start", lambda: fake)
    return pool, fake


def doubling(run: Any) -> Any:
    return lambda window: [{"n": 2 * n} for n in window]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 40])
def test_rows_come_back_in_order_whoever_is_first(monkeypatch: pytest.MonkeyPatch, workers: int, n: int) -> None:
    drawn = 0

    def windows() -> Iterator[Sequence[int]]:
        nonlocal drawn
        for i in range(n):
            drawn += 1
            yield [3 * i, 3 * i + 1, 3 * i + 2][: 1 if i == n - 1 else 3]

    for seed in range(5):
        pool, fake = pool_on(monkeypatch, workers, seed)
        given = list(windows())
        drawn = 0
        got = []
        for rows in pool.map(doubling, windows()):
            got.append(rows)
            assert drawn - len(got) <= 4 * workers  # what is read ahead is bounded
        assert got == [[{"n": 2 * k} for k in window] for window in given]
        assert fake.most <= workers


def test_without_windows_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RayPool(EngineConfig(name="ray"), lambda: None)
    monkeypatch.setattr(pool, "_start", lambda: pytest.fail("started"))
    assert list(pool.map(doubling, iter([]))) == []
    pool.close()


def test_what_the_work_raises_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, fake = pool_on(monkeypatch, 1)
    wrapped = fake.exceptions.RayTaskError("a long traceback")
    wrapped.cause = StageError("train first")

    def failing(ref: Any) -> None:
        raise wrapped

    monkeypatch.setattr(fake, "get", failing)
    with pytest.raises(StageError, match=r"^train first$"):
        list(pool.map(doubling, [[1]]))

    def lost(ref: Any) -> None:
        raise fake.exceptions.RayError("the actor died\nfor the fourth time")

    monkeypatch.setattr(fake, "get", lost)
    with pytest.raises(BackendError, match=r"lost a worker for good \(the actor died for the fourth time\).*same comm"):
        list(pool.map(doubling, [[1]]))


def test_the_engine_is_named_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_recipe(None).engine.name == "local"
    assert load_recipe(None, ["engine=ray"]).engine.name == "ray"
    for settings in (["engine=ray", "engine.workers=3"], ["engine.workers=3", "engine=ray"]):
        engine = load_recipe(None, settings).engine
        assert (engine.name, engine.workers) == ("ray", 3)
    assert load_recipe(None, ["engine.workers=3", "engine.name=ray"]).engine.name == "ray"
    for order in (1, -1):  # the same holds for the other sections with a short form
        settings = ["grpo=200", "grpo.learning_rate=5e-5", "calibrate=300", "calibrate.clamp=true"][::order]
        config = load_recipe(None, settings)
        assert (config.grpo.steps, config.grpo.learning_rate) == (200, 5e-5)
        assert (config.calibrate.n, config.calibrate.clamp) == (300, True)
    for wrong in ("engine=spark", "engine.workers=0", "engine.gpus_per_worker=-1", "engine.cpus_per_worker=0"):
        with pytest.raises(ConfigError, match="engine"):
            load_recipe(None, [wrong])
    monkeypatch.setattr("tokenskip.engine.find_spec", lambda name: None)
    check_engine(EngineConfig())
    with pytest.raises(ConfigError, match=r"needs the package 'ray': pip install 'ray>=2\.40'"):
        check_engine(EngineConfig(name="ray"))


class Fussy:
    """A backend that raises over the prompts that hold 'bad', and over everything when `broken`."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.calls = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.calls += 1
        if self.broken or any("bad" in prompt.messages[0]["content"] for prompt in prompts):
            raise RuntimeError("cannot do this")
        return [Completion(text=prompt.messages[0]["content"].upper(), n_tokens=1) for prompt in prompts]

    def close(self) -> None: ...


def prompts_of(*texts: str) -> list[Prompt]:
    return [Prompt(messages=({"role": "user", "content": text},)) for text in texts]


def test_one_bad_row_is_a_record_and_the_others_are_done() -> None:
    done = answer(Fussy(), prompts_of("a", "bad", "c"), Sampling())
    assert [one.text for one in done] == ["A", "", "C"]
    assert (done[1].finish, done[1].error) == ("error", "RuntimeError: cannot do this")
    fine = Fussy()
    assert len(answer(fine, prompts_of("a", "b"), Sampling())) == 2
    assert fine.calls == 1
    assert answer(Fussy(), prompts_of("bad"), Sampling())[0].finish == "error"
    assert answer(Fussy(broken=True), [], Sampling()) == []


def test_what_fails_for_every_row_is_raised_and_mistakes_are_never_records() -> None:
    with pytest.raises(RuntimeError, match="cannot do this"):
        answer(Fussy(broken=True), prompts_of("a", "b"), Sampling())

    def mistaken(items: Sequence[str]) -> list[str]:
        raise BackendError("no server at localhost")

    for items in (["a"], ["a", "b"]):
        with pytest.raises(BackendError):
            one_by_one(mistaken, items, str)


NAMES = ("completions.jsonl", "trajectories.jsonl", "scores.jsonl", "pruned.jsonl", "train.jsonl")
ARMS = {"arms": ["original", "tokenskip", "truncation_forced"], "ratios": [0.5], "latency_samples": 1}


def run_on(engine: str, folder: Path, recipe_file: Path, *overrides: str) -> None:
    config = load_recipe(recipe_file, [f"engine={engine}", "engine.address=local", *overrides])
    with pipeline.Run(folder, config) as run:
        pipeline.run(run)


def outputs(folder: Path) -> dict[str, bytes]:
    names = [*NAMES, "adapter/adapter_model.safetensors"]
    names += [f"eval/{file.name}" for file in sorted((folder / "eval").glob("*.jsonl")) if file.stem != "timings"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the kernel's list of sockets")
def test_a_cluster_of_our_own_listens_to_this_machine_only(tmp_path: Path) -> None:
    """And leaves signals and reports as they were: a termination is ours to answer, nothing is sent."""
    pytest.importorskip("ray")

    def listening() -> set[str]:
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        return {line[1] for line in lines if line[3] == "0A"}

    before, handler = listening(), signal.getsignal(signal.SIGTERM)
    pool = RayPool(EngineConfig(name="ray", workers=1, address="local"), lambda: None)
    try:
        pool._start()
        opened = listening() - before
        assert opened
        loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
        assert [one for one in opened if not one.startswith(loopback)] == []
        assert signal.getsignal(signal.SIGTERM) is handler
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_writes_the_same_bytes_and_survives_a_dead_worker(tmp_path: Path, model_folder: Path) -> None:
    """Two workers on a real cluster, one of them killed (-9) in the middle of every stage that takes long enough."""
    pytest.importorskip("ray")
    recipe_file = recipe(
        tmp_path, model_folder, evaluate=ARMS, generate={"options": {"pause": 0.3}}, score={"scorer": "surprisal"}
    )
    run_on("local", tmp_path / "local", recipe_file)
    config = load_recipe(recipe_file, ["engine=ray", "engine.workers=2", "engine.address=local"])
    killed: list[int] = []
    stop = threading.Event()

    with pipeline.Run(tmp_path / "ray", config) as run:

        def kill_some() -> None:
            import ray

            victims = 0
            while not stop.wait(0.2) and victims < 2:
                pool = run._pool
                rows = tmp_path / "ray" / ("completions.jsonl" if victims == 0 else "eval/original.jsonl")
                enough = rows.exists() and rows.read_bytes().count(b"\n") >= 4
                if pool and pool.actors and enough:
                    process = ray.get(pool.actors[victims % 2].process.remote())
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    victims += 1

        thread = threading.Thread(target=kill_some, daemon=True)
        thread.start()
        pipeline.run(run)
        stop.set()
        thread.join()
    assert len(killed) == 2
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "local")
    ids = [row["id"] for row in read_rows(tmp_path / "ray" / "completions.jsonl")]
    assert len(ids) == len(set(ids)) == 24
    timed = read_rows(tmp_path / "ray" / "eval" / "timings.jsonl")
    assert {row["arm"] for row in timed} == {"original", "tokenskip"}
    run_on("local", tmp_path / "ray", recipe_file)  # the engine may change: it is finished for the other one, too
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "local")


@pytest.mark.slow
def test_ray_goes_on_where_it_was_stopped_and_says_what_does_not_fit(tmp_path: Path, model_folder: Path) -> None:
    pytest.importorskip("ray")
    recipe_file = recipe(tmp_path, model_folder, evaluate=ARMS)
    config = load_recipe(recipe_file, ["engine=ray", "engine.address=local"])
    for target in ("a", "b"):
        with pipeline.Run(tmp_path / target, config) as run:
            pipeline.generate(run)
        if target == "b":
            whole = (tmp_path / "a" / "completions.jsonl").read_bytes()
            (tmp_path / "b" / "completions.jsonl").write_bytes(whole[: len(whole) // 2])
            with pipeline.Run(tmp_path / "b", config) as run:
                pipeline.generate(run)
            assert (tmp_path / "b" / "completions.jsonl").read_bytes() == whole
    with (
        pytest.raises(ConfigError, match="1 workers of 1 GPU do not fit a cluster with 0 GPU"),
        pipeline.Run(tmp_path / "c", load_recipe(recipe_file, ["engine=ray", "engine.gpus_per_worker=1"])) as run,
    ):
        pipeline.generate(run)
