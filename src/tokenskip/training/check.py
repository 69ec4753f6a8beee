"""Training settings that could only fail hours later, checked before the first stage and in a dry run.

What TRL, PEFT and transformers would refuse is asked of them here: fields of TRL's SFTConfig, names of schedulers and
optimisers, and the modules that get an adapter, on a model without weights. Default settings import none of them.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from difflib import get_close_matches
from typing import Any

from tokenskip.config import ModelConfig, RunConfig, TrainConfig
from tokenskip.errors import ConfigError, ModelError, unknown_name
from tokenskip.models.loading import adapts_tied_embeddings, is_here, pick_device, resolve_model
from tokenskip.prompting.prompts import Prompts

KNOWN_SCHEDULERS = ("cosine", "linear", "constant")
"""Names that need no import to be checked."""

SET_ELSEWHERE = {
    "output_dir": "the run folder (--out)",
    "per_device_train_batch_size": "train.batch_size and train.accumulation",
    "gradient_accumulation_steps": "train.accumulation",
    "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.scheduler",
    "warmup_steps": "train.warmup",
    "warmup_ratio": "train.warmup",
    "num_train_epochs": "train.epochs",
    "max_length": "train.max_length",
    "max_seq_length": "train.max_length",
    "save_steps": "train.save_steps",
    "seed": "train.seed",
    "data_seed": "train.seed",
    "report_to": "train.report_to",
    "run_name": "name",
}
"""Keys of TRL's SFTConfig that have a setting of their own here."""

_TOKENISED = "rows reach the trainer tokenised, with their labels"
_NO_EVALUATION = "nothing is evaluated during training: `tokenskip evaluate` does that"
_RESUMES = "a run folder keeps its own checkpoints, so that a killed training continues"
_PUSHES = "`tokenskip push` uploads"
NOT_HERE = {
    **dict.fromkeys(
        ("packing", "padding_free", "packing_strategy", "eval_packing"),
        "rows are trained side by side, padded: packed ones would see each other without flash attention",
    ),
    **dict.fromkeys(
        ("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "completion_only_loss", "assistant_only_loss"),
        _TOKENISED,
    ),
    **dict.fromkeys(("eos_token", "pad_token", "chat_template_path", "truncation_mode", "label_names"), _TOKENISED),
    **dict.fromkeys(("remove_unused_columns", "model_init_kwargs", "trust_remote_code"), _TOKENISED),
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "do_eval"), _NO_EVALUATION),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _NO_EVALUATION),
    **dict.fromkeys(("do_predict", "prediction_loss_only", "batch_eval_metrics"), _NO_EVALUATION),
    **dict.fromkeys(("resume_from_checkpoint", "save_strategy", "save_only_model", "do_train"), _RESUMES),
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_always_push"), _PUSHES),
}
"""Keys of TRL's SFTConfig that cannot work here, and why; their default values are accepted."""


def check_training(config: RunConfig, prompts: Prompts | None = None) -> None:
    """Return if the fine-tuning that `config` describes can start.

    Raises:
        ConfigError: a scheduler, trainer key, optimiser, module or device that does not exist or cannot work here;
            with `prompts`, also a `train.max_length` that no row could fit.
    """
    settings = config.train
    _check_scheduler(settings)
    _check_trainer(config)
    _check_device(config.model)
    if settings.method == "lora" and settings.target_modules != "all-linear":
        _check_targets(config)
    if prompts is not None:
        n_prompt = len(prompts.prompt("").token_ids)
        if n_prompt >= settings.max_length:
            raise ConfigError(
                f"train.max_length={settings.max_length} leaves no room: the prompt alone has {n_prompt} tokens "
                "without its question"
            )


def _check_scheduler(settings: TrainConfig) -> None:
    if settings.scheduler in KNOWN_SCHEDULERS:
        return
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    names = [kind.value for kind in TYPE_TO_SCHEDULER_FUNCTION]
    if settings.scheduler not in names:
        raise ConfigError(f"train.scheduler: {unknown_name('scheduler', settings.scheduler, names)}")
    needed = {"cosine_with_min_lr": "min_lr or min_lr_rate", "cosine_warmup_with_min_lr": "min_lr or min_lr_rate"}
    options = settings.trainer.get("lr_scheduler_kwargs") or {}
    if settings.scheduler == "reduce_lr_on_plateau":
        raise ConfigError(f"train.scheduler: reduce_lr_on_plateau needs an evaluation, and {_NO_EVALUATION}")
    if settings.scheduler in needed and not {"min_lr", "min_lr_rate"} & options.keys():
        raise ConfigError(
            f"train.scheduler: {settings.scheduler} needs {needed[settings.scheduler]}: "
            "set train.trainer={lr_scheduler_kwargs: {min_lr_rate: 0.1}}"
        )


