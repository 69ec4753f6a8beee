"""Every shipped recipe resolves offline without weights, and goes end to end on random weights of its architecture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from architectures import family_model
from scripted_runs import ChainBackend, recipe, write_problems

from tokenskip import cli, pipeline
from tokenskip.config import RunConfig, load_recipe
from tokenskip.ratio import Ratio
from tokenskip.recipes import read_recipe_file
from tokenskip.storage.store import read_rows

RECIPES = {file.stem: file for file in sorted((Path(cli.__file__).parent / "recipes").glob("*.yaml"))}
PAPER = {name: file for name, file in RECIPES.items() if name.startswith(("llama", "qwen2.5"))}
THINKING = {"qwen3-8b-thinking": "qwen3", "r1-distill-qwen-7b": "r1"}
SMALL = ("teach", "small-llm")
"""Their model comes in a package that need not be there: models/test_gguf.py has what is said then."""
FAMILIES = {name: "llama" if name.startswith("llama") else "qwen2" for name in PAPER} | THINKING


def dry_run(monkeypatch: Any, capsys: Any, *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["tokenskip", "run", *map(str, arguments), "--dry-run"])
    cli.main()
    captured = capsys.readouterr()
    assert not captured.err
    return str(captured.out)


def test_there_is_a_recipe_for_every_model_of_the_paper() -> None:
    models = ("llama-3.1-8b-instruct", "qwen2.5-3b-instruct", "qwen2.5-7b-instruct", "qwen2.5-14b-instruct")
    assert set(PAPER) == {f"{model}-{data}" for model in models for data in ("gsm8k", "math")}
    assert set(RECIPES) == {*PAPER, *THINKING, *SMALL, "any-ratio", "demo", "embedded", "paper"}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str) -> None:
    config = load_recipe(PAPER[name])
    train = config.train
    assert (train.rank, train.alpha, train.learning_rate, train.epochs, train.batch_size) == (8, 16, 5e-5, 3, 8)
    assert (train.scheduler, train.warmup, train.max_length) == ("cosine", 0.1, 2048)
    assert train.target_modules == "all-linear"
    assert config.prune.ratios == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert (config.prune.per_trajectory, config.prune.cut, config.score.scorer) == ("one", "chain", "llmlingua2")
    assert config.generate.max_new_tokens == (512 if name.endswith("gsm8k") else 1024)
    assert config.generate.temperature == 0
    assert config.name == name


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - SMALL))
def test_a_dry_run_needs_neither_weights_nor_a_network(
    name: str, monkeypatch: Any, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = dry_run(monkeypatch, capsys, name, "--limit", 5)
    config = load_recipe(RECIPES[name])
    downloads = [line.removeprefix("would download: ") for line in shown.splitlines() if "would download" in line]
    if config.model.path == "embedded":
        assert not downloads
        assert "stand-in" not in shown
    else:
        assert config.model.path in downloads
        assert any(line.startswith("microsoft/llmlingua-2") for line in downloads)
        assert any("(data, train split)" in line for line in downloads)
        assert "! stand-in tokenizer" in shown
    assert shown.count("(green: trained on)") == 3
    lowest = Ratio(min(config.prune.ratios)).written(config.prompt.spelling)
    assert f"{lowest}<" in shown  # its marker
    cap = config.generate.max_new_tokens
    assert f"5 training problems (at most {5 * cap:,} tokens to generate" in shown


def test_a_dry_run_of_the_recipes_for_small_models(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    taught = dry_run(monkeypatch, capsys, "teach", "--limit", 5, "--set", "model.path=embedded")
    assert "5 training problems (with their own solutions), at most 5 training rows" in taught
    shown = dry_run(monkeypatch, capsys, "small-llm", "--limit", 5, "--set", "model.path=embedded")
    assert "at most 30 training rows" in shown
    assert "5555555555<" in shown


def test_what_is_here_is_used_and_not_downloaded(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    shown = dry_run(monkeypatch, capsys, recipe(tmp_path, model_folder))
    assert "stand-in" not in shown
    assert "would download" not in shown
    assert "How many are there?<eos>0.5<eos>" in shown.replace("│", "").replace("\n", "").replace("  ", "")
    assert "24 training problems (at most 3,840 tokens to generate" in shown


class FormattedBackend(ChainBackend):
    """The chains of `ChainBackend` with the answer where the recipe wants it."""

    def _complete(self, prompt: Any) -> Any:
        from dataclasses import replace

        done = super()._complete(prompt)
        text = re.sub(r"The final answer is (-?\d+)\.", r"The answer is $\\boxed{\1}$.", done.text)
        if "<think>" in self.tokenizer.chat_template:
            opened = "" if "'<｜Assistant｜><think>" in self.tokenizer.chat_template else "<think>\n"
            text = opened + text.replace("\n\nThe answer", "\n</think>\n\nThe answer")
        return replace(done, text=text, token_ids=())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_recipe_goes_end_to_end_on_its_architecture(name: str, tmp_path: Path) -> None:
    """The recipe's prompt, format, pruning and training; only sizes, answers, compressor and model are changed."""
    values = read_recipe_file(RECIPES[name])
    train, test = write_problems(tmp_path, 24, 4)
    values["model"] = {"path": str(family_model(FAMILIES[name], tmp_path / "model")), "device": "cpu"}
    values["task"] = {"name": "jsonl", "train": str(train), "test": str(test), "options": {"numeric": True}}
    values["generate"] |= {"backend": f"{__name__}:FormattedBackend", "max_new_tokens": 160, "batch_size": 8}
    values["score"] = {"scorer": "random"}
    values["train"] |= {"trainer": {"max_steps": 2}}
    values["evaluate"] = {"arms": ["original", "tokenskip"], "ratios": [0.5], "latency_samples": 0, "batch_size": 4}
    config = RunConfig.model_validate(values)
    with pipeline.Run(tmp_path / "run", config) as run:
        pipeline.run(run)
        eos = run.prompts.delimiter
    rows = list(read_rows(tmp_path / "run" / "train.jsonl"))
    assert len(rows) >= 8
    for row in rows:
        answer = row["completion"][0]["content"]
        assert answer.endswith("$.")
        assert answer.count("\\boxed{") == 1
        assert answer.startswith("<think>\n") == (name == "qwen3-8b-thinking")
        assert ("</think>" in answer) == (name in THINKING)
        assert eos not in row["prompt"][-1]["content"]  # the template puts it there
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_a_recipe_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "extends: paper\nname: base\ntrain: {learning_rate: 5e-5, trainer: {max_steps: 3}}\nseed: 1e1\n"
    )
    (tmp_path / "sub").mkdir()
    mine = tmp_path / "sub" / "mine.yaml"
    mine.write_text(
        "extends: ../base.yaml\nname: mine\ntrain: {epochs: 1, trainer: {bf16: false}}\nprune: {ratios: [.5]}\n"
    )
    config, paper = load_recipe(mine), load_recipe(RECIPES["paper"])
    assert (config.name, config.seed) == ("mine", 10)
    assert config.train == paper.train.model_copy(update={"epochs": 1.0, "trainer": {"max_steps": 3, "bf16": False}})
    assert config.prune.ratios == (0.5,)
    assert (config.prompt, config.score) == (paper.prompt, paper.score)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("extends: papper", "unknown recipe 'papper' (did you mean 'paper'?)"),
        ("extends: other.yaml", "unknown recipe 'other.yaml'"),
        ("extends: [paper]", "extends takes one recipe"),
        ("extends: null", "extends takes one recipe"),
        ("extends: mine.yaml", "recipes extend each other in a circle: mine.yaml -> mine.yaml"),
        ("extends: bad.yaml", "bad.yaml cannot be read as YAML"),
        ("extends: two.yaml", "in a circle: mine.yaml -> two.yaml -> mine.yaml"),
    ],
)
def test_what_cannot_be_extended_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    from tokenskip.errors import ConfigError

    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "two.yaml").write_text("extends: mine.yaml")
    (tmp_path / "bad.yaml").write_text("{[")
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "mine.yaml")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-5", 5e-5), ("1.5E+3", 1500.0), (".5", 0.5), ("5.", 5.0), ("-2e3", -2000.0), ("12", 12), ("'5e-5'", "5e-5")],
)
def test_numbers_are_those_of_yaml_12(text: str, value: object, tmp_path: Path) -> None:
    from tokenskip.recipes import read_value

    read = read_value(f"[{text}]")[0]
    assert (read, type(read)) == (value, type(value))


