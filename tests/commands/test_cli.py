"""The command line: one clear line for every mistake, and both commands on a file of one's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from scripted_runs import chain, recipe, write_jsonl


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call with arguments that are wrong; the one line on standard error, after checking that it is one."""

    def check(*arguments: object) -> str:
        assert call(monkeypatch, *arguments) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.strip()]
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("tokenskip: ")
        assert not captured.out
        return lines[0]

    return check


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "chains.jsonl", [{"id": "a", "cot": "Well, 2 + 3 = 5 apples. So it is 5."}])


@pytest.mark.parametrize("code", ["import tokenskip", "import tokenskip.cli", "import tokenskip.plugins"])
def test_importing_is_light(code: str) -> None:
    check = f"import sys; {code}; print(sys.modules.keys() & {{'numpy', 'torch', 'transformers', 'trl'}})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_is_light_and_names_every_command() -> None:
    check = "import sys; from tokenskip.cli import main; sys.argv = ['tokenskip', '--help']\n"
    check += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
    stages = ("generate", "grade", "score", "prune", "train", "evaluate", "report")
    for command in ("demo", "run", "ask", "distill", *stages):
        assert command in done.stdout


def test_without_arguments_there_is_help(monkeypatch: Any, capsys: Any) -> None:
    assert call(monkeypatch) == 0
    assert "Usage" in capsys.readouterr().out


def test_usage_errors_are_one_line_too(fails: Any) -> None:
    assert "No such option" in fails("run", "embedded", "--nope")
    assert "No such command" in fails("trian")
    assert "Missing argument" in fails("run")
    assert "--limit" in fails("demo", "--limit", "0")


def test_wrong_recipes(fails: Any, tmp_path: Path, model_folder: Path) -> None:
    file = recipe(tmp_path, model_folder, prune={"ration": [0.5]})
    line = fails("run", file)
    assert str(file) in line
    assert "unknown key 'prune.ration' (did you mean 'prune.ratios'?): allowed are prune.atoms" in line
    file = recipe(tmp_path, model_folder)
    assert "unknown key 'modle' (did you mean 'model'?)" in fails("run", file, "--set", "modle.path=x")
    assert "write it as section.key=value" in fails("run", file, "--set", "x")
    assert "cannot be read as YAML" in fails("run", _write(tmp_path / "bad.yaml", "a: [1"))
    assert "no recipe nope: give a YAML file, or the name of a shipped one (" in fails("run", "nope")
    assert "generate.samples=2 needs generate.temperature" in fails("run", file, "--set", "generate.samples=2")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ratio", ["0", "1.5", "abc", "nan", "-0.5"])
def test_wrong_ratios(fails: Any, tmp_path: Path, chains: Path, model_folder: Path, ratio: str) -> None:
    out = tmp_path / "out.jsonl"
    assert "above 0 and at most 1" in fails("prune", chains, f"--ratio={ratio}", "-o", out)
    assert not out.exists()
    assert "above 0 and at most 1" in fails("ask", "How many?", f"--ratio={ratio}")
    line = fails("run", recipe(tmp_path, model_folder), "--set", f"prune.ratios=[0.5, {ratio}]")
    assert "prune.ratios.1" in line
    assert ratio.removeprefix("-").lower() in line.lower()


def test_wrong_names_list_the_right_ones(fails: Any, tmp_path: Path, model_folder: Path, chains: Path) -> None:
    file = recipe(tmp_path, model_folder)
    run = ("run", file, "--out", tmp_path / "run", "--set")
    assert "unknown scorer 'surprise' (did you mean 'surprisal'?): allowed are" in fails(*run, "score.scorer=surprise")
    assert "unknown task 'gsm8'" in fails(*run, "task.name=gsm8")
    assert "unknown backend 'hff' (did you mean 'hf'?): allowed are hf, " in fails(*run, "generate.backend=hff")
    assert "unknown arm 'randon' (did you mean 'random'?)" in fails(*run, "evaluate.arms=[randon]")
    assert "no 'Nope'" in fails(*run, "generate.backend=scripted_runs:Nope")
    assert "no module 'nowhere'" in fails(*run, "task.name=nowhere:Task")
    assert "unknown option 'gaol'" in fails(*run, "score.scorer=goal_gradient", "--set", "score.options.gaol=numbers")
    assert "unknown scorer" in fails("prune", chains, "--scorer", "x", "-o", tmp_path / "o.jsonl")
    assert "unknown task" in fails("grade", chains, "--task", "x", "-o", tmp_path / "o.jsonl")
    assert not (tmp_path / "run").exists()


