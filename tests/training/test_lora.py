"""LoRA layers in one pass: what PEFT computes, to rounding, with its gradients; anything unusual is left to PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tokenskip.training.lora import fuse_lora


class Net(nn.Module):
    """Two layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., 6) -> (..., 6)."""
        out: torch.Tensor = self.down(torch.tanh(self.up(x)))
        return out


def adapted(dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """The net with an adapter whose B is not zero."""
    torch.manual_seed(0)
    model = get_peft_model(Net().to(dtype), LoraConfig(r=3, lora_alpha=12, target_modules=["up", "down"], **options))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


def passed(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the input and of every adapter's weight."""
    x = x.clone().requires_grad_()
    out = model(x)
    (out.float() ** 2).sum().backward()
    return [out, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]  # type: ignore[list-item]


def test_same_output_and_gradients_as_peft() -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    expected = passed(adapted(), x)
    model = adapted()
    assert fuse_lora(model) == 2
    found = passed(model, x)
    assert len(found) == 6
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_frozen_weights_in_bf16_under_autocast() -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    model = adapted()
    expected = passed(model, x)
    for module in model.modules():
        if type(module) is nn.Linear and not module.weight.requires_grad:
            module.to(torch.bfloat16)
    assert fuse_lora(model) == 2
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = passed(model, x)
    assert found[0].dtype is torch.bfloat16
    assert all(gradient.dtype is torch.float32 for gradient in found[1:])
    for a, b in zip(expected, found, strict=True):
        assert (a - b).norm() <= 0.03 * a.norm()


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_unusual_adapters_are_left_to_peft(options: dict[str, Any]) -> None:
    assert fuse_lora(adapted(**options)) == 0