def _check_trainer(config: RunConfig) -> None:
    given = config.train.trainer
    if not given:
        return
    for key in given:
        if key in SET_ELSEWHERE:
            raise ConfigError(f"train.trainer: {key} is set by {SET_ELSEWHERE[key]}")
    from trl import SFTConfig

    fields = {field.name: field for field in dataclasses.fields(SFTConfig)}
    for key, value in given.items():
        if key not in fields:
            near = get_close_matches(str(key), [*fields, *SET_ELSEWHERE], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"train.trainer: unknown key {key!r}{hint}: allowed are the fields of TRL's SFTConfig")
        default = fields[key].default
        if key in NOT_HERE and value != default:
            raise ConfigError(f"train.trainer: {key} cannot be used here: {NOT_HERE[key]}")
        if value is not default and not _is_of(str(fields[key].type), value):
            wanted = "true or false" if "bool" in str(fields[key].type) else "a number"
            raise ConfigError(f"train.trainer: {key} is {wanted}; given: {value!r}")
    if config.train.optimizer != "adamw" and "optim" in given:
        raise ConfigError(f"train.trainer: optim is set by train.optimizer={config.train.optimizer}")
    _build(config)


def _is_of(kind: str, value: Any) -> bool:
    """Whether a value is of a field's type, where that is a number or a truth value."""
    names = set(re.findall(r"[A-Za-z]+", kind)) - {"class", "None"}
    if names == {"bool"}:
        return isinstance(value, bool)
    return not names <= {"int", "float"} or (isinstance(value, int | float) and not isinstance(value, bool))


def _build(config: RunConfig) -> None:
    """Let TRL and transformers look at the values: an SFTConfig, and the class of its optimiser."""
    from transformers import Trainer
    from trl import SFTConfig

    on_cpu = pick_device(config.model.device) == "cpu"
    base: dict[str, Any] = {"output_dir": "checkpoints", "report_to": "none", "use_cpu": on_cpu, "bf16": not on_cpu}
    base[checkpointing_key(SFTConfig)] = not on_cpu
    try:
        arguments = SFTConfig(**{**base, **config.train.trainer})
        if "optim" in config.train.trainer:
            Trainer.get_optimizer_cls_and_kwargs(arguments)
    except (ValueError, TypeError, ImportError, RuntimeError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"train.trainer={config.train.trainer}: {reason}") from None


def checkpointing_key(arguments: Any) -> str:
    """What transformers calls recomputing activations: 5.23 renamed it, and warns of the older name."""
    return "activation_checkpointing" if hasattr(arguments, "activation_checkpointing") else "gradient_checkpointing"


def _check_device(model: ModelConfig) -> None:
    if model.device in ("auto", "cpu"):
        return
    import torch

    try:
        device = torch.device(model.device)
    except RuntimeError:
        raise ConfigError(f"model.device: auto, cpu, cuda, cuda:1 or mps; given: {model.device}") from None
    if device.type in ("cpu", "meta"):
        available = device.type == "cpu"
    else:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        available = accelerator is not None and accelerator.type == device.type
        available = available and (device.index or 0) < torch.accelerator.device_count()
    if not available:
        raise ConfigError(f"model.device={model.device}: this machine has no such device (auto takes what there is)")


def _check_targets(config: RunConfig) -> None:
    """ConfigError unless every entry of `train.target_modules` names modules that an adapter can train."""
    model = _without_weights(config.model)
    if model is None:
        return
    from peft import LoraConfig, get_peft_model

    given = config.train.target_modules
    names = [name for name, module in model.named_modules() if name and not list(module.children())]
    last = sorted({name.rpartition(".")[2] for name in names})
    for entry in [given] if isinstance(given, str) else given:
        if not _matches(entry, names, pattern=isinstance(given, str)):
            near = get_close_matches(entry, last, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near and near[0] != entry else ""
            form = f"; a name goes into a list: [{entry}]" if isinstance(given, str) and entry in last else ""
            raise ConfigError(
                f"train.target_modules: {config.model.path} has no module {entry!r}{hint}{form}; its modules are "
                f"{', '.join(last[:20])}"
            )
    modules = given if isinstance(given, str) else list(given)
    head = model.get_output_embeddings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT warns of is refused below
            adapted = get_peft_model(model, LoraConfig(target_modules=modules, task_type="CAUSAL_LM"))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"train.target_modules: {' '.join(str(error).split())[:300]}") from None
    if any(getattr(module, "base_layer", None) is head for module in adapted.modules()):
        raise ConfigError(
            "train.target_modules: an adapter on the head is not trained, as TRL computes the loss from its weights "
            "directly: leave it out, or set train.method=full"
        )
    if adapts_tied_embeddings(adapted):
        raise ConfigError(
            f"train.target_modules: the embeddings of {config.model.path} are tied to its head, and an adapter on them "
            "would change both once it is merged: leave them out, or set train.method=full"
        )


def _matches(entry: str, names: list[str], *, pattern: bool) -> bool:
    """Whether PEFT would find a module: one string is a pattern for whole names, an entry of a list the end of some."""
    if not pattern:
        return any(name == entry or name.endswith(f".{entry}") for name in names)
    try:
        return any(re.fullmatch(entry, name) for name in names)
    except re.error as error:
        raise ConfigError(f"train.target_modules: {entry!r} is no regular expression: {error}") from None


def _without_weights(model: ModelConfig) -> Any:
    """The model's modules on torch's meta device; None where its configuration is not on this machine."""
    source = resolve_model(model.path, reachable=False)
    if not is_here(source):
        return None
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        architecture = AutoConfig.from_pretrained(source, **options)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(architecture, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{model.path}: its configuration cannot be read: {reason}") from None
