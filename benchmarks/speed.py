"""What the speed benchmarks share: random weights of real shapes, prompts, and `docs/results/speed.json`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import RESULTS

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 1152,
    },
    "embedded": {
        "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 1152,
    },
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip


def random_model(shape: str, dtype: str = "float32", device: str = "cpu") -> Any:
    """A causal LM of that shape: Qwen2's architecture for its shapes, Llama's for the others."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    values = {"tie_word_embeddings": True, "max_position_embeddings": 8192, "eos_token_id": 2, **SHAPES[shape]}
    values |= {"bos_token_id": None, "pad_token_id": 0}
    torch.manual_seed(0)
    make, config = (Qwen2ForCausalLM, Qwen2Config) if shape.startswith("qwen") else (LlamaForCausalLM, LlamaConfig)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            return make(config(**values)).eval()
    finally:
        torch.set_default_dtype(before)


def load_questions(data: Path | None, n: int) -> list[str]:
    """`n` questions of a JSONL file (key `question`), or of the embedded family."""
    if data is not None:
        lines = data.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["question"] for line in lines[:n]]
    from tokenskip.config import TaskConfig
    from tokenskip.tasks.embedded import EmbeddedTask

    return [problem.question for problem in EmbeddedTask(TaskConfig()).problems("test", n)]


def bpe_tokenizer(texts: Sequence[str], size: int = 8000) -> Any:
    """A byte-level BPE learned from the texts: about as many tokens a word as a real model's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ["<pad>", "<user>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<eos>", pad_token="<pad>", padding_side="left")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    from tokenskip.models.hardware import cores, has_bf16

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": card or torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "bf16": has_bf16("cuda" if card else "cpu"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write(section: str, result: dict[str, Any], file: Path | None, *, publish: bool) -> None:
    """Print a result, and write it to a file of its own and to its section of `docs/results/speed.json`."""
    text = json.dumps(result, indent=1)
    print(text, flush=True)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
    if publish:
        page = RESULTS / "speed.json"
        sections = json.loads(page.read_text(encoding="utf-8")) if page.exists() else {}
        page.write_text(json.dumps({**sections, section: result}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
