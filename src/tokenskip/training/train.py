"""Stage 6: fine-tune the target model on `train.jsonl`. Writes `checkpoints/` and `adapter/`.

Rows are tokenised here, by the same code that renders prompts at inference, so the ids cannot differ; the loss is on
the completion and its end-of-sequence token only (paper, equation 4). A killed training continues from its last
checkpoint and ends in the same bytes.

    tokenskip train runs/NAME
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenskip import tracking
from tokenskip.config import ModelConfig, RunConfig
from tokenskip.distributed import batch_split, local_rank, rank, world
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.models.hardware import NARROW, has_bf16
from tokenskip.models.loading import load_model, model_width, pick_device, stable_name
from tokenskip.progress import Advance, Progress
from tokenskip.prompting.prompts import Prompts
from tokenskip.run import Run
from tokenskip.storage.layout import note, noted
from tokenskip.storage.store import ADAPTER, TRAIN, Row, RunFolder, read_rows
from tokenskip.tracking import tracked, trainer_options
from tokenskip.training.check import checkpointing_key
from tokenskip.training.dataset import trained_ratios

DECAY = 0.4
"""Share of the steps, the last ones, in which `warmup_stable_decay` lowers the rate to zero."""


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


TokenisedRow = dict[str, list[int]]


def tokenise_row(row: Row, prompts: Prompts) -> TokenisedRow:
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
    rows, chains, n_long = _rows(folder, prompts)
    if not rows:
        raise StageError(f"{folder.path / TRAIN} has no usable rows ({n_long} longer than train.max_length)")
    with disk_errors(folder.path), tracked(folder.path):
        _fit(folder, rows, chains, prompts, progress, out)
    return out


def _fit(
    folder: RunFolder,
    rows: Sequence[TokenisedRow],
    chains: Sequence[str],
    prompts: Prompts,
    progress: Progress,
    out: Path,
) -> None:
    tracking.switch_telemetry_off()  # before TRL is imported
    config = folder.config
    checkpoints = folder.file("checkpoints")
    arguments = training_arguments(config, checkpoints)  # joins the other processes, if there are any
    model = load_model(placed(config))
    with progress.stage("train", None) as advance:
        bar = progress_bar(advance)
        trainer = make_trainer(model, rows, config, arguments, prompts.tokenizer, bar, chains=chains)
        if not rank():
            threads = trainer.threads if trainer.in_parts else None
            note(folder.path, trained_in={"products": "bf16" if arguments.bf16 else "float32", "threads": threads})
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        if bar.stopped:
            raise KeyboardInterrupt
    save(trainer, prompts, trained_ratios(folder), out)
    if not rank():
        shutil.rmtree(checkpoints, ignore_errors=True)


def make_trainer(
    model: Any,
    rows: Sequence[TokenisedRow],
    config: RunConfig,
    arguments: Any,
    tokenizer: Any,
    *callbacks: Any,
    chains: Sequence[str] | None = None,
) -> Any:
    """The trainer of a loaded model on tokenised rows, with a fresh adapter where the configuration wants one.

    `chains`: the name of the chain that each row is cut from, for `train.order: chains`.
    """
    from datasets import Dataset
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    from tokenskip.training.average import Average
    from tokenskip.training.lora import fuse_lora
    from tokenskip.training.trainer import Trainer

    set_seed(arguments.seed)
    arguments.lr_scheduler_kwargs = scheduler_kwargs(config, config.train.steps(len(rows)))
    model = with_adapter(model, config)
    if arguments.use_cpu and arguments.bf16:
        _round_frozen(model)
    if arguments.use_cpu and config.train.method == "lora":
        fuse_lora(model)
    trainer = Trainer(
        chains=chains if config.train.order == "chains" else None,
        model=model,
        optimizers=(_optimizer(model, config), None),
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    if config.train.average:
        trainer.add_callback(Average(config.train.average))
    # Rows go in tokenised; should a later TRL filter or cut them, say so instead of training on less
    assert len(trainer.train_dataset) == len(rows), "TRL dropped rows that we had checked"
    return trainer


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """RunError for a disk that takes no more, as torch and safetensors spell it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not _DISK_ERROR.search(str(error)):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise RunError(
            f"training could not write to {path}: {reason}; the same command continues from the last checkpoint"
        ) from None


_DISK_ERROR = re.compile(r"PytorchStreamWriter|No space left|File too large|os error (?:5|27|28|30|122)\b")


def uses_bf16(model: ModelConfig) -> bool:
    """Whether products are taken in bf16 (autocast): as `model.dtype` says; with auto, where it is faster."""
    device = pick_device(model.device)
    if model.dtype != "auto":
        return model.dtype == "bfloat16" or (model.dtype == "float16" and device != "cpu")
    return has_bf16(device) and (device != "cpu" or model_width(model) >= NARROW)


