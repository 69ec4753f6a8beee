"""From an adapter to a server that honours the ratio: merge, serve, doctor, push; and `transformers serve` for real."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import ChatServer, serving
from conftest import call, make_tokenizer
from scripted_runs import recipe

from tokenskip.backends.openai import OpenAIBackend
from tokenskip.config import ModelConfig, PromptConfig, load_recipe
from tokenskip.embedded import adapter_path, model_path
from tokenskip.models.loading import load_model, load_tokenizer
from tokenskip.pipeline import Run, run
from tokenskip.prompting.chat_template import add_ratio_control, has_ratio_control, set_effort
from tokenskip.prompting.prompts import Prompts
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.types import Sampling

QUESTION = [{"role": "user", "content": "Tom has 12 apples."}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A whole run of the tiny model on scripted chains, without the control."""
    folder = tmp_path_factory.mktemp("finished")
    arms = ["original", "tokenskip", "prompt_be_concise"]
    file = recipe(folder, model_folder, evaluate={"ratios": [0.5, 1.0], "arms": arms, "latency_samples": 0})
    with Run(folder / "run", load_recipe(file)) as a_run:
        run(a_run)
    return folder / "run"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with its adapter folded in."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "merge", "embedded", "-o", folder) == 0
    return folder


def test_a_merged_folder_is_a_plain_model(merged: Path) -> None:
    """Transformers alone loads it, its chat template knows the ratio, and its logits are the adapter's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    whole, short = (
        tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False, **kwargs)
        for kwargs in ({}, {"compression_ratio": 0.5})
    )
    assert short == whole.replace("apples.", f"apples.{tokenizer.eos_token}5555555555{tokenizer.eos_token}")
    assert not list(merged.glob("adapter*"))
    assert "embedded" not in (merged / "config.json").read_text()
    ids = torch.tensor([tokenizer(short, add_special_tokens=False)["input_ids"]])
    adapted = load_model(ModelConfig(device="cpu"), adapter_path(), fold=False)
    base = load_model(ModelConfig(device="cpu"))
    with torch.inference_mode():
        found, expected, before = (
            model(ids).logits for model in (AutoModelForCausalLM.from_pretrained(merged), adapted, base)
        )
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-1)


def test_a_run_merges_and_says_how_well(finished: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "merge", finished, "-o", tmp_path / "new" / "merged") == 0
    said = capsys.readouterr().out
    assert "merged and adapter logits agree" in said
    assert "100.00%" in said
    assert has_ratio_control(load_tokenizer(ModelConfig(path=str(tmp_path / "new" / "merged"))).chat_template)
    assert call(monkeypatch, "merge", finished, "-o", tmp_path / "new" / "merged") == 2
    assert "exists: choose another -o" in capsys.readouterr().err
    assert call(monkeypatch, "merge", finished / "eval", "-o", tmp_path / "x") == 2
    assert "neither a run folder nor an adapter" in capsys.readouterr().err
    assert call(monkeypatch, "merge", finished / "adapter", "-o", tmp_path / "x", "--base", "/no/where") == 2
    assert "no model folder /no/where" in capsys.readouterr().err


def test_a_merge_that_changes_the_model_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    import tokenskip.serving.merge

    monkeypatch.setitem(tokenskip.serving.merge.LARGEST_DIFFERENCE, "bfloat16", 1e-9)
    assert call(monkeypatch, "merge", finished, "-o", tmp_path / "merged", "--dtype", "bfloat16") == 2
    assert "merged and adapter logits differ by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_within_its_bound(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert call(monkeypatch, "merge", finished, "-o", tmp_path / "merged", "--dtype", "bfloat16") == 0
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_delimiter_of_its_own_survives_an_adapter_without_its_run(
    finished: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copytree(finished / "adapter", tmp_path / "alone")
    tokenizer = add_ratio_control(make_tokenizer(), "<|eot_id|>")
    tokenizer.save_pretrained(tmp_path / "alone")
    assert call(monkeypatch, "merge", tmp_path / "alone", "-o", tmp_path / "merged") == 0
    found = load_tokenizer(ModelConfig(path=str(tmp_path / "merged")))
    assert "<|eot_id|>0.5<|eot_id|>" in found.apply_chat_template(QUESTION, tokenize=False, compression_ratio=0.5)


def test_serve_prints_commands_with_the_template(finished: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "serve", finished, "--engine", "vllm", "--port", "8123", "--", "--dtype", "float32") == 0
    command, check = capsys.readouterr().out.splitlines()
    words = shlex.split(command)
    assert words[:2] == ["vllm", "serve"]
    assert (Path(words[2]) / "config.json").exists()
    assert Path(words[words.index("--chat-template") + 1]) == finished / "adapter" / "chat_template.jinja"
    assert words[words.index("--lora-modules") + 1] == f"tokenskip={finished / 'adapter'}"
    assert words[words.index("--max-lora-rank") + 1] == "8"  # of rank 2: the smallest that vLLM takes
    assert words[-4:] == ["--port", "8123", "--dtype", "float32"]
    assert check.endswith("tokenskip doctor http://localhost:8123 --model tokenskip")
    assert call(monkeypatch, "serve", finished) == 0
    merge, command, check = capsys.readouterr().out.splitlines()
    assert shlex.split(merge) == ["tokenskip", "merge", str(finished), "-o", str(finished / "merged")]
    assert shlex.split(command)[:3] == ["transformers", "serve", str(finished / "merged")]
    assert check.endswith(f"--model {finished / 'merged'}")
    assert call(monkeypatch, "serve", finished, "--engine", "tgi") == 2
    assert "unknown engine 'tgi': allowed are llamacpp, mlx, ollama, sglang" in capsys.readouterr().err


@pytest.fixture
def knowing() -> Iterator[ChatServer]:
    """A server whose template has the ratio control."""
    with serving(ChatServer(add_ratio_control(make_tokenizer()), lambda _: "Yes.")) as server:
        yield server


@pytest.mark.parametrize("tokenize", [True, False])
def test_doctor_says_yes(knowing: ChatServer, monkeypatch: Any, capsys: Any, tokenize: bool) -> None:
    if not tokenize:
        knowing.keeps.remove("/tokenize")
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 0
    said = capsys.readouterr().out
    assert ("/tokenize:" in said, "usage.prompt_tokens:" in said) == (tokenize, not tokenize)
    assert "yes: tiny" in said
    assert "honours compression_ratio by chat_template_kwargs (on" in said
    asked = [body for body in knowing.bodies if "reasoning_effort" not in body]
    assert len(asked) == (1 if tokenize else 4), "the words are compared with an answer of their own"


@pytest.mark.parametrize("tokenize", [True, False])
def test_doctor_says_no(knowing: ChatServer, monkeypatch: Any, capsys: Any, tokenize: bool) -> None:
    knowing.tokenizer = make_tokenizer()
    if not tokenize:
        knowing.keeps.remove("/tokenize")
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 1
    assert "no: the model's chat template ignores it: serve it with the chat_template.jinja" in capsys.readouterr().out


def test_doctor_says_what_else_is_wrong(knowing: ChatServer, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "doctor", knowing.url, "--model", "other") == 2
    assert "does not serve 'other': it serves tiny" in capsys.readouterr().err
    knowing.keeps -= {"/tokenize", "/v1/models"}
    assert call(monkeypatch, "doctor", knowing.url, "--model", "other") == 2
    assert "The model `other` does not exist" in capsys.readouterr().err
    knowing.reports_usage = False
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 1
    assert "cannot tell" in capsys.readouterr().out
    knowing.reports_usage = True
    knowing.trouble_of = lambda body: 422 if "chat_template_kwargs" in body else None
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 1
    assert "the server refuses chat_template_kwargs: HTTP 422" in capsys.readouterr().out
    knowing.trouble_of = lambda body: None
    knowing.tokenizer.chat_template = "{{ messages[0]['content'] ~ compression_ratio }}"
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 1
    assert "a ratio of 1 must be the plain prompt" in capsys.readouterr().out
    knowing.stop()
    assert call(monkeypatch, "doctor", knowing.url, "--model", "tiny") == 2
    assert "no server answers at" in capsys.readouterr().err
    for url in ("ftp://x", "http://", "not a url"):
        assert call(monkeypatch, "doctor", url, "--model", "tiny") == 2
        assert "is no server address" in capsys.readouterr().err


def test_doctor_tries_every_route(knowing: ChatServer, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The words are sent as clients send them; a route that is dropped is named, and one is enough."""
    folder = tmp_path / "model"
    assert call(monkeypatch, "merge", "embedded", "-o", folder) == 0
    assert call(monkeypatch, "effort", folder, "--map", "low=.5,medium=.7,high=1") == 0
    knowing.tokenizer.chat_template = set_effort(
        knowing.tokenizer.chat_template, {"low": 0.5, "medium": 0.7, "high": 1}
    )
    doctor = ("doctor", knowing.url, "--model", "tiny", "--run", folder)
    capsys.readouterr()

    def routes(code: int, *arguments: object) -> dict[tuple[str, str], str]:
        assert call(monkeypatch, *(arguments or doctor)) == code
        found = {}
        for line in capsys.readouterr().out.splitlines():
            if line.startswith(("chat_template_kwargs ", "reasoning_effort ")):
                name, word, verdict, *_ = (part for part in re.split(" {2,}", line) if part)
                found[name, word.split()[0]] = verdict
            else:
                found["said", line] = line
        return found

    expected = {"none": "as without", "low": "honoured", "medium": "honoured", "high": "as without"}
    found = routes(0)
    assert {word: found["reasoning_effort", word] for word in expected} == expected
    assert found["chat_template_kwargs", "compression_ratio"] == "honoured"
    assert ("said", "trained on: 0.3 to 1.0") in found
    knowing.drops = {"chat_template_kwargs"}
    found = routes(0)
    assert found["chat_template_kwargs", "compression_ratio"] == "dropped"
    assert found["reasoning_effort", "low"] == "honoured"
    assert any("by reasoning_effort (on" in line for _, line in found)
    knowing.drops = {"reasoning_effort"}
    found = routes(0)
    assert found["reasoning_effort", "low"] == "dropped"
    assert any("by chat_template_kwargs (on" in line for _, line in found)
    knowing.drops = {"reasoning_effort", "chat_template_kwargs"}
    assert routes(1)["reasoning_effort", "low"] == "dropped"
    knowing.drops = set()
    knowing.trouble_of = lambda body: 400 if "reasoning_effort" in body else None
    assert routes(0)["reasoning_effort", "low"] == "refused"
    knowing.trouble_of = lambda body: None
    knowing.tokenizer.chat_template = set_effort(knowing.tokenizer.chat_template, {"low": 0.9})
    found = routes(0, *doctor[:-2])
    assert ("said", "trained on: not known here (give the adapter by --run)") in found
    assert found["reasoning_effort", "low"] == "honoured"


