"""Every setting of a run: one frozen section per stage; each default and each help text is here and nowhere else.

`load_recipe` reads a YAML recipe, lays `--set section.key=value` over it and returns a checked `RunConfig`. A user's
mistake raises `ConfigError` with one line: what was given, what is allowed, and the nearest name.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tokenskip.arms import ARMS, DEFAULT_ARMS, GRPO, ORIGINAL, Arm, is_taken, round_arm, round_number
from tokenskip.candidates.settings import CandidatesConfig as CandidatesConfig
from tokenskip.errors import ConfigError, unknown_name
from tokenskip.prompting.arguments import check_argument
from tokenskip.prompting.effort import effort_mistake
from tokenskip.ratio import RatioRange, Spelling
from tokenskip.recipes import lay_over as lay_over
from tokenskip.recipes import read_recipe_file
from tokenskip.recipes.fields import PAPER_RATIOS as PAPER_RATIOS
from tokenskip.recipes.fields import Distinct, Draws, Effort, Ratios, RatiosOrRange, Section
from tokenskip.recipes.mistakes import first_mistake
from tokenskip.training.settings import GrpoConfig
from tokenskip.trust import check_trust


class ModelConfig(Section):
    """The target model."""

    path: str = Field("embedded", description="'embedded', 'smollm2', a local folder or .gguf file, or a hub id")
    revision: str | None = Field(None, description="hub revision")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on CPU, where training takes products in bf16 if that is faster"
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    trust_remote_code: bool = Field(False, description="run code that comes with the model; off unless you say so")


class TaskConfig(Section):
    """Where problems come from and how answers are compared."""

    name: str = Field("embedded", description="embedded, gsm8k, math500, choice, jsonl, or package.module:attr")
    train: str | None = Field(None, description="training problems: a local file, or a hub id; None: the task's own")
    test: str | None = Field(None, description="evaluation problems, likewise")
    train_limit: int | None = Field(None, ge=1, description="use the first N training problems")
    test_limit: int | None = Field(None, ge=1, description="use the first N evaluation problems")
    fields: dict[str, str] = Field(default_factory=dict, description="your names of id, question, gold, level")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the task")


class PromptConfig(Section):
    """How a question becomes a prompt, and where a completion divides into CoT and answer."""

    system: str | None = Field(None, description="system turn")
    template: str = Field("{question}", description="user turn; {question} is replaced")
    delimiter: str = Field("eos_token", description="what encloses the ratio: 'eos_token', or any text")
    answer: Literal["trigger", "boxed", "think"] = Field("trigger", description="how the answer is marked")
    trigger: str = Field("The final answer is", description="words that begin the answer (answer: trigger)")
    think: tuple[str, str] | None = Field(
        None, description="tags around a thought, such as ['[THINK]', '[/THINK]']; None: those of the known families"
    )
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the chat template, such as {enable_thinking: false}"
    )
    date: datetime.date | None = Field(
        None, description="what a chat template shows as today; None: the day the run was started"
    )
    untrained: Literal["nearest", "refuse", "pass"] = Field(
        "nearest",
        description="what the saved chat template does with a ratio that was not trained: take the nearest that was, "
        "refuse it, or pass it on",
    )
    spelling: Spelling = Field(
        "short", description="a ratio in the prompt: short 0.6, decimals 0.60, or a scale; of a range never short"
    )
    effort: Effort = Field(default_factory=dict, description="ratios by reasoning_effort: {low: 0.5, high: 1}")

    @field_validator("think")
    @classmethod
    def _two_tags(cls, given: tuple[str, str] | None) -> tuple[str, str] | None:
        if given is not None and not all(tag.strip() for tag in given):
            raise ValueError(f"give two tags, such as ['<think>', '</think>']; given: {list(given)}")
        return given

    @field_validator("template_kwargs")
    @classmethod
    def _arguments(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            check_argument(name)
        return given


class GenerateConfig(Section):
    """Stage 1: the target model answers the training problems itself."""

    source: Literal["model", "solutions"] = Field(
        "model", description="whose chains: the model's own (paper), or the training problems' own solutions"
    )
    backend: str = Field("hf", description="hf, openai, vllm, scripted, or package.module:attr")
    batch_size: int = Field(64, ge=1, description="prompts decoded together")
    max_new_tokens: int = Field(512, ge=1, description="token cap of one completion")
    temperature: float = Field(0.0, ge=0, description="0: greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    samples: int = Field(1, ge=1, description="completions per problem (above 1 only with a temperature)")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the backend")


class ScoreConfig(Section):
    """Stage 3: an importance for every part of every CoT."""

    scorer: str = Field("surprisal", description="a scorer's name, or package.module:attr")
    model: str | None = Field(None, description="the scorer's model; None: the scorer's own default")
    batch_tokens: int = Field(8192, ge=1, description="tokens scored together, padding included")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the scorer")


class PruneConfig(Section):
    """Stage 4: every CoT cut to its ratios."""

    ratios: RatiosOrRange = Field(
        PAPER_RATIOS, description="ratios to train on, a list or {from: 0.3, to: 1.0}; 1.0: whole chains"
    )
    per_trajectory: Draws = Field(
        "one", description="ratios per trajectory: one drawn (paper), all, or a number: the greatest and draws below it"
    )
    cut: Literal["chain", "corpus"] = Field("chain", description="budget per chain (paper), or one threshold per ratio")
    unit: Literal["token", "word", "step"] = Field("token", description="what is kept or dropped together")
    atoms: bool = Field(True, description="numbers, operators, equations and LaTeX are indivisible")
    verify: bool = Field(True, description="reject a pruned chain with a new or false equation")

    @model_validator(mode="after")
    def _drawn_from_a_range(self) -> PruneConfig:
        if isinstance(self.ratios, RatioRange) and self.per_trajectory == "all":
            raise ValueError("per_trajectory: all needs a list of ratios; of a range, say how many to draw, such as 6")
        return self

    @property
    def rows_per_chain(self) -> int:
        """Training rows that a chain becomes, if no cut is rejected."""
        n = {"one": 1, "all": len(self.ratios)}.get(str(self.per_trajectory))
        return n or min(int(self.per_trajectory), len(self.ratios))


class TrainConfig(Section):
    """Stage 6: fine-tuning on prompt and completion; the paper's settings (section 4.1) are the defaults."""

    method: Literal["lora", "full"] = Field("lora", description="LoRA adapter, or all weights")
    rank: int = Field(8, ge=1, description="LoRA r")
    alpha: int = Field(16, ge=1, description="LoRA alpha")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="layers that get an adapter")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon (method: full): orthogonalised momentum for matrices, AdamW at 0.15 of the rate else"
    )
    learning_rate: float = Field(5e-5, gt=0)
    scheduler: str = Field(
        "cosine", description="as transformers names it; warmup_stable_decay falls over the last 40% of the steps"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(8, ge=1, description="effective batch: sequences per optimiser step over all devices")
    accumulation: int = Field(1, ge=1, description="micro-batches per step; must divide batch_size")
    max_length: int = Field(2048, ge=8, description="longer rows are counted and left out, never cut")
    order: Literal["rows", "chains"] = Field(
        "rows", description="rows: all shuffled; chains: chains shuffled, the ratios of a chain in one batch"
    )
    average: float = Field(
        0.0, ge=0, lt=1, description="share of the steps, the last ones, whose weights are averaged; 0: none"
    )
    seed: int | None = Field(None, ge=0, description="of order, first LoRA weights and dropout; None: the run's")
    save_steps: int = Field(200, ge=1, description="steps between checkpoints")
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = Field(
        (), description="trackers that get the training's curve and the results, such as [tensorboard]"
    )
    trainer: dict[str, Any] = Field(default_factory=dict, description="passed to TRL's SFTConfig untouched")

    @field_validator("report_to", mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return () if given in (None, "none") else (given,) if isinstance(given, str) else given

    def steps(self, rows: int) -> int:
        """Optimiser steps of a fine-tuning on `rows` rows."""
        fixed = self.trainer.get("max_steps")
        if isinstance(fixed, int) and fixed > 0:
            return fixed
        return math.ceil(math.ceil(rows / self.batch_size) * self.epochs)


class EvaluateConfig(Section):
    """Stage 7: all arms on the same problems."""

    arms: tuple[str, ...] = Field(
        DEFAULT_ARMS, description=f"rows of the evaluation, of: {', '.join(ARMS)}, and your own"
    )
    define: dict[str, Arm] = Field(default_factory=dict, description="arms of your own: name -> fields of arms.Arm")
    ratios: Ratios = Field(PAPER_RATIOS, description="ratios asked for")
    batch_size: int = Field(64, ge=1, description="prompts decoded together")
    max_new_tokens: int | None = Field(None, ge=1, description="token cap; None: the one of generate")
    length: Literal["full", "paper"] = Field(
        "full", description="full: one token cap for all; paper: ratio × cap where the prompt carries the ratio"
    )
    samples: int = Field(1, ge=1, description="completions per problem (above 1 only with a temperature)")
    temperature: float = Field(0.0, ge=0, description="0: greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    latency_samples: int = Field(8, ge=0, description="problems timed one by one per arm; 0: only batched times")

    @field_validator("define", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, arm in given.items():
            if is_taken(str(name)):
                raise ValueError(f"arm {name!r} is built in: choose another name")
            if isinstance(arm, dict) and arm.get("role") == "original":
                raise ValueError(f"arm {name!r}: role is method or control; the original is built in")
        return {name: {**arm, "name": name} if isinstance(arm, dict) else arm for name, arm in given.items()}


class CalibrateConfig(Section):
    """`tokenskip calibrate` as a part of `tokenskip run`. `calibrate: 300` is short for `calibrate: {n: 300}`."""

    n: int = Field(0, ge=0, description="development problems, half to fit, half to check; 0: no calibration")
    grid: Distinct = Field((), description="prompted ratios to measure; none: the trained, and some between")
    clamp: bool = Field(False, description="out of reach: the nearest instead of an error")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"n": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @field_validator("n")
    @classmethod
    def _enough(cls, n: int) -> int:
        if 0 < n < 20:
            raise ValueError("at least 20 development problems, or 0 for no calibration")
        return n


class EngineConfig(Section):
    """Where generate, score and evaluate run; changes no row. `engine: ray` is short for `engine: {name: ray}`."""

    name: Literal["local", "ray"] = Field("local", description="local: in this process; ray: actors of a Ray cluster")
    address: str = Field("auto", description="auto: a running cluster, else one is started here; local; or host:port")
    workers: int = Field(1, ge=1, description="actors; each loads the models")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs that an actor claims; 0.5 shares one between two")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs that an actor claims")


class RunConfig(Section):
    """A whole run."""

    name: str = Field("embedded", description="what the run is called in its report", pattern=r"^[\w.\-]+$")
    seed: int = Field(0, ge=0, lt=2**32, description="of every random draw")
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    prompt: PromptConfig = PromptConfig()
    generate: GenerateConfig = GenerateConfig()
    score: ScoreConfig = ScoreConfig()
    prune: PruneConfig = PruneConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    train: TrainConfig = TrainConfig()
    grpo: GrpoConfig = GrpoConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, values: Any) -> Any:
        """A model that is to read any ratio of a range sees all in one spelling: 0.60 beside 0.65."""
        if isinstance(values, dict) and isinstance(values.get("prune"), dict):
            prompt = values.get("prompt") or {}
            short = isinstance(prompt, dict) and prompt.get("spelling", "short") == "short"
            if short and isinstance(values["prune"].get("ratios"), Mapping | RatioRange):
                return {**values, "prompt": {**prompt, "spelling": "decimals"}}
        return values

    @field_validator("engine", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _rounds_are_a_source(cls, given: Any) -> Any:
        """Without the section `rounds` of earlier versions, where it asked for none."""
        if not isinstance(given, dict) or "rounds" not in given:
            return given
        old = given["rounds"]
        if (old.get("count", 0) if isinstance(old, dict) else old) not in (0, None):
            raise ValueError(
                "the section rounds is now a source: write candidates={sources: {prune: {}, on_policy: {rounds: 2}}}; "
                f"given: rounds={old}"
            )
        return {key: value for key, value in given.items() if key != "rounds"}

    def known_arms(self) -> dict[str, Arm]:
        """Every arm that this run can evaluate, by name: the built-in ones, the rounds', the recipe's own."""
        return {**ARMS, **{arm.name: arm for arm in self._round_arms()}, **self.evaluate.define}

    def check_calibration(self) -> None:
        """ConfigError when a whole run would come to a calibrated arm without ever calibrating."""
        calibrated = [arm.name for arm in self.chosen_arms() if arm.calibrated]
        if calibrated and not self.calibrate.n:
            raise ConfigError(
                f"evaluate.arms: {calibrated[0]} needs a calibration: set calibrate.n=300, or run `tokenskip "
                "calibrate` between train and evaluate"
            )

    def chosen_arms(self) -> list[Arm]:
        """The arms of `evaluate.arms`, and those of the rounds and of GRPO."""
        known = self.known_arms()
        added = [arm.name for arm in self._round_arms()] + ([GRPO.name] if self.grpo.steps else [])
        return [known[name] for name in dict.fromkeys((*self.evaluate.arms, *added))]

    def _round_arms(self) -> list[Arm]:
        """The adapters before that of the last round, which is the run's own."""
        return [round_arm(number) for number in range(self.candidates.rounds)]


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of a YAML recipe (None: all defaults) with `section.key=value` overrides on top.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a value that is not allowed, or code that is not trusted.
    """
    values = read_recipe_file(path) if path is not None else {}
    for override in overrides:
        lay_over(values, override)
    source = str(path) if path else "--set"
    config = check_config(values, source)
    check_trust(config, overrides, source, recipe=True)
    return config


def check_config(values: dict[str, Any], source: str) -> RunConfig:
    """`values` as a `RunConfig`; ConfigError with one line naming `source` and the first mistake."""
    try:
        config = RunConfig.model_validate(values)
        config.model_dump_json()
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_mistake(error, RunConfig)}") from None
    except ValueError as error:  # half a character ("\ud800"), or a value that holds itself: no file could
        raise ConfigError(f"{source}: a value cannot be written down ({error})") from None
    if config.train.batch_size % config.train.accumulation:
        raise ConfigError(
            f"{source}: train.accumulation={config.train.accumulation} must divide "
            f"train.batch_size={config.train.batch_size}"
        )
    if config.train.optimizer == "muon" and config.train.method != "full":
        raise ConfigError(f"{source}: train.optimizer=muon needs train.method=full; given: {config.train.method}")
    if "{question}" not in config.prompt.template:
        raise ConfigError(f"{source}: prompt.template must contain {{question}}; given: {config.prompt.template!r}")
    for name, section in (("generate", config.generate), ("evaluate", config.evaluate)):
        if section.samples > 1 and section.temperature == 0:
            raise ConfigError(f"{source}: {name}.samples={section.samples} needs {name}.temperature above 0")
    if mistake := effort_mistake(config.prompt, config.prune.ratios):
        raise ConfigError(f"{source}: prompt.effort{mistake}")
    extra = config.generate.options.get("extra")
    if isinstance(extra, dict) and "chat_template_kwargs" in extra:
        raise ConfigError(
            f"{source}: generate.options.extra.chat_template_kwargs would reach the server only, and training another "
            "prompt: give them as prompt.template_kwargs, which all stages use"
        )
    _check_arms(config, source)
    return config


def _check_arms(config: RunConfig, source: str) -> None:
    known = config.known_arms()
    for name in config.evaluate.arms:
        if name not in known:
            raise ConfigError(f"{source}: evaluate.arms: {unknown_name('arm', name, known)}")
    if ORIGINAL.name not in config.evaluate.arms:
        raise ConfigError(f"{source}: evaluate.arms needs the arm original, which all others are compared with")
    for arm in config.chosen_arms():
        number = round_number(arm.weights)
        if (arm.weights == "longer" or number) and not config.candidates.rounds:
            raise ConfigError(
                f"{source}: arm {arm.name} needs rounds: "
                "set candidates.sources={prune: {}, on_policy: {rounds: 1}}"
            )
        if arm.weights == "grpo" and not config.grpo.steps:
            raise ConfigError(f"{source}: arm {arm.name} needs grpo: set grpo.steps above 0")
        if arm.matches and not (arm.matches in config.evaluate.arms and known[arm.matches].marker):
            raise ConfigError(
                f"{source}: arm {arm.name} matches {arm.matches!r}, which must be one of evaluate.arms and have the "
                "ratio in its prompt"
            )
        folder = Path(arm.weights).expanduser()
        if "/" in arm.weights and not any((folder / f"{kind}config.json").exists() for kind in ("adapter_", "")):
            raise ConfigError(f"{source}: arm {arm.name}: {arm.weights} is no adapter folder (no adapter_config.json)")
