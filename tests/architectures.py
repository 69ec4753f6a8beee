"""Random-weight models of the architectures that recipes name, each with a tokenizer and template made here.

The templates follow the families' published ones in what can go wrong: BOS, trimmed user turns, a refused system role,
a default system turn, an opened think block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripted_runs import CORPUS

_TURNS = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
)
_OPEN = "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"

TEMPLATES: dict[str, str | None] = {
    "llama": (
        "{{- bos_token -}}{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] | trim -%}"
        "{%- set messages = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- endif -%}"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n' }}"
        "{{- system + '<|eot_id|>' -}}"
        "{%- for message in messages -%}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{{- message['content'] | trim + '<|eot_id|>' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
    ),
    "qwen2": (
        "{%- if messages[0]['role'] != 'system' -%}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}" + _TURNS + _OPEN
    ),
    "qwen3": (
        "{%- set ns = namespace(query=0) -%}{%- for message in messages[::-1] -%}"
        "{%- if message.role == 'user' and message.content is string -%}"
        "{%- set ns.query = messages | length - 1 - loop.index0 -%}{%- endif -%}{%- endfor -%}" + _TURNS + _OPEN +
        "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false -%}"
        "{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
    ),
    "r1": (
        "{{ bos_token }}{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        "{{ '<｜User｜>' + message['content'] }}{%- else -%}{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
        "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\n' }}{%- endif -%}"
    ),
    "mistral": (
        "{%- set loop_messages = messages -%}{{- bos_token -}}{%- for message in loop_messages -%}"
        "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
        "{{- raise_exception('roles must alternate user and assistant') -}}{%- endif -%}"
        "{%- if message['role'] == 'user' -%}{{ '[INST] ' + message['content'] + '[/INST]' }}"
        "{%- else -%}{{ ' ' + message['content'] + eos_token }}{%- endif -%}{%- endfor -%}"
    ),
    "gemma": (
        "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
        "{{ raise_exception('System role not supported') }}{%- endif -%}{%- for message in messages -%}"
        "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
    ),
    "gpt2": None,
}  # fmt: skip
SPECIAL: dict[str, tuple[str | None, str, list[str]]] = {  # bos, eos, further special tokens
    "llama": ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
    "qwen2": (None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"]),
    "qwen3": (None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"]),
    # beside a Qwen2 model transformers loads Qwen's tokenizer class, which adds its <|endoftext|> where it is missing
    "r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>", "<|endoftext|>"]),
    "mistral": ("<s>", "</s>", ["[INST]", "[/INST]"]),
    "gemma": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "gpt2": ("<|endoftext|>", "<|endoftext|>", []),
}


def family_tokenizer(family: str) -> Any:
    """A byte-level BPE with the family's special tokens and template, and its BOS where it adds one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bos, eos, more = SPECIAL[family]
    special = list(dict.fromkeys([token for token in (bos, eos) if token] + more))
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator(CORPUS, trainer)
    if bos and bos != eos:  # as Llama's and Gemma's do: whoever tokenises a rendered prompt anew doubles it
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokens.token_to_id(bos))]
        )
    names = {"eos_token": eos, **({"bos_token": bos} if bos else {})}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, **names)
    tokenizer.chat_template = TEMPLATES[family]
    return tokenizer


def _config(family: str, tokenizer: Any) -> Any:
    import transformers

    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if family == "llama":
        return transformers.LlamaConfig(**shape)
    if family in ("qwen2", "r1"):
        return transformers.Qwen2Config(**shape, tie_word_embeddings=family == "qwen2")
    if family == "qwen3":
        return transformers.Qwen3Config(**shape)
    if family == "mistral":
        return transformers.MistralConfig(**shape, sliding_window=64)
    if family == "gemma":
        return transformers.Gemma2Config(**shape, sliding_window=64, query_pre_attn_scalar=16)
    return transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def family_model(family: str, folder: Path) -> Path:
    """A model folder of that architecture with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = family_tokenizer(family)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_config(family, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
