"""The rows of the evaluation. An arm is a value: which weights, what prompt, how much room to think."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to get an answer.

    `weights`: the untouched model, the TokenSkip adapter, or the control adapter that was trained on randomly pruned
    chains. `dial`: whether there is one row per ratio. `marker`: whether the ratio is written into the prompt.
    `cut`: the original's chain is cut off at ratio × token cap; `forced`: an answer is then asked for.
    """

    name: str
    about: str
    weights: Literal["base", "tokenskip", "random"] = "base"
    instruction: str = ""
    dial: bool = False
    marker: bool = False
    cut: bool = False
    forced: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="original", about="the untouched model, whole chains"),
        Arm(name="tokenskip", about="fine-tuned on pruned chains", weights="tokenskip", dial=True, marker=True),
        Arm(name="prompt_be_concise", about='untouched model, "Be concise." in the prompt', instruction="Be concise."),
        Arm(name="marker_only", about="untouched model, the ratio in the prompt", dial=True, marker=True),
        Arm(name="truncation", about="chain cut off at ratio × token cap (paper)", dial=True, cut=True),
        Arm(
            name="truncation_forced",
            about="chain cut off at ratio × token cap, then made to answer",
            dial=True,
            cut=True,
            forced=True,
        ),
        Arm(
            name="random",
            about="fine-tuned on randomly pruned chains",
            weights="random",
            dial=True,
            marker=True,
        ),
    )
}


def label(arm: Arm, ratio: float) -> str:
    """The name of a row's file and of its entry in reports: `original`, `tokenskip-0.6`."""
    return f"{arm.name}-{ratio}" if arm.dial else arm.name
