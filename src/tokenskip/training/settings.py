"""The settings of the stage grpo; the other sections are in `tokenskip.config`, which has this one among them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tokenskip.recipes.fields import Section


class GrpoConfig(Section):
    """Stage 6d: reinforcement learning from the run's adapter, with the ratio in the prompt. `grpo: 200`: 200 steps."""

    steps: int = Field(0, ge=0, description="optimiser steps; 0: none")
    batch_size: int = Field(64, ge=2, description="completions per step")
    generations: int = Field(8, ge=2, description="completions per prompt; must divide batch_size")
    learning_rate: float = Field(1e-5, gt=0)
    temperature: float = Field(1.0, gt=0, description="of the completions")
    slack: float = Field(
        0.2, ge=0, description="share above ratio × whole length at which a right answer is worth nothing; 0: at once"
    )
    length: Literal["at_most", "near"] = Field(
        "at_most", description="a right answer below ratio × whole length is worth 1; near: less, as one above it"
    )
    save_steps: int = Field(50, ge=1, description="steps between checkpoints")
    trainer: dict[str, Any] = Field(default_factory=dict, description="passed to TRL's GRPOConfig untouched")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"steps": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _whole_groups(self) -> GrpoConfig:
        if self.batch_size % self.generations:
            raise ValueError(f"generations={self.generations} must divide batch_size={self.batch_size}")
        return self
