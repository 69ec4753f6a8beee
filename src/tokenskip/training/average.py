"""The mean of the trained weights over the last steps (stochastic weight averaging, arXiv 1803.05407).

Single trainings of one recipe differ by points, because the last steps move the weights about; their mean lies near the
middle of where they move. The mean is kept in the optimizer's state, so that checkpoints have it: a resumed training
ends in the same bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

KEY = "average"


class Average(TrainerCallback):  # type: ignore[misc]
    """Averages the trained weights over the last `share` of the steps and leaves the model with the mean."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Take the weights of this step into the mean, if it is one of the last."""
        n = state.global_step - round(state.max_steps * (1 - self.share))
        if n < 1:
            return
        for weight in _weights(optimizer):
            kept = optimizer.state.get(weight)
            if not kept:  # it has had no gradient yet: AdamW begins a state only where there is none
                continue
            if KEY not in kept:
                kept[KEY] = weight.detach().clone()
            else:
                kept[KEY].lerp_(weight.detach(), 1 / n)

    def on_train_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Put the mean in the place of the last step's weights."""
        with torch.no_grad():
            for weight in _weights(optimizer):
                if KEY in optimizer.state.get(weight, ()):
                    weight.copy_(optimizer.state[weight][KEY])


def _weights(optimizer: Any) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]
