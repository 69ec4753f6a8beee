"""The training loss of equation 4, with logits only where there is a loss, and never all of them at once.

At a vocabulary of 50,000 the logits of a batch are the largest thing in a training by far, and more than half of them
belong to prompts, which have no loss. TRL leaves them out on GPUs only.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

CHUNK: Final = 256
"""Tokens whose logits are in memory together."""


class _HeadLoss(torch.autograd.Function):  # type: ignore[misc]
    """Summed cross entropy of `hidden @ weight.T`; its gradient is taken in the same pass over the chunks."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """`hidden` (tokens, width), `weight` (vocabulary, width), `targets` (tokens) -> a scalar in float32."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        head = weight.to(dtype)
        loss = torch.zeros((), device=hidden.device)
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets), CHUNK):
            x, y = hidden[start : start + CHUNK].to(dtype), targets[start : start + CHUNK, None]
            logits = (x @ head.T).float()
            log_z = logits.logsumexp(-1, keepdim=True)
            loss += (log_z - logits.gather(-1, y)).sum()
            gradient = logits.sub_(log_z).exp_()  # softmax - one-hot
            gradient.scatter_add_(-1, y, gradient.new_full((1, 1), -1.0).expand_as(y))
            gradient = gradient.to(dtype)
            to_hidden[start : start + CHUNK] = gradient @ head
            if to_weight is not None:
                to_weight += gradient.T @ x
        ctx.save_for_backward(to_hidden, to_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients of `forward`, scaled."""
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden * grad, None if to_weight is None else to_weight * grad, None


def summed_loss(model: Any, batch: dict[str, Tensor], *, plain: bool) -> Tensor:
    """Cross entropy summed over the tokens of a batch whose labels are not -100.

    Args:
        model: a causal LM.
        batch: `input_ids` and `labels`, (rows, tokens) each, padded on the right.
        plain: the model's logits are those of its head alone, see `has_plain_head`.
    """
    ids, targets = batch["input_ids"], batch["labels"][:, 1:]
    asked = targets != -100
    if plain:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        loss: Tensor = _HeadLoss.apply(hidden[asked], model.get_output_embeddings().weight, targets[asked])
        return loss
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits[asked].float(), targets[asked], reduction="sum")


@torch.no_grad()  # type: ignore[untyped-decorator]
def has_plain_head(model: Any) -> bool:
    """Whether the logits are the head's product with the last hidden state: no bias, scaling, soft cap or adapter."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    was_training = model.training
    model.eval()
    ids = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
    logits = model(input_ids=ids, use_cache=False).logits
    product = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(was_training)
    return bool(torch.equal(logits, product))
