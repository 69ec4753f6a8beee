"""Exports for local programs and the commands of six engines, as far as neither is here; the rest: test_llamacpp."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import call, make_tokenizer

from tokenskip.embedded import adapter_path
from tokenskip.errors import ModelError
from tokenskip.prompting.chat_template import TemplateSettings, add_ratio_control
from tokenskip.ratio import RatioRange
from tokenskip.serving.ollama import modelfiles, take_apart

CONVERTER = """
import shutil, sys
model, file = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1]
if {fails}:
    sys.exit("NotImplementedError: BPE pre-tokenizer was not recognized")
shutil.copyfile(model + "/{copies}", file)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped adapter, with a tokenizer that is not the embedded one."""
    folder = tmp_path / "mine"
    shutil.copytree(adapter_path(), folder)
    add_ratio_control(make_tokenizer(), settings=TemplateSettings(ratios=(0.5, 0.7, 1.0))).save_pretrained(folder)
    return folder


def converter(folder: Path, *, fails: bool = False, copies: str = "chat_template.jinja") -> Path:
    """A program in the place of llama.cpp's converter."""
    folder.mkdir(exist_ok=True)
    file = folder / "convert_hf_to_gguf.py"
    file.write_text(CONVERTER.format(fails=fails, copies=copies))
    return file


def test_a_gguf_is_written_whole_or_not_at_all(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = tmp_path / "out"
    export = ("export", model, "-o", out, "--to", "gguf")
    assert call(monkeypatch, *export, "--converter", converter(tmp_path)) == 0
    assert sorted(file.name for file in out.iterdir()) == ["chat_template.jinja", "mine-f16.gguf"]
    assert shlex.split(capsys.readouterr().out.splitlines()[-1])[:3] == [
        "llama-server",
        "-m",
        str(out / "mine-f16.gguf"),
    ]
    shutil.rmtree(out)
    fails = converter(tmp_path / "fails", fails=True)
    other = converter(tmp_path / "other", copies="config.json")
    for given, said in (
        (("--converter", fails), "cannot convert this model (NotImplementedError: BPE pre-tokenizer was not"),
        (("--converter", other), "the converter left the chat template out"),
        (("--converter", tmp_path / "nothing.py"), "no converter at"),
        (("--type", "q4_k_m"), "for q4_k_m: llama-quantize FILE-f16.gguf OUT.gguf q4_k_m"),
        (("--type", "x"), "unknown type 'x': allowed are bf16, f16, f32, q8_0"),
        (("--name", "a:b"), "'a:b' is no name that Ollama takes"),
        (("--name", "-x"), "'-x' is no name that Ollama takes"),
        (("--format", "trl"), "give one of them"),
    ):
        given = given if given[0] == "--converter" else (*given, "--converter", converter(tmp_path))
        assert call(monkeypatch, *export, *given) == 2
        assert said in capsys.readouterr().err
    assert call(monkeypatch, "export", model, "-o", out, "--to", "onnx") == 2
    assert "unknown target 'onnx': allowed are gguf, mlx, ollama" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call(monkeypatch, *export) == 2
    assert "llama.cpp's converter is not installed here: --converter PATH names" in capsys.readouterr().err
    assert call(monkeypatch, "export", "embedded", "-o", out, "--to", "gguf", "--converter", sys.executable) == 2
    assert "needs the script itself" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"convert_hf_to_gguf.py", "fails", "mine", "other"}