def placed(config: RunConfig) -> ModelConfig:
    """The model's settings for training; what is trained is kept in float32, where small updates are not lost.

    A LoRA adapter always is; the frozen weights beside it are in bf16 on an accelerator. Of several processes each has
    its accelerator; what is sharded starts on the CPU.
    """
    device = pick_device(config.model.device)
    whole = config.train.method == "full" or device == "cpu"
    dtype = "float32" if whole else "bfloat16" if config.model.dtype == "auto" else config.model.dtype
    if world() > 1 and config.model.device == "auto" and device != "cpu":
        sharded = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
        device = "cpu" if sharded else f"{device}:{local_rank()}"
    return config.model.model_copy(update={"device": device, "dtype": dtype})


def _round_frozen(model: Any) -> None:
    """Keep the frozen matrices of a CPU's bf16 training in bf16: autocast would round them anew for every product."""
    import torch

    embedding = model.get_input_embeddings().weight  # maybe the head's as well
    for module in model.modules():
        if type(module) is torch.nn.Linear and not module.weight.requires_grad and module.weight is not embedding:
            module.to(torch.bfloat16)


def _rows(folder: RunFolder, prompts: Prompts) -> tuple[list[TokenisedRow], list[str], int]:
    """The tokenised rows that fit `train.max_length`, the chain each is cut from, and how many did not fit."""
    stored = list(read_rows(folder.require(TRAIN)))
    tokenised = [tokenise_row(row, prompts) for row in stored]
    fitting = [at for at, row in enumerate(tokenised) if len(row["input_ids"]) <= folder.config.train.max_length]
    return [tokenised[at] for at in fitting], [stored[at]["id"] for at in fitting], len(stored) - len(fitting)


def last_checkpoint(checkpoints: Path) -> str | None:
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


def with_adapter(model: Any, config: RunConfig) -> Any:
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
    adapted.peft_config["default"].base_model_name_or_path = stable_name(config.model.path)
    return adapted


def _optimizer(model: Any, config: RunConfig) -> Any:
    """None: the trainer makes its AdamW."""
    if config.train.optimizer == "adamw":
        return None
    from tokenskip.training.muon import Muon

    return Muon(model, config.train.learning_rate)


def training_arguments(config: RunConfig, checkpoints: Path) -> Any:
    """The trainer's arguments: the settings of `train`, and over them whatever `train.trainer` says."""
    from trl import SFTConfig

    settings = config.train
    split = batch_split(settings.batch_size, settings.accumulation, world())
    if split is None:
        raise ConfigError(f"train.batch_size={settings.batch_size} does not divide among {world()} processes")
    on_cpu = pick_device(config.model.device) == "cpu"
    seed = config.seed if settings.seed is None else settings.seed
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
        "seed": seed,
        "data_seed": seed,
        "use_cpu": on_cpu,
        "bf16": uses_bf16(config.model),
        checkpointing_key(SFTConfig): not on_cpu,
        "dataloader_pin_memory": not on_cpu,
    }
    return SFTConfig(**{**options, **settings.trainer})


def scheduler_kwargs(config: RunConfig, steps: int) -> dict[str, Any]:
    """The schedule's own arguments in a training of `steps` steps: the recipe's, and how long it decays."""
    given = config.train.trainer.get("lr_scheduler_kwargs") or {}
    decays = config.train.scheduler == "warmup_stable_decay"
    return {**({"num_decay_steps": round(DECAY * steps)} if decays else {}), **given}


def progress_bar(advance: Advance) -> Any:
    """A callback that moves the bar a step at a time; an interrupt saves a checkpoint and ends the training there."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        """Trainer steps -> our progress."""

        seen = 0
        stopped = False
        note = ""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(0, total=state.max_steps)
            self._move(state)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                self.note = f"loss {float(logs['loss']):.4g}"

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            try:
                self._move(state)
            except KeyboardInterrupt:
                self.stopped = control.should_save = control.should_training_stop = True

        def _move(self, state: Any) -> None:
            n, self.seen = state.global_step - self.seen, state.global_step
            advance(n, note=self.note)

    return Bar()


def save(trainer: Any, prompts: Prompts, ratios: tuple[float, ...], out: Path) -> None:
    """Write the adapter and its tokenizer beside, then move them in place: `adapter/` is whole or not there."""
    draft = out.with_name(out.name + ".tmp")
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None  # all processes take part
    if not rank():
        shutil.rmtree(draft, ignore_errors=True)
        model = trainer.accelerator.unwrap_model(trainer.model)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Could not find a config file")  # a base by one of our own names
            model.save_pretrained(str(draft), state_dict=state, safe_serialization=True)
        _save_beside(trainer, prompts, ratios, draft)
        draft.replace(out)
    trainer.accelerator.wait_for_everyone()


def _save_beside(trainer: Any, prompts: Prompts, ratios: tuple[float, ...], draft: Path) -> None:
    """The tokenizer, whose template knows the trained ratios, and the losses."""
    prompts.save_tokenizer(draft, ratios)
    losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    lines = "".join(f"{step}\t{loss:.4f}\n" for step, loss in losses)
    (draft / "losses.tsv").write_text("step\tloss\n" + lines, encoding="utf-8")


def iter_losses(adapter: Path) -> Iterator[tuple[int, float]]:
    """(step, training loss) as logged during the fine-tuning of an adapter."""
    for line in (adapter / "losses.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        step, loss = line.split("\t")
        yield int(step), float(loss)
