"""Decoding by the model's own forward: rows enter the batch when others end, and the cache is written in place.

transformers' `generate` keeps finished rows to the end of the batch and copies the whole cache at every step
(`torch.cat`). Here the keys and values lie in buffers allocated once. All rows write to the same column, `end`; a
row's prompt is laid so that it ends just before it, whenever the row enters:

    row 0   . p p p p a a a a a |        p: prompt, a: answer, .: masked
    row 1   . . . . . . p p a a |        entered when another row had ended
                          end  ^

Positions are each row's own, so columns carry no meaning but "before" and "after", and a row's answer does not depend
on its neighbours (beyond rounding).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from tokenskip.types import Sampling

PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, that go through the model at once."""
SLACK = 64
"""Columns beyond the longest prompt and answer, so that the buffers are moved back only now and then."""
REFILL = 8
"""Rows enter or leave when an eighth of the batch has ended: a prefill or a copy of the cache then pays."""


@dataclass
class Request:
    """A prompt under way.

    `uniforms`: a random number in [0, 1) for each token, None where decoding is greedy; `start`: its first column.
    """

    index: int
    prompt: Sequence[int]
    cap: int
    uniforms: Tensor | None
    made: list[int] = field(default_factory=list)
    ended: bool = False
    start: int = 0

    @property
    def position(self) -> int:
        """Where in its own text the last token made is."""
        return len(self.prompt) + len(self.made) - 1


class _Columns:
    """The columns of the cache in use, `begin` to `end`; the next token of every row is written at `end`."""

    begin = 0
    end = 0


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, (rows, heads, columns, head size), allocated once and written in place."""

    def __init__(self, columns: _Columns, like: DynamicLayer, rows: int, capacity: int) -> None:
        super().__init__()
        self.columns = columns
        self.keys, self.values = (
            tensor.new_zeros(rows, tensor.shape[1], capacity, tensor.shape[3]) for tensor in (like.keys, like.values)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one token of every row; the keys and values of the columns in use."""
        columns, n = self.columns, len(key_states)
        self.keys[:n, :, columns.end] = key_states[:, :, 0]
        self.values[:n, :, columns.end] = value_states[:, :, 0]
        used = slice(columns.begin, columns.end + 1)
        return self.keys[:n, :, used], self.values[:n, :, used]

    def get_seq_length(self) -> int:
        """Columns before the one being written."""
        return self.columns.end