def test_missing_models(fails: Any, tmp_path: Path, model_folder: Path, chains: Path) -> None:
    file = recipe(tmp_path, model_folder)
    out = ("--out", tmp_path / "run")
    assert "no model folder /no/such/model" in fails("run", file, *out, "--set", "model.path=/no/such/model")
    assert "holds no model" in fails("run", file, *out, "--set", f"model.path={tmp_path}")
    assert "HF_HUB_OFFLINE is set" in fails("run", file, *out, "--set", "model.path=nobody/nothing")
    assert "is a file" in fails("run", file, *out, "--set", f"model.path={file}")
    assert "no model folder" in fails("prune", chains, "--model", "./nope", "-o", tmp_path / "o.jsonl")
    assert "needs --adapter" in fails("ask", "How many?", "--base", str(model_folder))
    assert "no adapter in" in fails("ask", "How many?", "--base", str(model_folder), "--adapter", tmp_path)


def test_wrong_problems(fails: Any, tmp_path: Path, model_folder: Path) -> None:
    out = ("--out", tmp_path / "run")
    file = recipe(tmp_path, model_folder)
    train = tmp_path / "train.jsonl"
    good = train.read_text()
    train.write_text("")
    assert f"{train} is empty" in fails("run", file, *out)
    train.write_text(good + "{oops\n")
    assert f"{train} line 25: malformed JSON" in fails("run", file, *out)
    train.write_text(good + good.splitlines()[2] + "\n")
    assert f"{train} line 25: duplicate id 'p3', used before on line 3" in fails("run", file, *out)
    train.write_text('{"id": "a", "gold": "1"}\n')
    assert "line 1: field 'question' is missing" in fails("run", file, *out)
    train.unlink()
    assert "no such file" in fails("run", file, *out)


def test_unusable_run_folders(fails: Any, tmp_path: Path, model_folder: Path) -> None:
    file = recipe(tmp_path, model_folder)
    assert "cannot write the run folder" in fails("run", file, "--out", file)
    assert "cannot write the run folder" in fails("run", file, "--out", file / "below")
    assert "is not a run folder" in fails("train", tmp_path / "nothing")
    assert "is not a run folder" in fails("report", tmp_path)


def test_nothing_correct_ends_in_one_line_and_two(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    file = recipe(tmp_path, model_folder, generate={"options": {"wrong": True}})
    assert call(monkeypatch, "run", file, "--out", tmp_path / "run", "--limit", "6") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("tokenskip: 0 of 6 trajectories are correct: nothing to train on (6 incorrect); everything")
    assert (tmp_path / "run" / "trajectories.jsonl").exists()


def test_a_dry_run_shows_everything_and_runs_nothing(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    file = recipe(tmp_path, model_folder)
    assert call(monkeypatch, "run", file, "--dry-run", "--out", tmp_path / "run", "--limit", "3") == 0
    shown = capsys.readouterr().out
    assert "3 training problems" in shown
    assert "! at most 9 training rows are 2 optimiser steps" in shown
    assert re.search(r"estimate for \d+k parameters", shown)  # read from the headers of the weights
    assert "GPU-hours of an H100 (generate" in shown
    assert '"scorer": "surprisal"' in shown
    assert not (tmp_path / "run").exists()


def test_grading_a_file(monkeypatch: Any, capsys: Any, fails: Any, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "gold": "17", "output": chain(12, 5, 17)},
        {"id": "b", "gold": "5 + 3 = 8\n#### 8", "output": "It is \\boxed{9}."},
        {"id": 3, "gold": "8", "output": ""},
    ]
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "sub" / "out.jsonl"
    assert call(monkeypatch, "grade", source, "--task", "gsm8k", "-o", out) == 0
    assert "1 correct, 1 incorrect, 1 ungradable" in capsys.readouterr().out
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(row) for row in graded] == [{"id", "correct", "reason", "extracted"}] * 3
    assert [(row["id"], row["correct"], row["extracted"]) for row in graded[:2]] == [
        ("a", True, "17"),
        ("b", False, "9"),
    ]
    assert (graded[2]["id"], graded[2]["correct"]) == (3, None)
    before = out.read_bytes()
    assert "line 4: duplicate id 'a'" in fails("grade", write_jsonl(source, [*rows, rows[0]]), "-o", out)
    assert "line 1: field 'gold' is missing" in fails("grade", write_jsonl(source, [{"id": "a"}]), "-o", out)
    assert "is the input" in fails("grade", source, "-o", source)
    assert "is empty" in fails("grade", _write(source, ""), "-o", out)
    assert "no such file" in fails("grade", tmp_path / "none.jsonl", "-o", out)
    assert "needs an output" in fails("grade", source)
    assert "cannot write" in fails("grade", write_jsonl(source, rows), "-o", source / "below.jsonl")
    assert out.read_bytes() == before  # a bad line takes no older result away
    assert sorted(file.name for file in out.parent.iterdir()) == ["out.jsonl"]


