"""The rows of the evaluation. An arm is a value: which weights, what prompt, how much room to think.

`ARMS` is the built-in table; a recipe adds its own under `evaluate.define`, with the same fields:

    evaluate:
      arms: [original, tokenskip, terse]
      define:
        terse: {instruction: "Use at most {p}% of the usual words.", per_ratio: true}

Its fields say what an arm is (`weights`, `role`, `shortened_by`): no code asks for its name, so that a recipe's own arm
is evaluated, reported and warned about like a built-in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tokenskip.errors import unknown_name
from tokenskip.prompting.terse import LC_PROMPT, TERSE, Terse

WEIGHTS = {
    "base": "",
    "tokenskip": ".",
    "random": "control-random",
    "full_chain": "control-full-chain",
    "longer": "control-longer",
    "preference": "control-preference",
    "grpo": "grpo",
}
"""Weights by name -> the folder inside the run that holds their `adapter/`; the untouched model has none."""

CONTROL_WEIGHTS = ("base", "random", "full_chain", "preference")
"""Weights that learned nothing from importance; whatever has others is the method."""

NAME = r"^[A-Za-z]\w*$"

Role = Literal["original", "method", "control"]
"""original: what every arm is compared with; method: trained on chains pruned by importance; control: anything else."""

ShortenedBy = Literal["nothing", "ratio", "instruction", "truncation", "deletion"]
"""What makes an arm's chains shorter: the ratio in the prompt, an instruction in words or a setting of the template,
being cut off, or losing parts at random.
"""


class Arm(BaseModel):
    """One way to get an answer: a row of the evaluation, or one row for each ratio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="of letters, digits and _", pattern=NAME)
    about: str = Field("", description="what the report says about it")
    weights: str = Field(
        "base",
        description="base, tokenskip, random (trained on randomly pruned chains), full_chain (on whole chains only), "
        "longer (as many tokens as all rounds), preference (of its own short answers), grpo, round_1, round_2, …, or "
        "the path of an adapter folder",
    )
    role: Role = Field(
        "control",
        description="method or control (original is built in); by default method, and control where weights is base, "
        "random, full_chain or preference",
    )
    instruction: str = Field(
        "",
        description="follows the question; {p}: percent to leave out, 100 × (1 - ratio); {budget}: ratio × tokens of "
        "the original's chain on that problem",
    )
    terse: str = Field("", description=f"what is said around the question, by name: {', '.join(TERSE)}")
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the chat template, such as {reasoning_effort: low}"
    )
    per_ratio: bool = Field(False, description="one row for each of evaluate.ratios (formerly: dial)")
    marker: bool = Field(False, description="the ratio is written into the prompt, as in training")
    calibrated: bool = Field(False, description="the marker is the one that `tokenskip calibrate` found for the ratio")
    cut: bool = Field(False, description="the original's chain, cut off at ratio × token cap")
    forced: bool = Field(False, description="a chain that was cut off is then made to answer")
    matches: str = Field(
        "",
        description="an arm with the ratio in its prompt: the original's chain loses units at random until it is as "
        "long as that arm's on the same problem, and is then made to answer",
    )
    length: Literal["full", "paper"] | None = Field(
        None, description="token cap: the full one, or ratio × cap as in the paper; None: as evaluate.length says"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """The old spelling `dial`, and the role that follows from the weights."""
        if not isinstance(given, dict):
            return given
        values = dict(given)
        if "dial" in values:
            if "per_ratio" in values:
                raise ValueError("dial is the old name of per_ratio: give one of them")
            values["per_ratio"] = values.pop("dial")
        if values.get("role") is None:
            values["role"] = "control" if values.get("weights", "base") in CONTROL_WEIGHTS else "method"
        return values

    @model_validator(mode="after")
    def _possible(self) -> Arm:
        problem = None
        if self.terse and self.terse not in TERSE:
            problem = unknown_name("terse", self.terse, TERSE)
        elif self.terse and self.instruction:
            problem = "terse is an instruction by name: give one of terse and instruction"
        elif (self.marker or self.cut or self.matches or self.way.per_ratio) and not self.per_ratio:
            problem = "marker, cut, matches, {p} and {budget} need a ratio: set per_ratio: true"
        elif self.matches and (self.weights != "base" or self.marker or self.cut or self.terse or self.instruction):
            problem = "matches shortens the original's own chains: no weights, marker, cut or instruction beside it"
        elif self.cut and (self.weights != "base" or self.marker or self.instruction):
            problem = "cut shortens the original's own chains: no weights, marker or instruction beside it"
        elif self.forced and not self.cut:
            problem = "forced needs cut: true"
        elif self.calibrated and not (self.marker and self.weights == "tokenskip"):
            problem = "calibrated needs weights: tokenskip and marker: true, which the map was measured with"
        elif self.role == "method" and self.weights == "base":
            problem = "role: method needs weights that were trained: the untouched model is a control"
        elif not is_weights(self.weights):
            allowed = f"{', '.join(WEIGHTS)}, round_1, round_2, …, or the path of an adapter folder"
            problem = f"unknown weights {self.weights!r}: allowed are {allowed}"
        if problem:
            raise ValueError(f"arm {self.name}: {problem}")
        return self

    @property
    def shortened_by(self) -> ShortenedBy:
        """What makes its chains shorter; the ratio, where the prompt has both a ratio and an instruction."""
        if self.cut:
            return "truncation"
        if self.matches:
            return "deletion"
        if self.marker:
            return "ratio"
        return "instruction" if self.instruction or self.terse or self.template_kwargs else "nothing"

    @property
    def way(self) -> Terse:
        """What is said around the question."""
        return TERSE[self.terse] if self.terse else Terse(about=self.about, instruction=self.instruction)

    @property
    def needs_original(self) -> bool:
        """Whether a row is made from the original's on the same problem."""
        return self.cut or bool(self.matches) or "{budget}" in self.way.instruction

    def token_cap(self, cap: int, ratio: float, length: str) -> int:
        """Tokens that a completion of this arm may take, of a full `cap`; `length`: what `evaluate.length` says.

        The paper's protocol (its MATH rows) caps what a fine-tuned model is asked for at ratio × cap. Prompts keep the
        full cap, as they do there; a chain that is cut has ratio × cap in both.
        """
        paper = (self.length or length) == "paper" and (self.marker or self.length == "paper")
        return max(1, int(cap * ratio)) if self.cut or paper else cap

    def ratios(self, ratios: Sequence[float]) -> Iterator[float]:
        """The ratios of this arm's rows, each once, descending; 1.0 alone where it has no row for each ratio.

        A chain that is cut at 1, a marker of 1 on the untouched model and a prompt to leave out 0% are no rows.
        """
        if not self.per_ratio:
            yield 1.0
            return
        for ratio in sorted(set(ratios), reverse=True):
            if ratio < 1 or (self.weights != "base" and not self.way.per_ratio):
                yield ratio


def is_weights(name: str) -> bool:
    """Whether `name` means weights of a run, or looks like a path."""
    return name in WEIGHTS or round_number(name) is not None or "/" in name


def round_number(weights: str) -> int | None:
    """2 for `round_2`; None for anything else."""
    match = re.fullmatch(r"round_(\d+)", weights)
    return int(match[1]) if match else None


def weights_folder(weights: str) -> str:
    """The folder that holds `adapter/`, relative to the run: `.`, `control-random`, `round-2`."""
    number = round_number(weights)
    return WEIGHTS[weights] if number is None else f"round-{number}"


_ROUND_ARM = "tokenskip_round_"


def round_arm(number: int) -> Arm:
    """The arm of an on-policy round's adapter; round 0 is the first fine-tuning."""
    about = f"fine-tuned on the model's own short chains, round {number}" if number else "fine-tuned on shorter chains"
    return Arm(name=f"{_ROUND_ARM}{number}", about=about, weights=f"round_{number}", per_ratio=True, marker=True)


def is_taken(name: str) -> bool:
    """Whether a recipe's own arm cannot have this name, because a built-in one or a round's has it."""
    return name in ARMS or name.startswith(_ROUND_ARM)


DEFAULT_ARMS = (
    "original",
    "tokenskip",
    "prompt_be_concise",
    "marker_only",
    "truncation",
    "truncation_forced",
    "random",
)

ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="original", about="the untouched model, whole chains", role="original"),
        Arm(name="tokenskip", about="fine-tuned on shorter chains", weights="tokenskip", per_ratio=True, marker=True),
        Arm(
            name="tokenskip_calibrated",
            about="tokenskip, asked through the map of `tokenskip calibrate`",
            weights="tokenskip",
            per_ratio=True,
            marker=True,
            calibrated=True,
        ),
        Arm(
            name="tokenskip_prompt",
            about="tokenskip and the length-control prompt together",
            weights="tokenskip",
            per_ratio=True,
            marker=True,
            instruction=LC_PROMPT,
        ),
        Arm(
            name="tokenskip_longer",
            about="tokenskip trained on as many tokens as all rounds together",
            weights="longer",
            per_ratio=True,
            marker=True,
        ),
        Arm(
            name="tokenskip_grpo",
            about="tokenskip after reinforcement learning on right answers within the ratio",
            weights="grpo",
            per_ratio=True,
            marker=True,
        ),
        Arm(name="prompt_be_concise", about='untouched model, "Be concise." in the prompt', instruction="Be concise."),
        Arm(
            name="prompt_only_numbers",
            about='untouched model, "Only use numbers or equations."',
            instruction="Only use numbers or equations.",
        ),
        Arm(
            name="prompt_abbreviate",
            about='untouched model, "Abbreviate words as much as possible."',
            instruction="Abbreviate words as much as possible.",
        ),
        Arm(
            name="prompt_lc", about="untouched model, the length-control prompt", per_ratio=True, instruction=LC_PROMPT
        ),
        Arm(name="marker_only", about="untouched model, the ratio in the prompt", per_ratio=True, marker=True),
        Arm(name="truncation", about="chain cut off at ratio × token cap (paper)", per_ratio=True, cut=True),
        Arm(
            name="truncation_forced",
            about="chain cut off at ratio × token cap, then made to answer",
            per_ratio=True,
            cut=True,
            forced=True,
        ),
        Arm(
            name="random",
            about="fine-tuned on randomly pruned chains",
            weights="random",
            per_ratio=True,
            marker=True,
        ),
        Arm(name="full_chain", about="fine-tuned on whole chains only", weights="full_chain"),
        Arm(
            name="preference",
            about="fine-tuned to prefer its own short right answers to its long ones, without a ratio",
            weights="preference",
        ),
        Arm(name="prompt_draft", about="untouched model, Chain of Draft with worked examples", terse="draft"),
        Arm(
            name="prompt_budget",
            about="untouched model, told how many tokens it may use (TALE)",
            per_ratio=True,
            terse="budget",
        ),
        Arm(
            name="prompt_seeded",
            about="untouched model, a terse system prompt and the answer's first words given",
            terse="seeded",
        ),
        *(
            Arm(
                name=f"effort_{level}",
                about=f"untouched model, reasoning_effort: {level} in its own chat template",
                template_kwargs={"reasoning_effort": level},
            )
            for level in ("low", "medium", "high")
        ),
        Arm(
            name="random_matched",
            about="the original's chain, units left out at random until as long as tokenskip's, then made to answer",
            per_ratio=True,
            matches="tokenskip",
        ),
    )
}


GRPO = ARMS["tokenskip_grpo"]
"""Evaluated wherever it is trained."""
ORIGINAL = ARMS["original"]
"""What every other arm is paired with and measured against; evaluated in every run."""


def label(arm: Arm, ratio: float) -> str:
    """The name of a row's file: `original`, `tokenskip-0.6`."""
    return f"{arm.name}-{ratio}" if arm.per_ratio else arm.name


def rows_of(arms: Sequence[Arm], ratios: Sequence[float]) -> Iterator[tuple[Arm, float]]:
    """(arm, ratio) of every row of the evaluation; 1.0 for arms that have no row for each ratio."""
    return ((arm, ratio) for arm in arms for ratio in arm.ratios(ratios))
