"""Data does not consent to code: what a recipe or a run folder names runs only when this user says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenskip.commands.console import read_recipe, run_stage
from tokenskip.config import RunConfig, check_config, load_recipe
from tokenskip.errors import ConfigError, TokenskipError
from tokenskip.plugins import BACKENDS, SCORERS, TASKS, check_backend, check_scorer, load
from tokenskip.serving.export import export
from tokenskip.serving.merge import find_adapter
from tokenskip.storage.store import RunFolder, run_config
from tokenskip.trust import check_servers, servers

PLACES = {
    "generate.backend": {"generate": {"backend": "canary:Anything"}},
    "score.scorer": {"score": {"scorer": "canary:Anything"}},
    "task.name": {"task": {"name": "canary:Anything"}},
    "task.options.answer_fn": {"task": {"name": "jsonl", "options": {"answer_fn": "canary:Anything"}}},
    "generate.options.worker_cls": {"generate": {"backend": "vllm", "options": {"worker_cls": "canary.Anything"}}},
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the module `canary` has been imported."""
    mark = tmp_path / "imported"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nfrom os import system\nclass Anything: pass\n"
    code += "class Long:\n    def score(self, trajectories): return []\ndef make(): return Long()\n"
    (tmp_path / "canary.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "canary", raising=False)
    monkeypatch.delenv("TOKENSKIP_TRUST")
    return mark


def recipe(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return folder / "r.yaml"


@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_and_a_run_folder_import_nothing(place: str, canary: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{place} would run canary.* TOKENSKIP_TRUST=canary"):
        load_recipe(recipe(tmp_path, PLACES[place]))
    with RunFolder(tmp_path / "run", check_config(PLACES[place], "test")):
        pass
    with pytest.raises(ConfigError, match=f"{place} would run canary"):
        run_config(tmp_path / "run")
    assert not canary.exists()


def test_what_the_user_says_counts(canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = recipe(tmp_path, PLACES["score.scorer"])
    assert load_recipe(file, ["score.scorer=canary:Long"]).score.scorer == "canary:Long"
    assert load_recipe(file, ["score.scorer=random"]).score.scorer == "random"
    with pytest.raises(ConfigError, match=r"score\.scorer would run"):
        load_recipe(file, ["score.model=embedded"])
    for trusted in ("canary", "other, canary ", "canary.sub,canary"):
        monkeypatch.setenv("TOKENSKIP_TRUST", trusted)
        assert load_recipe(file).score.scorer == "canary:Anything"
    for other in ("canar", "canary2", "", "*"):
        monkeypatch.setenv("TOKENSKIP_TRUST", other)
        with pytest.raises(ConfigError):
            load_recipe(file)


@pytest.mark.parametrize(
    "name",
    [
        *("os:system", "subprocess:run", "subprocess:Popen", "builtins:exec", "shutil:rmtree", "pathlib:Path"),
        *("canary:Anything", "canary:system", "canary:make", "tokenskip.storage.store:read_rows", "json:loads"),
        *("tokenskip.scorers._causal:torch", "tokenskip.backends.hf:zlib", "tokenskip.tasks._base:is_local"),
    ],
)
def test_only_classes_of_the_kind_are_plugins(name: str, canary: Path) -> None:
    for check, config in (
        (check_backend, RunConfig.model_validate({"generate": {"backend": name}})),
        (check_scorer, RunConfig.model_validate({"score": {"scorer": name}})),
    ):
        with pytest.raises(ConfigError):
            check(config)
    with pytest.raises(ConfigError):
        load("task", name, TASKS)


def test_every_shipped_plugin_passes() -> None:
    for kind, table in (("task", TASKS), ("scorer", SCORERS), ("backend", BACKENDS)):
        for name, target in table.items():
            if name != "vllm":
                assert load(kind, name, table) is load(kind, target, table)


def test_a_run_folder_does_not_consent_to_a_models_code(
    canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    (model / "evil.py").write_text("import canary\nfrom transformers import PreTrainedTokenizerFast as A\n")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "evil.A"]}, "tokenizer_class": "A"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    values = {"model": {"path": str(model), "trust_remote_code": True}}
    run = tmp_path / "run"
    with RunFolder(run, check_config(values, "test")):
        pass
    (run / "train.jsonl").write_text("")
    shutil.copytree(model_folder, run / "adapter")
    for call in (
        lambda: export(run, "messages", tmp_path / "out"),
        lambda: find_adapter(str(run)),
        lambda: run_config(run),
    ):
        with pytest.raises(TokenskipError, match="code that comes with the model") as refused:
            call()
        assert f"TOKENSKIP_TRUST={model}" in str(refused.value)
    assert not canary.exists()
    assert run_config(run, ["model.trust_remote_code=true"]).model.trust_remote_code
    assert load_recipe(recipe(tmp_path, values)).model.trust_remote_code, "a recipe says so itself"
    monkeypatch.setenv("TOKENSKIP_TRUST", str(model))
    assert run_config(run).model.trust_remote_code


@pytest.mark.parametrize(
    "settings",
    [
        {"generate": {"backend": "tokenskip.backends.openai:OpenAIBackend", "options": {"url": "collector.example"}}},
        {"model": {"path": "m@https://collector.example"}, "generate": {"backend": "openai"}},
        {"generate": {"backend": "openai", "options": {"url": "https://collector.example/v1"}}},
        {
            "generate": {
                "backend": "openai",
                "options": {"served": {"base": "m", "adapter": "a@https://collector.example"}},
            }
        },
        {
            "candidates": {
                "sources": {"prune": {}, "rewrite": {"server": {"url": "collector.example:80", "served": "m"}}}
            }
        },
    ],
)
def test_a_run_folder_does_not_choose_who_gets_the_key(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TOKENSKIP_TRUST", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    run = tmp_path / "run"
    with RunFolder(run, check_config(settings, "test")):
        pass
    place, _ = next(servers(run_config(run)))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-user")
    with pytest.raises(ConfigError, match=r"would send OPENAI_API_KEY to collector\.example\b") as refused:
        read_recipe(run / "config.json", [], None)
    assert f"{place} " in str(refused.value)
    assert "TOKENSKIP_TRUST=collector.example " in str(refused.value)
    with pytest.raises(ConfigError, match="would send"):
        run_stage("evaluate", run)
    read_recipe(run / "config.json", [], None, asks=False)
    read_recipe(recipe(tmp_path, settings), [], None)  # a recipe that this user names says so itself
    for variable, value in (
        ("TOKENSKIP_TRUST", "other,collector.example"),
        ("OPENAI_BASE_URL", "https://collector.example/v1"),
        ("OPENAI_API_KEY", ""),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            read_recipe(run / "config.json", [], None)


@pytest.mark.parametrize("url", ["localhost:8000", "http://127.0.0.1:1", "http://[::1]:8000/v1", "http://x.localhost"])
def test_this_machine_gets_the_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-user")
    config = RunConfig.model_validate({"generate": {"backend": "openai", "options": {"url": url}}})
    assert len(list(servers(config))) == 1
    check_servers(config, [], "test")
