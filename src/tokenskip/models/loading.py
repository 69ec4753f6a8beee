"""Model names -> loaded models; what can be wrong with a name is said before anything is loaded.

Weights are read from safetensors only, and code that comes with a model runs only with `trust_remote_code: true`.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

from tokenskip.config import ModelConfig
from tokenskip.embedded import model_path
from tokenskip.errors import ModelError
from tokenskip.models.gguf import SMOLLM2, converted, gguf_file, packaged
from tokenskip.models.hardware import keep_memory, set_threads
from tokenskip.models.weights import check_weights, fingerprint, is_finite, read_header, read_settings, reading

EMBEDDED = "embedded"
_NUMBER = re.compile(r"\d+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def resolve_model(path: str, *, reachable: bool = True) -> str:
    """`path` as transformers takes it: a folder that holds a model, or a hub id that can be reached.

    With `reachable=False` a hub id need not be to be had at the moment.

    Raises:
        ModelError: there is no such folder, it holds no model, or the hub id is neither cached nor reachable.
    """
    if path == EMBEDDED:
        return str(model_path())
    if path == SMOLLM2:
        return str(converted(packaged()))
    try:
        folder = Path(path).expanduser()
        is_folder, is_file = folder.is_dir(), folder.exists() and not folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, the home of nobody
        raise ModelError(f"no model folder {path[:80]!r}: {getattr(error, 'strerror', None) or error}") from None
    if is_folder and (folder / "config.json").exists():
        return str(folder)
    if (is_folder or is_file) and (file := gguf_file(folder)):
        return str(converted(file))
    if is_folder:
        if (folder / "adapter_config.json").exists():
            raise ModelError(f"{path} is an adapter, not a model: give its base as the model and this as --adapter")
        raise ModelError(f"{path} holds no model (no config.json in it)")
    if is_file:
        raise ModelError(f"{path} is a file: give the folder that holds the model, or a .gguf file")
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(
            f"no model folder {path[:80]}: give 'embedded', 'smollm2', a local folder or .gguf file, or a hub id like "
            "Qwen/Qwen2.5-7B"
        )
    if reachable and _is_offline() and not _is_cached(path):
        raise ModelError(
            f"{path} is neither a folder here nor in the local hub cache, and HF_HUB_OFFLINE is set: "
            "unset it, or give the path of a local copy"
        )
    return path


def stable_name(path: str) -> str:
    """What an adapter names as its base: no folder of this machine's cache, or of this installation."""
    is_own = path in (EMBEDDED, SMOLLM2) or Path(path).suffix.lower() == ".gguf"
    return path if is_own else resolve_model(path)


