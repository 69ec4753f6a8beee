"""What all tests share: one thread, no hub, and a model folder small enough to train in a test."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two threads on two cores wait for each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault(
    "TOKENSKIP_TRUST",
    "scripted_runs,bent_ratio,test_protocols,test_recipes,test_candidates,test_untrained_arms,test_preference",
)  # our own plug-ins

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from scripted_runs import CHAT_TEMPLATE, CORPUS

# a busy machine is no failure: pytest's own timeout catches what hangs
# the same inputs every time, so that a change fails for what it changes
# TOKENSKIP_HUNT=10 draws others, ten times as many
HUNT = int(os.environ.get("TOKENSKIP_HUNT", "0"))
settings.register_profile("tokenskip", deadline=None, derandomize=not HUNT, max_examples=100 * max(1, HUNT))
settings.load_profile("tokenskip")


def examples(n: int, **others: Any) -> settings:
    """Settings of a property that draws `n` examples, and more in a hunt."""
    return settings(max_examples=n * max(1, HUNT), deadline=None, **others)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the `tokenskip` script with these arguments, in this process."""
    from tokenskip import cli

    monkeypatch.setattr(sys, "argv", ["tokenskip", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.fixture(autouse=True, scope="module")
def _frozen_heap() -> None:
    """A run collects garbage when it ends, which takes half a second among all that pytest has loaded by then."""
    gc.collect()
    gc.freeze()


def make_tokenizer() -> Any:
    """A byte-level BPE of 320 tokens with a chat template; every text has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<eos>", "<user>", "<bot>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def tokenizer() -> Any:
    """A fresh tiny tokenizer: a test may change its template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `save_tiny_model`."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def save_tiny_model(folder: Path) -> Path:
    """A Llama of random weights with its tokenizer: two layers of 32, some 100 KB."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
