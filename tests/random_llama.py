"""A small random Llama over the embedded tokenizer: what a mechanism does shows without any training."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenskip.config import ModelConfig, PromptConfig
from tokenskip.models.loading import load_tokenizer
from tokenskip.prompting.prompts import Prompts


@cache
def embedded_prompts() -> Prompts:
    return Prompts(load_tokenizer(ModelConfig(path="embedded")), PromptConfig())


def random_llama(layers: int = 2) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = embedded_prompts().tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()