def is_here(source: str) -> bool:
    """Whether a resolved model needs no download: a folder, or in the local hub cache."""
    return Path(source).expanduser().is_dir() or _is_cached(source)


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, padding on the left, with a pad token.

    Raises:
        ModelError: it cannot be loaded, or is not a fast tokenizer (character offsets are needed).
    """
    from transformers import AutoTokenizer

    source = resolve_model(config.path)
    with reading(config.path, "the tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    if not tokenizer.is_fast:
        raise ModelError(f"{config.path}: only a slow tokenizer; a fast one (tokenizer.json) is needed for offsets")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: ModelConfig, adapter: Path | None = None, *, fold: bool = True) -> Any:
    """The model in eval mode on its device; an adapter's weights are merged in memory, so that it costs no time.

    Without `fold` the adapter stays beside the weights, as PEFT applies it. Whatever the folder's own
    `generation_config.json` asks for (a repetition penalty, say) is not done: see `neutral_generation`.

    Raises:
        ModelError: the weights or the adapter cannot be loaded, or are not whole.
    """
    import torch
    from transformers import AutoModelForCausalLM

    keep_memory()
    if adapter is not None:
        check_adapter(adapter, config)
    whole = adapter is not None and is_whole(adapter)
    device = pick_device(config.device)
    dtype = {"auto": torch.float32 if device == "cpu" else torch.bfloat16}.get(config.dtype) or getattr(
        torch, config.dtype
    )
    model = load_weights(
        AutoModelForCausalLM,
        str(adapter) if whole else config.path,
        revision=None if whole else config.revision,
        dtype=dtype,
        trust_remote_code=config.trust_remote_code,
    )
    if adapter is not None and not whole:
        from peft import PeftModel

        with reading(str(adapter), "the adapter cannot be loaded"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a base that has moved: checked by its weights, above
            model = PeftModel.from_pretrained(model, str(adapter))
            if adapts_tied_embeddings(model):
                raise ModelError(
                    f"{adapter} changes the embeddings, which are tied to the head of {config.path}: merged, it would "
                    "change both; train it without embed_tokens and lm_head, or with train.method=full"
                )
            model = model.merge_and_unload() if fold else model
    if device == "cpu":
        set_threads(model.config.get_text_config().hidden_size)
    model = model.to(device).eval()
    for name, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise ModelError(f"{adapter or config.path}: the weights {name} hold NaN or infinity: they are damaged")
    return model


def load_weights(kind: Any, path: str, *, revision: str | None = None, fresh: str = "", **options: Any) -> Any:
    """What `kind.from_pretrained` makes of a checkpoint, if every tensor of the model is in it, in safetensors.

    Tensors whose names begin with `fresh` may be missing: they are to be trained.

    Raises:
        ModelError: files that are missing, cut off or not safetensors; tensors that are missing or do not fit.
    """
    source = resolve_model(path)
    check_weights(source, revision)
    options.setdefault("trust_remote_code", False)  # without a word, transformers asks on the terminal
    with reading(path, "the model cannot be loaded"):
        model, info = kind.from_pretrained(
            source,
            revision=revision,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
    task = "token classifier" if "TokenClassification" in kind.__name__ else "language model"
    missing = sorted(name for name in info["missing_keys"] if not (fresh and name.startswith(fresh)))
    misfits = sorted(str(found[0]) for found in info["mismatched_keys"] if not (fresh and found[0].startswith(fresh)))
    layers = {_NUMBER.sub("0", name) for name in model.state_dict()}
    beyond = sorted(name for name in info["unexpected_keys"] if _NUMBER.sub("0", name) in layers)
    for names, what in (
        (missing, f"is no trained {task}: it has no weights for"),
        (misfits, "does not fit its own config.json: the weights have another shape in"),
        (beyond, "does not fit its own config.json, which leaves out layers of it:"),
    ):
        if names:
            raise ModelError(f"{path} {what} {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""))
    neutral_generation(model)
    return model


def neutral_generation(model: Any) -> None:
    """Leave of a model's generation settings only the tokens that begin, end and pad.

    The same request then gives the same answer from every backend: vLLM, asked with parameters, obeys no others either.
    """
    from transformers import GenerationConfig

    given = getattr(model, "generation_config", None)
    if given is not None:
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(given, name, None) for name in names})


def is_whole(adapter: Path) -> bool:
    """Whether an adapter's folder holds a whole model, as full fine-tuning leaves it, and no LoRA."""
    return not (adapter / "adapter_config.json").exists()


def check_adapter(adapter: Path, config: ModelConfig) -> None:
    """Nothing, where a folder holds a whole adapter of the model that `config` names (or a whole model).

    Reads names and shapes, and the adapter's own numbers: quick enough to be done before anything is evaluated.

    Raises:
        ModelError: a file is missing or damaged, keys or shapes do not fit, or it was trained on another model.
    """
    if is_whole(adapter):
        if not (adapter / "config.json").exists():
            raise ModelError(
                f"{adapter} holds no adapter: neither adapter_config.json nor config.json is in it; copy it whole, or "
                "remove it and train again"
            )
        check_weights(str(adapter))
        _check_shape(adapter, config)
        return
    settings = read_settings(str(adapter), "adapter_config.json")
    file = adapter / "adapter_model.safetensors"
    if not file.exists():
        raise ModelError(f"{adapter} has no {file.name} (pickled weights are not read)")
    if settings.get("megatron_config"):  # PEFT then imports whatever module `megatron_core` names
        raise ModelError(f"{adapter}/adapter_config.json: adapters for Megatron are not read")
    found = read_header(file)
    _check_base(adapter, str(settings.get("base_model_name_or_path") or ""), config)
    expected = _adapter_shapes(adapter, config)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise ModelError(f"{adapter} is not whole: {file.name} has no {name}")
        if expected.get(name) != found[name]:
            wanted = "which the model has no place for" if name not in expected else f"not {expected[name]}"
            raise ModelError(f"{adapter} does not fit {config.path}: {name} of shape {found[name]}, {wanted}")
    from safetensors.torch import load_file

    for name, tensor in load_file(file).items():
        if not is_finite(tensor):
            raise ModelError(f"{file}: {name} holds NaN or infinity: the adapter is damaged, train again")


