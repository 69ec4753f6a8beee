"""A token-classification checkpoint (XLM-RoBERTa or BERT, two labels) and p(keep) of its tokens, batched.

What `llmlingua2` and `llmlingua_rule` share. On a GPU batches are sorted by length and padded to their own longest row.
On a CPU texts are laid end to end without padding (`_packed`), in batches small enough that a layer's activations stay
in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch

from tokenskip.errors import ModelError
from tokenskip.models.loading import load_weights
from tokenskip.models.weights import reading
from tokenskip.scorers._causal import batches, check_batch_tokens, check_choice
from tokenskip.scorers._packed import packed_logits, packs

DEFAULT_MODEL = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank"
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(eq=False, repr=False)
class Classifier:
    """A token classifier with its tokenizer; a base of the scorers that use one.

    `model` is a local folder, a hub id, "embedded", or a loaded model (then with `tokenizer`). Afterwards it is the
    loaded one, and `family` is "xlm-roberta" or "bert", by the checkpoint's own config.
    """

    model: Any = DEFAULT_MODEL
    _: KW_ONLY
    tokenizer: Any = None
    batch_tokens: int = 8192
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None

    def __post_init__(self) -> None:
        check_batch_tokens(self.batch_tokens)
        check_choice("dtype", self.dtype, DTYPES)
        if isinstance(self.model, str | Path):
            self.model, self.tokenizer = _load(str(self.model), self.tokenizer, self.device, self.dtype, self.revision)
        elif self.tokenizer is None:
            raise ModelError("a loaded token classifier needs its tokenizer: tokenizer=...")
        config = self.model.eval().config
        _check(config)
        self.family = config.model_type
        reserved = config.pad_token_id + 1 if self.family == "xlm-roberta" else 0  # RoBERTa counts positions from there
        self.max_length = min(512, config.max_position_embeddings - reserved)
        on_cpu = self.model.device.type == "cpu"
        self.packed = on_cpu and not config.is_decoder
        if on_cpu:
            self.batch_tokens = min(self.batch_tokens, max(1024, 2**18 // config.hidden_size))

    def keep_probabilities(
        self, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """(index, p(keep) of each token as a numpy array, float32 or finer), longest rows first.

        `rows` are whole inputs, framing included; `masks` hides single tokens of them from attention.
        """
        pad_id = self.model.config.pad_token_id or 0
        plain = [
            i for i, row in enumerate(rows) if self.packed and pad_id not in row and (masks is None or all(masks[i]))
        ]
        yield from self._packed(rows, plain)
        rest = sorted(set(range(len(rows))) - set(plain))
        yield from self._padded(rows, masks, rest, pad_id)

    def _packed(self, rows: Sequence[Sequence[int]], which: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for group in packs([len(rows[i]) for i in which], self.batch_tokens):
            batch = [which[i] for i in group]
            with torch.inference_mode():
                logits = packed_logits(self.model, [rows[i] for i in batch])
                keep = _keep(logits)
            for index, own in zip(batch, keep.split([len(rows[i]) for i in batch]), strict=True):
                yield index, own.numpy()

    def _padded(
        self, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]] | None, which: Sequence[int], pad_id: int
    ) -> Iterator[tuple[int, Any]]:
        for group in batches([len(rows[i]) for i in which], self.batch_tokens):
            batch = [which[i] for i in group]
            width = len(rows[batch[0]])
            ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            for i, index in enumerate(batch):
                ids[i, : len(rows[index])] = torch.tensor(rows[index], dtype=torch.long)
                mask[i, : len(rows[index])] = 1 if masks is None else torch.tensor(masks[index], dtype=torch.long)
            with torch.inference_mode():
                device = self.model.device
                logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
                keep = _keep(logits).numpy()
            for i, index in enumerate(batch):
                yield index, keep[i, : len(rows[index])]


def _keep(logits: Any) -> Any:
    """p(keep) on the CPU, in float32 at least."""
    return torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))[..., 1].cpu()


def _load(path: str, tokenizer: Any, device: str, dtype: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

    if path == "embedded":
        from tokenskip.embedded import compressor_path

        path = str(compressor_path())
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch_dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    with reading(path, "it cannot be loaded as a token classifier (folder or hub id)"):
        _check(AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False))
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    model = load_weights(AutoModelForTokenClassification, path, revision=revision, dtype=torch_dtype)
    return model.to(device), tokenizer


def _check(config: Any) -> None:
    """ModelError unless the checkpoint is of a family and with labels that the scorer knows."""
    if config.model_type not in ("xlm-roberta", "bert"):
        raise ModelError(f"llmlingua2 needs an XLM-RoBERTa or BERT token classifier; this is {config.model_type!r}")
    if config.num_labels != 2:
        raise ModelError(f"llmlingua2 needs a classifier with 2 labels (drop, keep); this one has {config.num_labels}")
