"""TRL's trainer with two changes: batches hold whole chains where asked, and a CPU's cores share every batch.

`Chains` gives the order of rows. On a CPU a batch is cut into parts of about equal length and size, each without much
padding, and threads take a part each: memory follows the part, not the batch. How a batch is cut depends on the batch
alone and gradients are added in order, so the number of threads changes no byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from trl import SFTTrainer

from tokenskip.distributed import world
from tokenskip.models.hardware import cores
from tokenskip.training.loss import has_plain_head, summed_loss

PART = 1 << 24
"""Largest part of a batch, in tokens × width × layers: 970 tokens of a 135M model, where speed no longer grows."""
WIDEST = 4096
"""Tokens of a part at most, however small the model."""
THREADS = 4
"""More would wait for Python's lock."""


class Chains(Sampler[int]):  # type: ignore[misc]
    """Row indices for an epoch: chains shuffled, the rows of one chain (all its ratios) in one batch.

    Batches are filled with the next chain, in shuffled order, that still fits; one is split only when none does.
    """

    def __init__(self, chains: Sequence[str], batch_size: int, seed: int) -> None:
        rows: dict[str, list[int]] = {}
        for row, chain in enumerate(chains):
            rows.setdefault(chain, []).append(row)
        self.rows = list(rows.values())
        self.n, self.batch_size, self.seed = len(chains), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; it depends on the seed and the epoch alone, so that a resumed training has it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        waiting: dict[int, deque[int]] = {}
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        rank = {chain: at for at, chain in enumerate(order)}
        for chain in order:
            waiting.setdefault(len(self.rows[chain]), deque()).append(chain)
        room = self.batch_size
        while waiting:
            fitting = [size for size in waiting if size <= room] or list(waiting)
            size = min(fitting, key=lambda size: rank[waiting[size][0]])
            yield from self.rows[waiting[size].popleft()]
            if not waiting[size]:
                del waiting[size]
            room = (room - size) % self.batch_size or self.batch_size


class Trainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer` that reads rows in the order of `chains`, if given, and on a CPU trains as this module says."""

    def __init__(self, *, chains: Sequence[str] | None = None, **options: Any) -> None:
        self.chains = chains
        super().__init__(**options)
        core = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self.core = core
        self.in_parts = self.args.device.type == "cpu" and world() == 1 and self._has_own_loss()
        if self.in_parts:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
                self.plain = has_plain_head(core)
            self.trained = [p for p in self.model.parameters() if p.requires_grad]
            self.threads = 1 if _draws(self.model) else min(THREADS, cores())
            self.pool = ThreadPoolExecutor(self.threads)

    def _has_own_loss(self) -> bool:
        """Whether nothing in `train.trainer` asks for another loss, or another way to it, than the one here."""
        args = self.args
        usual = args.loss_type == "nll" and not args.label_smoothing_factor and self.compute_loss_func is None
        unusual = args.packing or args.padding_free or args.activation_offloading or args.gradient_checkpointing
        return usual and not unusual and not args.neftune_noise_alpha and not self.aux_loss_enabled

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.chains is None:
            return super()._get_train_sampler(train_dataset)
        return Chains(
            self.chains, self.args.train_batch_size * self.args.gradient_accumulation_steps * world(), self.args.seed
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The mean loss of a batch; the gradients are added to `.grad`."""
        if not self.in_parts:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        model.train()
        config = self.core.config.get_text_config()
        largest = min(WIDEST, PART // (config.hidden_size * config.num_hidden_layers))
        parts = split_batch(inputs, largest)
        n = num_items_in_batch
        if n is None:
            n = (inputs["labels"][:, 1:] != -100).sum() * self.args.gradient_accumulation_steps
        intra = torch.get_num_threads()
        total = torch.zeros(())
        for part_loss, gradients in self.pool.map(lambda part: self._gradients(part, n, intra), parts):
            total += part_loss
            for p, gradient in zip(self.trained, gradients, strict=True):
                if gradient is not None:
                    p.grad = gradient if p.grad is None else p.grad.add_(gradient)
        return total

    def _gradients(self, part: dict[str, Tensor], n: Any, intra: int) -> tuple[Tensor, Sequence[Tensor | None]]:
        """A part's share of the mean loss and its gradients; autocast and thread counts are each thread's own."""
        torch.set_num_threads(max(1, min(intra, cores() // self.threads)))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            loss = summed_loss(self.core, part, plain=self.plain) / n
        return loss.detach(), torch.autograd.grad(loss, self.trained, allow_unused=True)


def _draws(model: nn.Module) -> bool:
    """Whether the model draws random numbers: threads would take them from one generator in any order."""
    config = getattr(model, "config", None)
    dropouts = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    return dropouts or bool(getattr(config, "attention_dropout", 0))


def split_batch(batch: dict[str, Tensor], largest: int) -> list[dict[str, Tensor]]:
    """A batch padded on the right, as an even number of parts, rows sorted by length, none padded beyond its longest.

    `largest`: tokens of a part, padding included; a longer row is a part by itself.
    """
    lengths = batch["attention_mask"].sum(-1)
    order = lengths.argsort(stable=True, descending=True).tolist()
    n_tokens = int(lengths.sum())
    n_parts = min(len(order), 2 * -(-n_tokens // (2 * largest)))
    parts: list[list[int]] = [[]]
    taken = 0
    for row in order:
        width = int(lengths[parts[-1][0]]) if parts[-1] else 0
        full = taken >= n_tokens * len(parts) / n_parts or (len(parts[-1]) + 1) * width > max(largest, width)
        if parts[-1] and full:
            parts.append([])
        parts[-1].append(row)
        taken += int(lengths[row])
    columns = ("input_ids", "labels")  # no mask: nothing but padding comes after a row, and nothing attends to it
    return [{key: batch[key][rows, : int(lengths[rows[0]])] for key in columns} for rows in parts]