def _check_shape(whole: Path, config: ModelConfig) -> None:
    """ModelError where a whole model, trained from the one that `config` names, has another shape than that."""
    trained = read_settings(str(whole), "config.json")
    base = read_settings(resolve_model(config.path), "config.json", config.revision)
    for key in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers"):
        if key in trained and key in base and trained[key] != base[key]:
            raise ModelError(
                f"{whole} was not trained on {config.path}: its {key} is {trained[key]}, not {base[key]}; give its base"
            )


def _adapter_shapes(adapter: Path, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that PEFT would save of this adapter on this model; nothing is allocated."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    source = resolve_model(config.path)
    with reading(config.path, "its configuration cannot be read"):
        shape = AutoConfig.from_pretrained(source, revision=config.revision, trust_remote_code=config.trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape, trust_remote_code=config.trust_remote_code)
    with reading(str(adapter), f"the adapter does not fit {config.path}"):
        peft_config = PeftConfig.from_pretrained(str(adapter))
        peft_config.base_model_name_or_path = None
        peft_config.init_lora_weights = False  # some inits compute with the base's weights, which are not there
        with torch.device("meta"):
            model = get_peft_model(model, peft_config)
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_base(adapter: Path, named: str, config: ModelConfig) -> None:
    """ModelError where an adapter names another base model than `config` does, as far as that can be decided.

    Where both are here, their weights decide. Else a name may have moved to another folder, but not to another name.
    """
    if not named or named == config.path:
        return
    before, now = _folder_of(named), Path(resolve_model(config.path))
    if before.is_dir() and now.is_dir():
        same = before.samefile(now) or fingerprint(before) == fingerprint(now)
    else:
        same = now.is_dir() or _last_name(named) == _last_name(config.path)
    if not same:
        raise ModelError(
            f"{adapter} was trained on {named}, not on {config.path}: give that model, or, where they are the same, "
            f"correct base_model_name_or_path in {adapter / 'adapter_config.json'}"
        )


def _folder_of(named: str) -> Path:
    """The folder of a model that an adapter names, where it is here; else the name as a path."""
    try:
        return Path(resolve_model(named, reachable=False))
    except ModelError:
        return Path(named).expanduser()


def _last_name(path: str) -> str:
    """`Qwen2.5-7B` of a hub id, of a folder, and of a folder of the hub's cache."""
    cached = re.search(r"models--[^/]*--([^/]+)/snapshots/", path)
    return (cached[1] if cached else Path(path).name).lower()


def adapts_tied_embeddings(model: Any) -> bool:
    """Whether a PEFT model has an adapter on embeddings that are the head's weights as well."""
    base = model.get_base_model()
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False):
        return False
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    return any(hasattr(one, "base_layer") or hasattr(one, "modules_to_save") for one in ends)


def check_context(config: ModelConfig, n_prompt: int, cap: int) -> None:
    """ModelError when not even a prompt of `n_prompt` tokens and `cap` new ones fit the model's context window.

    Reads the model's configuration only, so that it is reported before weights are loaded.
    """
    hf_config = _read_config(config)
    context = getattr(hf_config, "max_position_embeddings", None)
    if context and n_prompt + cap > context:
        raise ModelError(
            f"{config.path} has a context of {context} tokens, too short for a prompt ({n_prompt} tokens without the "
            f"question) and generate.max_new_tokens={cap}: set that to less than {max(context - n_prompt, 1)}"
        )


def model_width(config: ModelConfig) -> int:
    """The model's hidden size, from its configuration alone; ModelError when that cannot be read."""
    return int(_read_config(config).get_text_config().hidden_size)


def _read_config(config: ModelConfig) -> Any:
    from transformers import AutoConfig

    source = resolve_model(config.path)
    with reading(config.path, "its configuration cannot be read"):
        return AutoConfig.from_pretrained(source, revision=config.revision, trust_remote_code=config.trust_remote_code)


def pick_device(device: str) -> str:
    """`device`, with 'auto' resolved to the accelerator of this machine, or 'cpu'."""
    import torch

    if device != "auto":
        return device
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator else "cpu"


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