def test_thinking_recipes_decode_as_their_makers_advise_in_both_stages() -> None:
    for name in THINKING:
        config = load_recipe(RECIPES[name])
        for section in (config.generate, config.evaluate):
            assert (section.temperature, section.top_p) == (0.6, 0.95)
        assert config.evaluate.samples > 1


def test_a_dry_run_warns_where_generate_samples_and_evaluate_is_greedy(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    file = recipe(tmp_path, model_folder)
    assert "decodes greedily" not in dry_run(monkeypatch, capsys, file)
    shown = dry_run(monkeypatch, capsys, file, "--set", "generate.temperature=0.6")
    assert "! generate samples and evaluate decodes greedily" in shown


def test_the_preview_is_the_row_that_is_trained_on(
    monkeypatch: Any, capsys: Any, tmp_path: Path, model_folder: Path
) -> None:
    for answer, ending in (
        ("boxed", "The final answer is \\boxed{9}.<eos>"),
        ("trigger", "The final answer is 9.<eos>"),
        ("think", "</think>The final answer is \\boxed{9}.<eos>"),
    ):
        shown = dry_run(monkeypatch, capsys, recipe(tmp_path, model_folder), "--set", f"prompt.answer={answer}")
        flat = "".join(line.strip("│ ") for line in shown.splitlines())
        assert re.search(re.escape(ending).replace("9", r"\d+"), flat), flat[-800:]
        assert "… chain of thought …" in shown
