"""Training of all weights of a small model with Muon, and the folder that it is kept in.

The folder is a whole model, which an arm of the evaluation names as its `weights`, with `baseline.json` beside it:
settings, and the CPU seconds of the training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tokenskip.baselines.rows import IGNORE, Batch
from tokenskip.storage.disk import write_atomically
from tokenskip.training.muon import Muon

BASELINE = "baseline.json"
RATE = 0.01
WARMUP = 30
"""Steps, at the start and after every reset of the optimizer."""
PLATEAU = 0.5
"""Share of the steps after which the rate falls linearly to zero."""


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Mean cross entropy of the learned positions."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.visible, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    return cross_entropy(model, hidden, batch.labels)


def cross_entropy(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy: `hidden` (batch, seq, width) at i foretells `labels` (batch, seq) at i + 1."""
    at = labels[:, 1:] != IGNORE
    return functional.cross_entropy(model.lm_head(hidden[:, :-1][at]).float(), labels[:, 1:][at])


def fit(
    model: Any,
    steps: int,
    loss: Callable[[int], Tensor],
    *,
    rate: float = RATE,
    resets: Collection[int] = (),
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """CPU seconds of `steps` updates of all weights; `loss(step)` draws its own batch.

    `resets`: steps at which the optimizer forgets its momentum, as curricula do when the data changes.
    """
    began = time.process_time()
    model.train()
    since, total = 0, 0.0
    optimizer = Muon(model, rate)
    for step in range(steps):
        if step in resets:
            since, optimizer = step, Muon(model, rate)
        factor = min(1.0, (step - since + 1) / WARMUP) * min(1.0, (1 - step / steps) / (1 - PLATEAU))
        for group, full in zip(optimizer.param_groups, optimizer_rates(optimizer, rate), strict=True):
            group["lr"] = full * factor
        value = loss(step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += float(value.detach())
        if (step + 1) % 100 == 0:
            note(f"step {step + 1} of {steps}, loss {total / 100:.3f}")
            total = 0.0
    model.eval()
    return time.process_time() - began


def optimizer_rates(optimizer: Muon, rate: float) -> list[float]:
    """The full rate of each group: its own initial one."""
    return [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]


def save(model: Any, folder: Path, **about: Any) -> None:
    """The whole model and what is known about its training; the folder appears when it is complete."""
    draft = folder.with_name(f"{folder.name}.tmp")
    draft.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(draft)
    write_atomically(draft / BASELINE, json.dumps(about, indent=1) + "\n")
    draft.replace(folder)


def about(folder: Path) -> dict[str, Any]:
    """What `save` noted."""
    known: dict[str, Any] = json.loads((folder / BASELINE).read_text(encoding="utf-8"))
    return known
