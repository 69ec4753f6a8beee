"""Model names -> loaded models; what can be wrong with a name is said before anything is loaded.

Weights are read from safetensors only, and code that comes with a model runs only with `trust_remote_code: true`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tokenskip.config import ModelConfig
from tokenskip.embedded import model_path
from tokenskip.errors import ModelError

EMBEDDED = "embedded"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def resolve_model(path: str, *, reachable: bool = True) -> str:
    """`path` as transformers takes it: a folder that holds a model, or a hub id that can be reached.

    With `reachable=False` a hub id need not be to be had at the moment.

    Raises:
        ModelError: there is no such folder, it holds no model, or the hub id is neither cached nor reachable.
    """
    if path == EMBEDDED:
        return str(model_path())
    folder = Path(path).expanduser()
    if folder.is_dir():
        if (folder / "config.json").exists():
            return str(folder)
        if (folder / "adapter_config.json").exists():
            raise ModelError(f"{path} is an adapter, not a model: give its base as the model and this as --adapter")
        raise ModelError(f"{path} holds no model (no config.json in it)")
    if folder.exists():
        raise ModelError(f"{path} is a file: give the folder that holds the model")
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"no model folder {path}: give 'embedded', a local folder, or a hub id like Qwen/Qwen2.5-7B")
    if reachable and _is_offline() and not _is_cached(path):
        raise ModelError(
            f"{path} is neither a folder here nor in the local hub cache, and HF_HUB_OFFLINE is set: "
            "unset it, or give the path of a local copy"
        )
    return path


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
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.path}: the tokenizer cannot be loaded: {_first_line(error)}") from None
    if not tokenizer.is_fast:
        raise ModelError(f"{config.path}: only a slow tokenizer; a fast one (tokenizer.json) is needed for offsets")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: ModelConfig, adapter: Path | None = None, *, fold: bool = True) -> Any:
    """The model in eval mode on its device; an adapter's weights are merged in memory, so that it costs no time.

    Without `fold` the adapter stays beside the weights, as PEFT applies it.

    Raises:
        ModelError: the weights or the adapter cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve_model(config.path)
    is_peft = adapter is not None and (adapter / "adapter_config.json").exists()
    if adapter is not None and is_peft and not (adapter / "adapter_model.safetensors").exists():
        raise ModelError(f"{adapter} has no adapter_model.safetensors (pickled weights are not read)")
    device = pick_device(config.device)
    dtype = {"auto": torch.float32 if device == "cpu" else torch.bfloat16}.get(config.dtype) or getattr(
        torch, config.dtype
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source if adapter is None or not (adapter / "config.json").exists() else str(adapter),
            revision=config.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
        )
        if is_peft:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
            if adapts_tied_embeddings(model):
                raise ModelError(
                    f"{adapter} changes the embeddings, which are tied to the head of {config.path}: merged, it would "
                    "change both; train it without embed_tokens and lm_head, or with train.method=full"
                )
            model = model.merge_and_unload() if fold else model
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{config.path}: the model cannot be loaded: {_first_line(error)}") from None
    return model.to(device).eval()


def adapts_tied_embeddings(model: Any) -> bool:
    """Whether a PEFT model has an adapter on embeddings that are the head's weights as well."""
    base = model.get_base_model()
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False):
        return False
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    return any(hasattr(one, "base_layer") or hasattr(one, "modules_to_save") for one in ends)


def check_context(config: ModelConfig, n_prompt: int, cap: int) -> None:
    """ModelError when not even a prompt of `n_prompt` tokens and `cap` new ones fit the model's context window.

    Reads the model's configuration only, so that it is told before weights are loaded.
    """
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(
            resolve_model(config.path), revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.path}: its configuration cannot be read: {_first_line(error)}") from None
    context = getattr(found, "max_position_embeddings", None)
    if context and n_prompt + cap > context:
        raise ModelError(
            f"{config.path} has a context of {context} tokens, too short for a prompt ({n_prompt} tokens without the "
            f"question) and generate.max_new_tokens={cap}: set that to less than {max(context - n_prompt, 1)}"
        )


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


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{line} Read it; model.trust_remote_code=true then runs it" if "custom code" in line else line