def can_decode(model: Any) -> bool:
    """Whether the model's cache is keys and values of all columns and nothing else, and its attention takes a mask."""
    wanted = {"input_ids", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
    config = model.config
    if config.is_encoder_decoder or getattr(config, "_attn_implementation", None) != "sdpa":
        return False
    if not wanted <= inspect.signature(type(model).forward).parameters.keys():
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def row_bytes(model: Any, columns: int) -> int:
    """Memory that the keys and values of a row of so many columns take."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * columns * model.dtype.itemsize)


class Decoder:
    """Completes requests with a model, at most `rows` of them at a time."""

    def __init__(self, model: Any, *, eos_ids: set[int], pad_id: int, rows: int, sampling: Sampling) -> None:
        self.model, self.device = model, model.device
        self.eos_ids, self.pad_id = eos_ids, pad_id
        self.rows, self.sampling = rows, sampling
        self.columns = _Columns()
        self.slots: list[Request] = []
        self.cache: Any = None

    def run(self, requests: Sequence[Request]) -> Iterator[Request]:
        """The requests as they end, `made` filled in. The longest prompts enter first."""
        if not requests:
            return
        waiting = deque(sorted(requests, key=lambda request: (-len(request.prompt), request.index)))
        self.rows = min(self.rows, len(waiting))
        self.capacity = len(waiting[0].prompt) + max(request.cap for request in requests) + SLACK
        self.mask = torch.zeros(self.rows, self.capacity, dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            self._enter([waiting.popleft() for _ in range(self.rows)], list(range(self.rows)))
            while self.slots:
                ended = [slot for slot, request in enumerate(self.slots) if request.ended]
                if len(ended) < max(1, len(self.slots) // REFILL):
                    self._step()
                    continue
                yield from [self.slots[slot] for slot in ended]
                taken = ended[: len(waiting)]
                self._enter([waiting.popleft() for _ in taken], taken)
                if len(taken) < len(ended):
                    self._leave(set(ended[len(taken) :]))

    def _step(self) -> None:
        """One token for every row; those that have ended compute along until they leave."""
        if self.columns.end == self.capacity:
            self._move_back()
        n, columns = len(self.slots), self.columns
        self.mask[:n, columns.end] = True
        out = self.model(
            input_ids=torch.tensor([[request.made[-1]] for request in self.slots], device=self.device),
            attention_mask=self.mask[:n, None, None, columns.begin : columns.end + 1],
            position_ids=torch.tensor([[request.position] for request in self.slots], device=self.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        columns.end += 1
        self._take(self.slots, out.logits[:, -1])

    def _enter(self, entering: Sequence[Request], slots: Sequence[int]) -> None:
        """Put requests on free slots: their prompts end at the column where all rows write next."""
        if not entering:
            return
        longest = max(len(request.prompt) for request in entering)
        if max(self.columns.end, longest) >= self.capacity:
            self._move_back()
        self.columns.end = max(self.columns.end, longest)
        self.slots += [entering[0]] * (max(slots) + 1 - len(self.slots))
        for slot, request in zip(slots, entering, strict=True):
            self.slots[slot] = request
        n = max(1, PREFILL_TOKENS // longest)
        for at in range(0, len(entering), n):
            self._prefill(entering[at : at + n], slots[at : at + n])
        self._set_begin()

    def _prefill(self, entering: Sequence[Request], slots: Sequence[int]) -> None:
        """The cache of these prompts, and their first tokens."""
        width, end = max(len(request.prompt) for request in entering), self.columns.end
        ids = torch.full((len(entering), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for row, (slot, request) in enumerate(zip(slots, entering, strict=True)):
            request.start = end - len(request.prompt)
            ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, width - len(request.prompt) :] = 1
            self.mask[slot] = False
            self.mask[slot, request.start : end] = True
        out = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(self.device),
            past_key_values=DynamicCache(config=self.model.config),
            use_cache=True,
            logits_to_keep=1,
        )
        if self.cache is None:
            layers = out.past_key_values.layers
            self.cache = Cache(layers=[_Layer(self.columns, layer, self.rows, self.capacity) for layer in layers])
        at = torch.tensor(slots, device=self.device)
        for layer, filled in zip(self.cache.layers, out.past_key_values.layers, strict=True):
            layer.keys[at, :, end - width : end] = filled.keys
            layer.values[at, :, end - width : end] = filled.values
        self._take(entering, out.logits[:, -1])

    def _leave(self, slots: set[int]) -> None:
        """Take rows out of the batch; the others move up."""
        kept = [slot for slot in range(len(self.slots)) if slot not in slots]
        self.slots = [self.slots[slot] for slot in kept]
        at = torch.tensor(kept, dtype=torch.long, device=self.device)
        self.mask[: len(kept)] = self.mask[at]
        self._set_begin()
        used = slice(self.columns.begin, self.columns.end)
        for layer in self.cache.layers:
            layer.keys[: len(kept), :, used] = layer.keys[at, :, used]
            layer.values[: len(kept), :, used] = layer.values[at, :, used]

    def _move_back(self) -> None:
        """Move the columns in use to the front of the buffers."""
        self._set_begin()  # rows may have ended since it was set, and wait to leave
        by, end = self.columns.begin, self.columns.end
        assert by, "a row is longer than its prompt and cap"
        for layer in self.cache.layers:
            layer.keys[:, :, : end - by] = layer.keys[:, :, by:end].clone()
            layer.values[:, :, : end - by] = layer.values[:, :, by:end].clone()
        self.mask[:, : end - by] = self.mask[:, by:end].clone()
        self.mask[:, end - by :] = False
        for request in self.slots:
            request.start -= by
        self.columns.begin, self.columns.end = 0, end - by

    def _set_begin(self) -> None:
        """Rows that have ended need no columns, though they may still be in the batch."""
        under_way = (request.start for request in self.slots if not request.ended)
        self.columns.begin = min(under_way, default=self.columns.end)

    def _take(self, requests: Sequence[Request], logits: Tensor) -> None:
        """Choose the next token of each row and note it where the row has not ended."""
        for request, token in zip(requests, self._choose(logits.float(), requests), strict=True):
            if not request.ended:
                request.made.append(token)
                request.ended = token in self.eos_ids or len(request.made) == request.cap

    def _choose(self, logits: Tensor, requests: Sequence[Request]) -> list[int]:
        """The most probable tokens, or drawn from the smallest set of tokens that holds `top_p` (nucleus sampling)."""
        if self.sampling.temperature == 0:
            return list(logits.argmax(-1).tolist())
        uniforms = [
            request.uniforms[len(request.made) % request.cap] for request in requests if request.uniforms is not None
        ]
        return list(draw(logits, torch.stack(uniforms), self.sampling).tolist())


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """The token of each row of (rows, vocabulary) logits: inverse transform sampling by one number in [0, 1) a row.

    From the smallest set of tokens that have a probability of `top_p` together, at `temperature`.
    """
    p, order = torch.softmax(logits / sampling.temperature, -1).sort(dim=-1, descending=True, stable=True)
    p = torch.where(p.cumsum(-1) - p < sampling.top_p, p, 0)
    up_to = p.cumsum(-1)
    at = torch.searchsorted(up_to, uniforms.to(logits.device)[:, None] * up_to[:, -1:], right=True)
    last = (p > 0).sum(-1, keepdim=True) - 1  # rounding may put a draw of almost 1 at the sum of all
    return order.gather(-1, torch.minimum(at, last))[:, 0]
