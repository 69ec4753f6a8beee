"""Muon in fp32: momentum whose matrix updates are orthogonalised, for training all weights of a small model on a CPU.

Reads and writes nothing. `torch.optim.Muon` iterates in bf16, which is slow on CPUs without bf16 units; this one
stays in fp32 and orthogonalises all matrices of one shape in one batch (Keller Jordan's quintic Newton-Schulz).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

ADAM_SHARE: Final = 0.15


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices, (batch, rows, columns) with rows <= columns, by Newton-Schulz iteration."""
    x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        b = -4.7750 * a + 2.0315 * (a @ a)
        x = 3.4445 * x + b @ x
    return x


class Muon(torch.optim.AdamW):  # type: ignore[misc]
    """Muon for the weight matrices of a model, AdamW for its embeddings, norms and biases.

    `lr` is that of the matrices; the others get `ADAM_SHARE` of it, as in the pretraining of the embedded model.
    """

    def __init__(self, model: torch.nn.Module, lr: float = 0.02, momentum: float = 0.95) -> None:
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, p in model.named_parameters():
            if p.requires_grad:
                (matrices if p.ndim == 2 and "embed" not in name and "lm_head" not in name else rest).append(p)
        groups = [{"params": matrices, "momentum": momentum}, {"params": rest, "lr": ADAM_SHARE * lr}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Updates the matrices, all of one shape at once, then the rest."""
        assert closure is None
        for group in self.param_groups:
            if "momentum" not in group:
                continue
            shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[(min(p.shape), max(p.shape))].append(p)
            for same in shapes.values():
                self._update(same, group)
                for p in same:
                    p.grad = None  # AdamW leaves out what has no gradient
        super().step()

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        updates = []
        for p in params:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # AdamW looks for it when a checkpoint is loaded
                state["momentum"] = torch.zeros_like(p)
            grad = p.grad
            assert grad is not None
            state["momentum"].lerp_(grad, 1 - group["momentum"])
            update = grad.lerp(state["momentum"], group["momentum"])
            updates.append(update if p.shape[0] <= p.shape[1] else update.mT)
        for p, update in zip(params, orthogonalise(torch.stack(updates)), strict=True):
            scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            p.add_(update if p.shape[0] <= p.shape[1] else update.mT, alpha=-group["lr"] * scale)