def test_pruning_a_file(monkeypatch: Any, capsys: Any, fails: Any, tmp_path: Path, model_folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"c{a}", "cot": chain(a, 5, a + 5).split("\n\n")[0], "question": "How many?", "answer": str(a + 5)}
        for a in (12, 31)
    ]
    rows.append({"id": "bare", "cot": "So it is 5."})
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    ratios = ("--ratio", "0.6", "--ratio", "0.8", "--ratio", "1")
    assert call(monkeypatch, "prune", source, *ratios, "--model", model_folder, "-o", out) == 0
    shown = capsys.readouterr().out
    assert "9 pruned texts of 3 chains" in shown
    assert "ratio 0.6" in shown  # the preview
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["id"], line["ratio"]) for line in lines] == [
        (row["id"], ratio) for row in rows for ratio in (0.6, 0.8, 1.0)
    ]
    by_id = {row["id"]: row["cot"] for row in rows}
    for line in lines:
        assert {"id", "ratio", "pruned", "n_tokens", "n_tokens_pruned", "achieved_ratio"} <= set(line)
        assert line["achieved_ratio"] == pytest.approx(line["n_tokens_pruned"] / line["n_tokens"], abs=1e-4)
        if line["ratio"] == 1:
            assert line["pruned"] == by_id[line["id"]]
        elif line["id"] != "bare":
            assert line["achieved_ratio"] == pytest.approx(line["ratio"], abs=0.12)
    assert "needs an output" in fails("prune", source, "--ratio", "0.6")
    assert "is the input" in fails("prune", source, "--model", model_folder, "--scorer", "random", "-o", source)
    assert len(source.read_text().splitlines()) == 3
    assert "line 1: field 'cot' must be text" in fails("prune", write_jsonl(source, [{"id": "a"}]), "-o", out)


def test_an_interrupt_says_how_to_go_on(monkeypatch: Any, capsys: Any, chains: Path, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenskip.commands.files.grade_file", interrupted)
    assert call(monkeypatch, "grade", chains, "-o", tmp_path / "out.jsonl") == 130
    assert "everything computed is kept: the same command continues from here" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_one_line(
    fails: Any, tmp_path: Path, model_folder: Path, monkeypatch: Any
) -> None:
    def line(path: str) -> str:
        return str(fails("run", recipe(tmp_path, path), "--out", tmp_path / "run"))

    assert "no model folder ./missing: give 'embedded', 'smollm2', a local folder or .gguf file, or a hub id" in line(
        "./missing"
    )
    assert "no model folder" in line(str(tmp_path / "missing" / "model"))
    assert "holds no model (no config.json in it)" in line(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = line("models/missing")
    assert "neither a folder here nor in the local hub cache" in offline
    assert "HF_HUB_OFFLINE is set: unset it, or give the path of a local copy" in offline
    assert not (tmp_path / "run").exists()


def test_a_context_that_is_too_short_is_one_line_before_weights_load(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("tokenskip.plugins.load_model", loaded)
    file = recipe(tmp_path, model_folder, generate={"backend": "hf", "max_new_tokens": 512})
    assert call(monkeypatch, "run", file, "--out", tmp_path / "run") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has a context of 512 tokens, too short for a prompt" in line