def test_effort_says_what_is_wrong(finished: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "effort", finished) == 0
    assert "has no effort map" in capsys.readouterr().out
    before = (finished / "adapter" / "chat_template.jinja").read_bytes()
    for arguments, said in (
        (("--map", "low=.55"), "low=0.55 was not trained"),
        (("--map", "lo=.5"), "'lo' is no reasoning effort"),
        (("--map", "low=.5", "--remove"), "give one of them"),
    ):
        assert call(monkeypatch, "effort", finished, *arguments) == 2
        assert said in capsys.readouterr().err
    assert call(monkeypatch, "effort", "embedded", "--map", "low=.5") == 2
    assert "the shipped adapter is a part of the package" in capsys.readouterr().err
    assert call(monkeypatch, "effort", tmp_path, "--map", "low=.5") == 2
    assert "neither a run folder nor an adapter" in capsys.readouterr().err
    assert (finished / "adapter" / "chat_template.jinja").read_bytes() == before
    assert call(monkeypatch, "effort", finished, "--map", "low=.5") == 0
    assert call(monkeypatch, "effort", finished) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "low=0.5"
    assert call(monkeypatch, "effort", finished, "--remove") == 0
    assert (finished / "adapter" / "chat_template.jinja").read_bytes() == before


def test_push_writes_what_it_would_upload(finished: Path, monkeypatch: Any, capsys: Any) -> None:
    name = "me/tiny-tokenskip"
    assert call(monkeypatch, "push", finished, name, "--dry-run") == 2
    assert "which others cannot load: name its hub id by --base-model" in capsys.readouterr().err
    assert call(monkeypatch, "push", finished, name, "--dry-run", "--base-model", "acme/Tiny-1B") == 0
    folder = finished / "upload"
    results = json.loads((finished / "results.json").read_text())
    _, front, card = (folder / "README.md").read_text().split("---\n", 2)
    data = yaml.safe_load(front)
    assert (data["base_model"], data["library_name"]) == ("acme/Tiny-1B", "peft")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "acme/Tiny-1B"
    assert {"adapter_model.safetensors", "chat_template.jinja", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    ours = [arm for arm in results["arms"] if arm["arm"] == "tokenskip"]
    assert [entry["metrics"][0]["value"] for entry in data["model-index"][0]["results"]] == [
        round(arm["accuracy"], 4) for arm in ours
    ]
    assert f"The same {results['arms'][0]['n_problems']} problems" in card
    for arm in ours:
        assert f"| tokenskip | {arm['ratio']} | {100 * arm['accuracy']:.1f}%" in card
    assert str(finished.parent) not in (folder / "README.md").read_text(), "a path of this machine"
    assert not any(str(finished.parent) in f.read_text() for f in folder.glob("*.json"))
    assert "scripted_runs:ChainBackend" in card


def test_a_card_has_the_effort_map_and_the_budgets(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "calibration.json").write_text(json.dumps({"budgets": {"0.5": {"chain": 110, "answer": 131}}}))
    assert call(monkeypatch, "effort", run, "--map", "low=.5,high=1") == 0
    assert call(monkeypatch, "push", run, "me/x", "--dry-run", "--base-model", "acme/x") == 0
    card = (run / "upload" / "README.md").read_text()
    assert "`reasoning_effort` is a second name of the ratio: low=0.5, high=1.0." in card
    assert "| 0.5 | 110 | 131 |" in card
    assert "reasoning_effort" in (run / "upload" / "chat_template.jinja").read_text()


def test_a_card_is_one_the_hub_understands(finished: Path, monkeypatch: Any) -> None:
    from huggingface_hub import ModelCard

    call(monkeypatch, "push", finished, "me/whole", "--dry-run", "--merged", "-o", finished.parent / "whole")
    card = ModelCard.load(finished.parent / "whole" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None
    assert [one.metric_type for one in card.data.eval_results or []] == ["accuracy", "cot-tokens"] * 2
    assert (finished.parent / "whole" / "model.safetensors").exists()


def test_push_says_what_is_missing(finished: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch, "push", finished, "nothing") == 2
    assert "a repository is OWNER/NAME" in capsys.readouterr().err
    assert call(monkeypatch, "push", finished, "me/x", "--base-model", "acme/x") == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert call(monkeypatch, "push", finished, "me/x", "--dry-run", "--base-model", "./x") == 2
    assert "--base-model is a hub id" in capsys.readouterr().err
    assert call(monkeypatch, "push", "embedded", "me/x", "--dry-run") == 2
    assert "is not in a run folder" in capsys.readouterr().err
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("x")
    arguments = ("me/x", "--dry-run", "--base-model", "acme/x", "-o", full)
    assert call(monkeypatch, "push", finished, *arguments) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (full / "thesis.txt").exists()


@contextmanager
def transformers_serve(folder: Path, home: Path) -> Iterator[str]:
    """The URL of a real `transformers serve` of a model folder, started as `tokenskip serve --exec` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tokenskip.cli", "serve", "embedded", "--exec", "--port", str(port)]
    command += ["--merged", str(folder), "--", "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (
        (home / "log.txt").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(800):
                assert process.poll() is None, (home / "log.txt").read_text()[-2000:]
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_transformers_serve_honours_the_ratio(merged: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The merged model on a real server: shorter chains at 0.5 than without a ratio, and doctor agrees."""
    config = load_recipe(None, ["task.name=embedded"])
    prompts = Prompts(load_tokenizer(ModelConfig()), PromptConfig())
    problems = [*EmbeddedTask(config.task).problems("test", 24)]
    with transformers_serve(merged, tmp_path) as url:
        assert call(monkeypatch, "doctor", url, "--model", merged) == 0
        assert "usage.prompt_tokens:" in capsys.readouterr().out
        assert call(monkeypatch, "doctor", url, "--model", "other") == 2
        assert "other" in capsys.readouterr().err
        engine = OpenAIBackend("embedded", prompts.tokenizer, url=url, served=str(merged), concurrency=2)
        whole, short = (
            engine.generate([prompts.prompt(one.question, ratio) for one in problems], Sampling(max_new_tokens=256))
            for ratio in (1.0, 0.5)
        )
        assert all(one.error is None for one in [*whole, *short])
        lengths = [sum(one.n_tokens for one in done) / len(done) for done in (whole, short)]
        with capsys.disabled():
            print(f"mean tokens: {lengths[0]:.1f} without a ratio, {lengths[1]:.1f} at 0.5")
        assert lengths[1] < 0.85 * lengths[0]
        begun = prompts.prompt(problems[0].question, prefill="The final answer is")
        [answer] = engine.generate([begun], Sampling(max_new_tokens=16))
        assert answer.text
    plain = tmp_path / "plain"
    shutil.copytree(merged, plain)
    shutil.copyfile(model_path() / "chat_template.jinja", plain / "chat_template.jinja")
    with transformers_serve(plain, tmp_path) as url:
        assert call(monkeypatch, "doctor", url, "--model", plain) == 1
        assert "no: the model's chat template ignores it" in capsys.readouterr().out
        engine = OpenAIBackend("embedded", prompts.tokenizer, url=url, served=str(plain), concurrency=2)
        with pytest.raises(Exception, match="ignores compression_ratio"):
            engine.generate([prompts.prompt(problems[0].question, 0.5)], Sampling(max_new_tokens=16))
