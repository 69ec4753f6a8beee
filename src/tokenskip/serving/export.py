"""The training rows of a run for other trainers. Reads `train.jsonl` and the tokenizer; writes one folder.

    trl        prompt, completion and chat_template_kwargs; the tokenizer beside them renders the ratio
    messages   whole chats; the ratio is written into the last user turn, as the template would have done
    alpaca     instruction, input, output, system, with dataset_info.json as LLaMA-Factory reads it
    axolotl    the chats of `messages`, with an Axolotl configuration of the run's training settings

Where the ratio is in the text, a trainer that uses the model's own chat template arrives at the ids of our own
training; one that takes special tokens in user turns as plain text (LLaMA-Factory's v1 rendering) does not.

    tokenskip export runs/NAME --format axolotl -o DIR
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tokenskip.config import RunConfig
from tokenskip.errors import ConfigError, RunError, StageError, unknown_name
from tokenskip.models.loading import load_tokenizer, resolve_model
from tokenskip.prompting.chat_template import mark_question
from tokenskip.prompting.prompts import Prompts
from tokenskip.storage.outputs import check_folder, new_folder
from tokenskip.storage.store import TRAIN, Row, dump_row, read_rows, run_config

DATASET = "tokenskip"
"""The name of the data set in LLaMA-Factory's dataset_info.json."""


def export(run: Path, format: str, out: Path) -> int:
    """Write the rows of a run as `format` into the new folder `out`; returns how many.

    Raises:
        ConfigError: an unknown format.
        RunError: `run` is no run folder, or `out` is there already.
        StageError: the run has no training rows yet.
    """
    if format not in FORMATS:
        raise ConfigError(unknown_name("format", format, FORMATS))
    if not (run / "config.json").exists():
        raise RunError(f"{run} is not a run folder: start one with `tokenskip run` or `tokenskip generate`")
    if not (run / TRAIN).exists():
        raise StageError(f"{run} has no {TRAIN}: run `tokenskip prune {run}` first")
    check_folder(out)
    config = run_config(run)
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    with new_folder(out) as draft:
        return FORMATS[format](read_rows(run / TRAIN), draft, prompts, config)


def _trl(rows: Iterator[Row], out: Path, prompts: Prompts, config: RunConfig) -> int:
    prompts.tokenizer.save_pretrained(str(out / "tokenizer"))
    columns = ("prompt", "completion", "chat_template_kwargs")
    return _write_lines(out / TRAIN, ({name: row[name] for name in columns} for row in rows))


def _messages(rows: Iterator[Row], out: Path, prompts: Prompts, config: RunConfig) -> int:
    return _write_lines(out / TRAIN, ({"messages": _chat(row, prompts)} for row in rows))


def _alpaca(rows: Iterator[Row], out: Path, prompts: Prompts, config: RunConfig) -> int:
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    info = {DATASET: {"file_name": f"{DATASET}.jsonl", "formatting": "alpaca", "columns": columns}}
    (out / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")

    def lines() -> Iterator[Row]:
        for row in rows:
            *system, user, assistant = _chat(row, prompts)
            yield {
                "instruction": user["content"],
                "input": "",
                "output": assistant["content"],
                "system": system[0]["content"] if system else "",
            }

    return _write_lines(out / f"{DATASET}.jsonl", lines())


def _axolotl(rows: Iterator[Row], out: Path, prompts: Prompts, config: RunConfig) -> int:
    n_rows = _messages(rows, out, prompts, config)
    text = yaml.safe_dump(axolotl_config(config), sort_keys=False, allow_unicode=True)
    (out / "axolotl.yaml").write_text(f"# axolotl train axolotl.yaml, in this folder\n{text}", encoding="utf-8")
    return n_rows


def axolotl_config(config: RunConfig) -> dict[str, Any]:
    """The run's training settings under Axolotl's names."""
    settings = config.train
    path = config.model.path
    values: dict[str, Any] = {
        "base_model": resolve_model(path, reachable=False),
        "datasets": [
            {
                "path": TRAIN,
                "ds_type": "json",
                "type": "chat_template",
                "field_messages": "messages",
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }
        ],
        "chat_template": "tokenizer_default",
        "sequence_len": settings.max_length,
        "sample_packing": False,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": settings.scheduler,
        "warmup_ratio": settings.warmup,
        "num_epochs": settings.epochs,
        "micro_batch_size": settings.batch_size // settings.accumulation,
        "gradient_accumulation_steps": settings.accumulation,
        "seed": config.seed,
        "output_dir": "adapter",
    }
    if settings.method == "lora":
        values |= {"adapter": "lora", "lora_r": settings.rank, "lora_alpha": settings.alpha}
        values["lora_dropout"] = settings.dropout
        if settings.target_modules == "all-linear":
            values["lora_target_linear"] = True
        else:
            values["lora_target_modules"] = settings.target_modules
    return values


FORMATS: dict[str, Callable[[Iterator[Row], Path, Prompts, RunConfig], int]] = {
    "trl": _trl,
    "messages": _messages,
    "alpaca": _alpaca,
    "axolotl": _axolotl,
}


def _chat(row: Row, prompts: Prompts) -> list[Row]:
    """All turns of a row, the ratio written into the question (which is the last turn of the prompt)."""
    *before, user = row["prompt"]
    text = mark_question(user["content"], row["ratio"], prompts.delimiter, prompts.config.spelling)
    return [*before, {"role": "user", "content": text}, *row["completion"]]


def _write_lines(file: Path, rows: Iterator[Row]) -> int:
    n_rows = 0
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(dump_row(row))
            n_rows += 1
    return n_rows
