"""Streams weighted training batches of generated documents.

Reads nothing, writes nothing: batch number i of a run is a function of (seed, i), so a resumed run sees what an
unbroken one would have seen.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from embedded_model.registers import Document, document
from tokenskip.embedded.family import stories

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE: Final = -100
MIX_EARLY: Final = {"chatty": 30, "plain": 12, "telegraphic": 12, "dropout": 12, "drill": 30, "direct": 4}
MIX: Final = {"chatty": 46, "plain": 10, "telegraphic": 10, "dropout": 24, "drill": 6, "direct": 4}
# words that decide between doubling, tripling and halving are rare and easily confused
HARD_WORDS: Final = frozenset(
    ("twice", "three", "doubled", "doubles", "tripled", "triples", "times", "half", "two", "multiply", "divide")
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids, labels and loss weights, each (batch, seq); padding on the right."""

    ids: Tensor
    labels: Tensor
    weights: Tensor

    @property
    def n_tokens(self) -> int:
        """Tokens, padding included."""
        return int(self.ids.numel())


def ramp(progress: float, points: Sequence[tuple[float, float]]) -> float:
    """Piecewise linear interpolation through (progress, value) points."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if progress <= x1:
            return y0 + (y1 - y0) * (progress - x0) / (x1 - x0)
    return points[-1][1]


def filler_weight(progress: float) -> float:
    """Filler counts little at first: the reasoning is learned before the chatter."""
    return ramp(progress, ((0, 0.1), (0.15, 0.1), (0.4, 0.5), (0.7, 1.0), (1.0, 1.0)))


def _weight(kind: str, core: str, register: str, filler: float, entity: float) -> float:
    if kind == "op" and core in HARD_WORDS:
        return 4.0
    if register == "direct":
        return 0.3
    if kind in ("number", "op"):
        return 1.5 if kind == "number" else 1.0
    if kind in ("label", "entity"):
        return max(filler, 0.5) * (entity if kind == "entity" else 1.0)
    # which filler a dropout document keeps cannot be foreseen
    return filler * (0.3 if register == "dropout" else 1.0)


class Stream:
    """Length-bucketed batches of about `size` tokens."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", size: int, seed: int = 0, entity: float = 1.0) -> None:
        self.tokenizer, self.size, self.seed, self.entity = tokenizer, size, seed, entity
        self._cache: dict[str, list[int]] = {}

    def _piece(self, text: str) -> list[int]:
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids

    def encode(self, doc: Document, filler: float) -> tuple[list[int], list[float]]:
        """Ids and weights of one document; the prompt weighs nothing."""
        messages = [{"role": "system", "content": doc.system}] if doc.system else []
        messages.append({"role": "user", "content": doc.prompt})
        tokenizer: Any = self.tokenizer
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        weights = [0.0] * len(ids)
        # pieces are the tokenizer's own pre-tokens, so ids of pieces are the ids of the text
        for word in doc.words:
            piece = self._piece(word.text)
            ids += piece
            weights += [_weight(word.kind, word.text.strip(), doc.register, filler, self.entity)] * len(piece)
        return [*ids, tokenizer.eos_token_id], [*weights, 1.0]

    def batches(self, index: int, progress: float) -> list[Batch]:
        """Chunk number `index`: some batches of similar lengths in random order."""
        rng = random.Random(f"{self.seed}:{index}")
        mix = MIX_EARLY if progress < 0.15 else MIX
        filler = filler_weight(progress)
        docs = []
        for story in stories("pretrain", 160, start=160 * index, seed=self.seed + 100):
            register = rng.choices(list(mix), list(mix.values()))[0]
            docs.append(self.encode(document(story, register, rng), filler))
        docs.sort(key=lambda doc: len(doc[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for doc in docs:
            if groups[-1] and len(doc[0]) * (len(groups[-1]) + 1) > self.size * 1.1:
                groups.append([])
            groups[-1].append(doc)
        rng.shuffle(groups)
        return [self._collate(group) for group in groups]

    def _collate(self, group: list[tuple[list[int], list[float]]]) -> Batch:
        width = max(len(ids) for ids, _ in group)
        pad = int(self.tokenizer.pad_token_id or 0)
        ids = torch.full((len(group), width), pad)
        weights = torch.zeros(len(group), width)
        for row, (doc_ids, doc_weights) in enumerate(group):
            ids[row, : len(doc_ids)] = torch.tensor(doc_ids)
            weights[row, : len(doc_ids)] = torch.tensor(doc_weights)
        return Batch(ids=ids, labels=torch.where(weights > 0, ids, IGNORE), weights=weights)
