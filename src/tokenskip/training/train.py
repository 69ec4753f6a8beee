"""Stage 6: fine-tune the target model on `train.jsonl`. Writes `checkpoints/` and `adapter/`.

Rows are tokenised here, by the same code that renders prompts at inference, so the ids cannot differ; the loss is on
the completion and its end-of-sequence token only (paper, equation 4). A killed training goes on from its last
checkpoint and ends in the same bytes.

    tokenskip train runs/NAME
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenskip.config import ModelConfig, RunConfig
from tokenskip.distributed import batch_split, local_rank, rank, world
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.layout import note, noted
from tokenskip.models import load_model, pick_device, resolve_model
from tokenskip.progress import Advance, Progress
from tokenskip.prompts import Prompts
from tokenskip.run import Run
from tokenskip.store import ADAPTER, TRAIN, Row, RunFolder, read_rows
from tokenskip.tracking import tracked, trainer_options


def run(run: Run) -> None:
    """Stage 6: the run's own adapter.

    Raises:
        StageError: there is no row to train on. RunError: what is there was trained on other rows.
    """
    run.free()
    if first_weights(run.folder) == "tokenskip":
        _check_rows(run.folder)
        train(run.folder, run.prompts, run.progress)


def _check_rows(folder: RunFolder) -> None:
    """Note which rows are trained on; RunError when an adapter or a checkpoint comes from others."""
    file = folder.file(TRAIN)
    if rank() or not file.exists():
        return
    with file.open("rb") as rows:
        digest = hashlib.file_digest(rows, "sha256").hexdigest()
    before = noted(folder.path, "trained_on")
    trained = next((name for name in (ADAPTER, "checkpoints") if folder.file(name).exists()), None)
    if before and before != digest and trained:
        raise RunError(
            f"{folder.file(trained)} was trained on other rows than {file} has now: remove {trained}/ and `eval/` to "
            "train again, or choose another --out"
        )
    note(folder.path, trained_on=digest)


def first_weights(folder: RunFolder) -> str:
    """The name of the first fine-tuning's weights: `tokenskip`, or `round_0` once a later round was adopted."""
    return "round_0" if folder.file(f"round-0/{ADAPTER}").exists() else "tokenskip"


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
    with _disk_errors(folder.path), tracked(folder.path):
        _fit(folder, rows, prompts, progress, out)
    return out


def _fit(folder: RunFolder, rows: list[dict[str, list[int]]], prompts: Prompts, progress: Progress, out: Path) -> None:
    from datasets import Dataset
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    config = folder.config
    checkpoints = folder.file("checkpoints")
    arguments = _arguments(config, checkpoints)  # joins the other processes, if there are any
    set_seed(config.seed)
    model = load_model(_placed(config))
    with progress.stage("train", None) as advance:
        bar = _bar(advance)
        model = _with_adapter(model, config)
        trainer = SFTTrainer(
            model=model,
            optimizers=(_optimizer(model, config), None),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=prompts.tokenizer,
            callbacks=[bar],
        )
        trainer.remove_callback(PrinterCallback)
        # Rows go in tokenised; should a later TRL filter or cut them, say so instead of training on less
        assert len(trainer.train_dataset) == len(rows), "TRL dropped rows that we had checked"
        trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
        if bar.stopped:
            raise KeyboardInterrupt
    _save(trainer, prompts, out)
    if not rank():
        shutil.rmtree(checkpoints, ignore_errors=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """RunError for a disk that takes no more, as torch and safetensors spell it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not _DISK_ERROR.search(str(error)):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise RunError(
            f"training could not write to {path}: {reason}; the same command goes on from the last checkpoint"
        ) from None


_DISK_ERROR = re.compile(r"PytorchStreamWriter|No space left|File too large|os error (?:5|27|28|30|122)\b")


def _placed(config: RunConfig) -> ModelConfig:
    """The model's settings in one of several processes: each has its accelerator; what is sharded starts on the CPU."""
    if world() == 1 or config.model.device != "auto" or pick_device("auto") == "cpu":
        return config.model
    sharded = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
    device = "cpu" if sharded else f"{pick_device('auto')}:{local_rank()}"
    dtype = "bfloat16" if config.model.dtype == "auto" else config.model.dtype
    return config.model.model_copy(update={"device": device, "dtype": dtype})


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
            if not rank():
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


def _optimizer(model: Any, config: RunConfig) -> Any:
    """None: the trainer makes its AdamW."""
    if config.train.optimizer == "adamw":
        return None
    from tokenskip.training.muon import Muon

    return Muon(model, config.train.learning_rate)


def _arguments(config: RunConfig, checkpoints: Path) -> Any:
    import torch
    from trl import SFTConfig

    settings = config.train
    split = batch_split(settings.batch_size, settings.accumulation, world())
    if split is None:
        raise ConfigError(f"train.batch_size={settings.batch_size} does not divide among {world()} processes")
    on_cpu = config.model.device == "cpu" or not torch.accelerator.is_available()
    options: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": split[0],
        "gradient_accumulation_steps": split[1],
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "num_train_epochs": settings.epochs,
        "max_length": settings.max_length,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 20,
        **trainer_options(settings.report_to, config.name),
        "disable_tqdm": True,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "activation_checkpointing": not on_cpu,
        "dataloader_pin_memory": not on_cpu,
    }
    return SFTConfig(**{**options, **settings.trainer})


def _bar(advance: Advance) -> Any:
    """A callback that moves the bar a step at a time; an interrupt saves a checkpoint and ends the training there."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        """Trainer steps -> our progress."""

        seen = 0
        stopped = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(0, total=state.max_steps)
            self._move(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            try:
                self._move(state)
            except KeyboardInterrupt:
                self.stopped = control.should_save = control.should_training_stop = True

        def _move(self, state: Any) -> None:
            n, self.seen = state.global_step - self.seen, state.global_step
            advance(n)

    return Bar()


def _save(trainer: Any, prompts: Prompts, out: Path) -> None:
    """Write the adapter and its tokenizer beside, then move them in place: `adapter/` is whole or not there."""
    draft = out.with_name(out.name + ".tmp")
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None  # all processes take part
    if not rank():
        shutil.rmtree(draft, ignore_errors=True)
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.save_pretrained(str(draft), state_dict=state, safe_serialization=True)
        _save_beside(trainer, prompts, draft)
        draft.replace(out)
    trainer.accelerator.wait_for_everyone()


def _save_beside(trainer: Any, prompts: Prompts, draft: Path) -> None:
    """The tokenizer and the losses."""
    prompts.tokenizer.save_pretrained(str(draft))
    losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    lines = "".join(f"{step}\t{loss:.4f}\n" for step, loss in losses)
    (draft / "losses.tsv").write_text("step\tloss\n" + lines, encoding="utf-8")


def iter_losses(adapter: Path) -> Iterator[tuple[int, float]]:
    """(step, training loss) as logged during the fine-tuning of an adapter."""
    for line in (adapter / "losses.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        step, loss = line.split("\t")
        yield int(step), float(loss)
