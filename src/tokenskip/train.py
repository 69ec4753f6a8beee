"""Stage 6: fine-tune the target model on `train.jsonl`. Writes `checkpoints/` and `adapter/`.

Rows are tokenised here, by the same code that renders prompts at inference, so the ids cannot differ; the loss is on
the completion and its end-of-sequence token only (paper, equation 4). A killed training goes on from its last
checkpoint and ends in the same bytes.

    tokenskip train runs/NAME
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenskip.config import RunConfig
from tokenskip.errors import StageError
from tokenskip.models import load_model, resolve_model
from tokenskip.progress import Advance, Progress
from tokenskip.prompts import Prompts
from tokenskip.store import ADAPTER, TRAIN, Row, RunFolder, read_rows


def tokenise_row(row: Row, prompts: Prompts) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one row of `train.jsonl`; the prompt's labels are -100 (no loss)."""
    prompt = prompts.ids(prompts.text(row["prompt"], row["ratio"]))
    completion = prompts.completion_ids(row["completion"][0]["content"])
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


def train(folder: RunFolder, prompts: Prompts, progress: Progress) -> Path:
    """The folder of the finished adapter (or of the model, after full fine-tuning); at once when it is there already.

    Raises:
        StageError: there is no row to train on.
    """
    out = folder.file(ADAPTER)
    if out.exists():
        return out
    rows, n_long = _rows(folder, prompts)
    if not rows:
        raise StageError(f"{folder.path / TRAIN} has no usable rows ({n_long} longer than train.max_length)")
    from datasets import Dataset
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    config = folder.config
    set_seed(config.seed)
    model = load_model(config.model)
    checkpoints = folder.file("checkpoints")
    with progress.stage("train", None) as advance:
        trainer = SFTTrainer(
            model=_with_adapter(model, config),
            args=_arguments(config, checkpoints),
            train_dataset=Dataset.from_list(rows),
            processing_class=prompts.tokenizer,
            callbacks=[_bar(advance, progress)],
        )
        trainer.remove_callback(PrinterCallback)
        # Rows go in tokenised; should a later TRL filter or cut them, say so instead of training on less
        assert len(trainer.train_dataset) == len(rows), "TRL dropped rows that we had checked"
        trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
    _save(trainer, prompts, out, config)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return out


def _rows(folder: RunFolder, prompts: Prompts) -> tuple[list[dict[str, list[int]]], int]:
    """The tokenised rows that fit `train.max_length`, and how many did not."""
    limit = folder.config.train.max_length
    tokenised = [tokenise_row(row, prompts) for row in read_rows(folder.require(TRAIN))]
    fitting = [row for row in tokenised if len(row["input_ids"]) <= limit]
    return fitting, len(tokenised) - len(fitting)


def _last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint; newer ones that a kill left half written are removed.

    The trainer writes `trainer_state.json` last: where that can be read, the rest is there.
    """
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=lambda one: -int(one.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return str(folder)
    return None


def _with_adapter(model: Any, config: RunConfig) -> Any:
    if config.train.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    settings = config.train
    modules = settings.target_modules
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = (
        config.model.path if config.model.path == "embedded" else resolve_model(config.model.path)
    )
    return adapted


def _arguments(config: RunConfig, checkpoints: Path) -> Any:
    import torch
    from trl import SFTConfig

    settings = config.train
    on_cpu = config.model.device == "cpu" or not torch.accelerator.is_available()
    options: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": settings.batch_size // settings.accumulation,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "num_train_epochs": settings.epochs,
        "max_length": settings.max_length,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 20,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "activation_checkpointing": not on_cpu,
        "dataloader_pin_memory": not on_cpu,
    }
    return SFTConfig(**{**options, **settings.trainer})


def _bar(advance: Advance, progress: Progress) -> Any:
    """A callback that moves the bar a step at a time and takes the trainer's own printing away."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        """Trainer steps -> our progress."""

        seen = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(0, total=state.max_steps)
            self._move(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._move(state)

        def _move(self, state: Any) -> None:
            advance(state.global_step - self.seen)
            self.seen = state.global_step

    return Bar()


def _save(trainer: Any, prompts: Prompts, out: Path, config: RunConfig) -> None:
    """Write the adapter and its tokenizer beside, then move them in place: `adapter/` is whole or not there."""
    draft = out.with_name(out.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    trainer.model.save_pretrained(str(draft), safe_serialization=True)
    prompts.tokenizer.save_pretrained(str(draft))
    losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    lines = "".join(f"{step}\t{loss:.4f}\n" for step, loss in losses)
    (draft / "losses.tsv").write_text("step\tloss\n" + lines, encoding="utf-8")
    draft.replace(out)


def iter_losses(adapter: Path) -> Iterator[tuple[int, float]]:
    """(step, training loss) as logged during the fine-tuning of an adapter."""
    for line in (adapter / "losses.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        step, loss = line.split("\t")
        yield int(step), float(loss)
