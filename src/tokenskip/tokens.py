"""How many of the target model's tokens a text has: the unit of every budget and every length."""

from __future__ import annotations

from typing import Any, cast

from tokenskip.types import TokenCounter


class _FastCounter:
    """Counts with the Rust tokenizer itself, without offsets: the rest would take most of the time."""

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        self._tokenizer = type(backend).from_str(backend.to_str())  # padding and truncation set elsewhere stay there
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, text: str) -> int:
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return cast("list[tuple[int, int]]", self._tokenizer.encode(text, add_special_tokens=False).offsets)


def token_counter(tokenizer: Any) -> TokenCounter:
    """A counter for a transformers tokenizer; a slow (Python) tokenizer counts but knows no offsets."""
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        return _FastCounter(tokenizer)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