def test_ollama_gets_a_tag_a_ratio(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = tmp_path / "out"
    arguments = ("--to", "ollama", "--name", "me/mine", "--converter", converter(tmp_path))
    assert call(monkeypatch, "export", model, "-o", out, *arguments) == 0
    said = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("ollama")]
    assert [words[2] for words in said] == ["me/mine:latest", "me/mine:0.5", "me/mine:0.7"]
    assert all(Path(words[4]).is_file() for words in said)
    assert (out / "Modelfile-latest").read_text() == "FROM ./mine-f16.gguf\n", "the template of the GGUF"
    text = (out / "Modelfile-0.7").read_text()
    assert text.startswith('FROM ./mine-f16.gguf\nTEMPLATE """')
    assert "{{ .Content }}{{ if $last }}<eos>0.7<eos>{{ end }}" in text


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou.<|im_end|>\n' }}{% endif %}" + CHATML
)
THOUGHTS_LEFT_OUT = CHATML.replace("m['content']", "(m['content'] if loop.last or m['role'] != 'assistant' else '')")


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM])
def test_a_go_template_puts_the_same_texts_around_turns(template: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    add_ratio_control(tokenizer, settings=TemplateSettings(ratios=RatioRange(0.3, 1.0), spelling="decimals"))
    pieces = take_apart(tokenizer)  # which puts conversations together again, and compares
    assert pieces.user == ("<|im_start|>user\n", "<|im_end|>\n")
    assert pieces.opening == "<|im_start|>assistant\n"
    assert pieces.head == ("<|im_start|>system\nYou.<|im_end|>\n" if template is DEFAULT_SYSTEM else "")


@pytest.mark.parametrize(
    "template",
    [
        THOUGHTS_LEFT_OUT,
        CHATML.replace("m['content']", "m['content'] | trim | upper"),
        CHATML.replace("user", "user").replace("<|im_end|>\n", "{{{ }}}"),
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML,
    ],
)
def test_a_template_that_does_more_is_refused(template: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match="which no template of Ollama could repeat: use --to gguf"):
        take_apart(tokenizer)


def test_budgets_limit_what_ollama_writes(model: Path) -> None:
    template = (model / "chat_template.jinja").read_text()
    files = modelfiles(model, template, "x.gguf", {0.5: 120})
    assert files["0.5"].endswith('"""\nPARAMETER num_predict 120\n')
    assert "num_predict" not in files["0.7"] + files["latest"]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("sglang", ["sglang", "serve", "--model-path", "{model}", "--chat-template", "{model}/chat_template.jinja"]),
        ("vllm", ["vllm", "serve", "{model}", "--host", "127.0.0.1"]),
        ("transformers", ["transformers", "serve", "{model}"]),
        ("llamacpp", ["llama-server", "-m", "gguf/mine-f16.gguf", "--jinja", "--chat-template-file"]),
        ("ollama", ["ollama", "serve"]),
        ("mlx", ["mlx_lm.server", "--model", "mlx/mlx"]),
    ],
)
def test_serve_prints_what_each_engine_needs(
    engine: str, words: list[str], model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "serve", model, "--engine", engine, "--", "--more") == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert commands[-1][: len(words)] == [word.format(model=model) for word in words]
    assert commands[-1][-1] == "--more"
    assert lines[-1].startswith("# then check it: tokenskip doctor http://localhost:")
    if engine in ("llamacpp", "ollama", "mlx"):
        to = "gguf" if engine == "llamacpp" else engine
        assert commands[0] == ["tokenskip", "export", str(model), "--to", to, "-o", to]
        assert call(monkeypatch, "serve", model, "--engine", engine, "--exec") == 2
        assert "is not installed here" in capsys.readouterr().err
    assert call(monkeypatch, "effort", model, "--map", "low=.5") == 0
    assert call(monkeypatch, "serve", model, "--engine", engine) == 0
    assert "# reasoning_effort: low=0.5\n" in capsys.readouterr().out


def test_serve_gives_a_calibrations_budgets(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from tokenskip.config import RunConfig
    from tokenskip.serving.budgets import Budget, budgets_of, llamacpp_options, request_notes, vllm_options
    from tokenskip.serving.merge import Trained

    (tmp_path / "calibration.json").write_text(
        json.dumps({"budgets": {"1.0": {"chain": 200, "answer": 220}, "0.5": {"chain": 110, "answer": 130}}})
    )
    config = RunConfig()
    trained = Trained(folder=tmp_path / "adapter", config=config, run=tmp_path)
    budgets = budgets_of(trained)
    assert budgets == {0.5: Budget(110, 130), 1.0: Budget(200, 220)}
    assert vllm_options(trained, budgets) == []
    assert llamacpp_options(trained, budgets) == ["--predict", "220"]
    assert request_notes(trained, budgets, "vllm")[0] == 'budget at 0.5: "max_tokens": 130'
    thinking = config.model_copy(update={"prompt": config.prompt.model_copy(update={"answer": "think"})})
    trained = Trained(folder=tmp_path / "adapter", config=thinking, run=tmp_path)
    assert json.loads(vllm_options(trained, budgets)[1])["reasoning_end_str"] == "</think>"
    assert llamacpp_options(trained, budgets) == ["--reasoning-budget", "200", "--predict", "220"]
    assert (
        request_notes(trained, budgets, "vllm")[0] == 'budget at 0.5: "thinking_token_budget": 110, "max_tokens": 130'
    )
    assert '"thinking_budget_tokens": 110' in request_notes(trained, budgets, "llamacpp")[0]
    assert budgets_of(Trained(folder=tmp_path, config=config, run=None)) == {}
