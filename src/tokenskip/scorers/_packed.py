"""An encoder over texts laid end to end, for CPUs: no padding is computed, and no attention mask is read.

Reads a loaded XLM-RoBERTa or BERT token classifier; returns logits. The layers are the model's own, called one by one;
what differs from its `forward` is the shape: (tokens, hidden) in place of (batch, seq, hidden), so that texts of
different lengths share the matrix products, with attention inside each text alone. Equal to the padded pass up to
float32 rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


def packs(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices, longest first, in groups of at most `budget` tokens together; a longer row is a group of its own."""
    group: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if group and total + lengths[index] > budget:
            yield group
            group, total = [], 0
        group.append(index)
        total += lengths[index]
    if group:
        yield group


def packed_logits(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Logits of all tokens of `rows`, (tokens, labels), row after row.

    No row may hold the padding id: XLM-RoBERTa gives every such token the same position.
    """
    config = model.config
    first = config.pad_token_id + 1 if config.model_type == "xlm-roberta" else 0
    device = model.device
    ids = torch.tensor([[id for row in rows for id in row]], device=device)
    positions = torch.tensor([[first + i for row in rows for i in range(len(row))]], device=device)
    encoder = model.base_model
    hidden = encoder.embeddings(input_ids=ids, position_ids=positions, token_type_ids=torch.zeros_like(ids))[0]
    lengths = [len(row) for row in rows]
    for layer in encoder.encoder.layer:
        output = layer.attention.output
        mixed = _attend(layer.attention.self, hidden, lengths, config.num_attention_heads)
        hidden = output.LayerNorm(output.dense(mixed).add_(hidden))
        inner = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(hidden))
        hidden = layer.output.LayerNorm(layer.output.dense(inner).add_(hidden))
    return model.classifier(hidden)


def _attend(attention: Any, hidden: Any, lengths: Sequence[int], n_heads: int) -> Any:
    """Every text attends to itself: (tokens, hidden) -> (tokens, hidden)."""
    shape = (1, hidden.shape[0], n_heads, -1)
    query, key, value = (
        project(hidden).view(shape).transpose(1, 2) for project in (attention.query, attention.key, attention.value)
    )
    parts = [
        scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[0]
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
