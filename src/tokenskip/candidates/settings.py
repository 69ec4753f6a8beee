"""The settings of the stage candidates; the other sections are in `tokenskip.config`, which has this one among them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tokenskip.recipes.fields import Section

PRUNE, ON_POLICY = "prune", "on_policy"
"""Sources of candidates that stages have to know: the one with stages of its own, and the one that needs an adapter."""


class CandidatesConfig(Section):
    """Between grading and training: where shorter chains come from, and which of them are trained on."""

    sources: dict[str, dict[str, Any]] = Field(
        {PRUNE: {}},
        min_length=1,
        description="source -> its options, or a list of names: prune, sample, prompt, skip_steps, rewrite, on_policy "
        "(rounds of training on the tuned model's own chains), or package.module:attr",
    )
    prefer: Literal["likely", "nearest", "shortest", "listed"] = Field(
        "likely",
        description="of the candidates near a ratio: the one with the greatest log-probability per token under the "
        "untouched model, the nearest to the ratio, the shortest, or the one whose source is listed first",
    )
    tolerance: float = Field(0.05, gt=0, le=1, description="how far a candidate's achieved ratio may be from the ratio")
    keep: int = Field(1, ge=1, description="candidates trained on per question and ratio")
    limit: int | None = Field(None, ge=1, description="sources that ask a model: the first N questions only; None: all")

    @field_validator("sources", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        names = [given] if isinstance(given, str) else given
        if isinstance(names, list | tuple):
            return {str(name): {} for name in names}
        return {name: options or {} for name, options in given.items()} if isinstance(given, dict) else given

    @field_validator("sources")
    @classmethod
    def _first(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if set(given) == {ON_POLICY}:
            raise ValueError("on_policy asks the tuned model, which needs another source to be tuned on: add prune")
        return given

    @property
    def pool(self) -> tuple[str, ...]:
        """The sources of the first fine-tuning."""
        return tuple(name for name in self.sources if name != ON_POLICY)

    @property
    def is_paper(self) -> bool:
        """Whether the first fine-tuning is on pruned chains alone: all of them, each at the ratio of its cut."""
        return self.pool == (PRUNE,)

    @property
    def rounds(self) -> int:
        """Rounds of training on the tuned model's own chains."""
        rounds = self.sources[ON_POLICY].get("rounds", 1) if ON_POLICY in self.sources else 0
        return rounds if isinstance(rounds, int) else 0  # the source refuses anything else
