"""Exports, each loaded back as its trainer would: the question, the ratio and the chain arrive at our own ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from architectures import family_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import load_recipe
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.prompting.chat_template import add_ratio_control, mark_question
from tokenskip.prompting.prompts import Prompts
from tokenskip.serving.export import FORMATS, export
from tokenskip.storage.store import read_rows
from tokenskip.training.train import tokenise_row


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A run up to its training rows, with a system turn."""
    folder = tmp_path_factory.mktemp("export")
    file = recipe(folder, model_folder, prompt={"system": "Be kind."}, score={"scorer": "random"})
    with pipeline.Run(folder / "run", load_recipe(file)) as a_run:
        for stage in (pipeline.generate, pipeline.grade, pipeline.score, pipeline.prune):
            stage(a_run)
    return folder / "run"


def ours(run: Path, tokenizer: Any) -> list[str]:
    """What our training sees of every row, as text."""
    prompts = Prompts(tokenizer, load_config(run).prompt)
    return [tokenizer.decode(tokenise_row(row, prompts)["input_ids"]) for row in read_rows(run / "train.jsonl")]


def load_config(run: Path) -> Any:
    from tokenskip.config import check_config
    from tokenskip.storage.store import read_manifest

    return check_config(read_manifest(run)["config"], str(run))


def loaded(file: Path) -> list[dict[str, Any]]:
    from datasets import load_dataset

    return list(load_dataset("json", data_files=str(file), split="train", cache_dir=str(file.parent / "cache")))


def rendered(tokenizer: Any, chat: list[dict[str, Any]]) -> str:
    """By the model's own template, which knows nothing of a ratio; what it writes behind the last end is its own."""
    text: str = tokenizer.apply_chat_template(chat, tokenize=False)
    return text.removesuffix("\n")


def test_trl(run: Path, tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoTokenizer
    from trl.data_utils import apply_chat_template

    n_rows = export(run, "trl", tmp_path / "out")
    saved = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    rows = loaded(tmp_path / "out" / "train.jsonl")
    texts = [apply_chat_template(row, saved) for row in rows]
    assert [(text["prompt"] + text["completion"]).removesuffix("\n") for text in texts] == ours(run, tokenizer)
    assert len(rows) == n_rows > 20


@pytest.mark.parametrize("format", ["messages", "axolotl"])
def test_chats(run: Path, tmp_path: Path, tokenizer: Any, format: str) -> None:
    export(run, format, tmp_path / "out")
    chats = [row["messages"] for row in loaded(tmp_path / "out" / "train.jsonl")]
    assert [rendered(tokenizer, chat) for chat in chats] == ours(run, tokenizer)
    ids = [tokenizer(rendered(tokenizer, chat))["input_ids"] for chat in chats]
    assert sum(one.count(tokenizer.eos_token_id) == 3 for one in ids) > 10  # two around the ratio, one at the end


def test_the_axolotl_configuration_points_to_the_rows(run: Path, tmp_path: Path) -> None:
    export(run, "axolotl", tmp_path / "out")
    values = yaml.safe_load((tmp_path / "out" / "axolotl.yaml").read_text(encoding="utf-8"))
    [dataset] = values["datasets"]
    assert (tmp_path / "out" / dataset["path"]).exists()
    config = load_config(run)
    assert values["base_model"] == config.model.path
    assert (values["lora_r"], values["lora_alpha"], values["learning_rate"]) == (2, 4, 0.01)
    assert values["micro_batch_size"] * values["gradient_accumulation_steps"] == config.train.batch_size


def test_alpaca_as_llama_factory_finds_it(run: Path, tmp_path: Path, tokenizer: Any) -> None:
    export(run, "alpaca", tmp_path / "out")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text(encoding="utf-8"))["tokenskip"]
    names = info["columns"]
    chats = []
    for row in loaded(tmp_path / "out" / info["file_name"]):
        assert row[names["query"]] == ""
        chats.append([
            {"role": "system", "content": row[names["system"]]},
            {"role": "user", "content": row[names["prompt"]]},
            {"role": "assistant", "content": row[names["response"]]},
        ])  # fmt: skip
    assert [rendered(tokenizer, chat) for chat in chats] == ours(run, tokenizer)


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'alpaca'"):
        export(run, "alpacca", tmp_path / "out")
    with pytest.raises(RunError, match="is not a run folder"):
        export(tmp_path, "trl", tmp_path / "out")
    with pytest.raises(RunError, match="exists: choose another -o"):
        export(run, "trl", tmp_path)
    (tmp_path / "config.json").write_text((run / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(StageError, match="tokenskip prune"):
        export(tmp_path, "trl", tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert set(FORMATS) == {"trl", "messages", "alpaca", "axolotl"}


CHATML = add_ratio_control(family_tokenizer("qwen2"), "#|#")


@given(st.text("#|0.1 Qé", min_size=1), st.sampled_from([0.5, 0.30000000000000004, 1.0]))
def test_the_marker_in_text_is_the_templates(text: str, ratio: float) -> None:
    options = {} if ratio == 1 else {"compression_ratio": ratio}
    by_template = CHATML.apply_chat_template([{"role": "user", "content": text}], tokenize=False, **options)
    by_hand = CHATML.apply_chat_template(
        [{"role": "user", "content": mark_question(text, ratio, "#|#")}], tokenize=False
    )
    assert by_template == by_hand
