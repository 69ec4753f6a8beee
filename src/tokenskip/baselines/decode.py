"""Greedy decoding from a cache that a family has made itself: after thoughts, gist tokens or a join. No sampling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tokenskip.types import Completion


class State(NamedTuple):
    """Where decoding goes on from: logits (batch, vocabulary), cache, which columns count, the next positions."""

    logits: Tensor
    cache: Any
    mask: Tensor
    positions: Tensor


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and positions, each (batch, seq): all rows end in the last column."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor(row)
        mask[at, width - len(row) :] = 1
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def prefill(model: Any, rows: Sequence[Sequence[int]], pad: int) -> State:
    """The state behind these prompts."""
    ids, mask, positions = left_padded(rows, pad)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    return State(out.logits[:, -1], out.past_key_values, mask, positions[:, -1] + 1)


def greedy(model: Any, state: State, cap: int, stops: Collection[int]) -> list[list[int]]:
    """The tokens of each row, up to its first of `stops` (included) or `cap`."""
    logits, cache, mask, positions = state
    made: list[list[int]] = [[] for _ in range(len(mask))]
    ended = [False] * len(made)
    while True:
        tokens = logits.argmax(-1)
        for row, token in enumerate(tokens.tolist()):
            if not ended[row]:
                made[row].append(token)
                ended[row] = token in stops or len(made[row]) >= cap
        if all(ended):
            return made
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
        out = model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits, positions = out.logits[:, -1], positions + 1


def completion(tokenizer: Any, ids: Sequence[int], before: str = "", n_before: int = 0) -> Completion:
    """What a backend returns for these ids; `before` is what stands for `n_before` tokens that came first."""
    stopped = bool(ids) and ids[-1] == tokenizer.eos_token_id
    kept = list(ids[:-1] if stopped else ids)
    text = tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Completion(text=before + text, n_tokens=n_before + len(kept), finish="stop" if stopped else "length")
