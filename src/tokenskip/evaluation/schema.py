"""What `results.json` holds: frozen models, one a kind of record, with every field described. Pure.

`tokenskip report RUN` writes one `Results`; the report, `compare`, the model card, the trackers and the benchmarks read
its fields. A share is between 0 and 1; a number that was not measured or has no value is null. A new field or another
meaning is a new `SCHEMA`; a file of another one is refused: `tokenskip report RUN` writes it again from the run's rows.

    python -c "import tokenskip; print(tokenskip.load_results('runs/demo').arms[0].accuracy)"
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tokenskip.arms import NAME, Role, ShortenedBy
from tokenskip.errors import DataError, RunError
from tokenskip.terminal import one_line

SCHEMA: Final = 2
"""1: tokenskip 0.1.0, plain dictionaries."""
FILE = "results.json"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Tokens = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0)]


class Record(BaseModel):
    """A frozen record that takes values of its fields' own types only, and no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class LevelRow(Record):
    """An arm on the problems of one difficulty."""

    n: Count
    accuracy: Share
    cot_tokens_mean: Tokens


class ArmResult(Record):
    """One row of the evaluation: an arm at one ratio, on all problems."""

    arm: str = Field(pattern=NAME, description="name of the arm")
    about: str = Field(description="what it is, in words")
    ratio: Ratio | None = Field(description="ratio asked for; null where the arm has one row only")
    weights: str = Field(description="as in arms.Arm: base, tokenskip, random, round_1, …, or a path")
    role: Role = Field(description="original, method or control")
    shortened_by: ShortenedBy = Field(description="nothing, ratio, instruction or truncation")

    n: Count = Field(description="graded completions")
    n_problems: Count
    accuracy: Share | None = Field(description="mean over problems; what cannot be graded counts as wrong")
    accuracy_low: Share | None = Field(description="95% Wilson interval, with a design effect for several samples")
    accuracy_high: Share | None

    difference: float | None = Field(description="accuracy minus the original's on the same problems; null for itself")
    difference_low: float | None = Field(description="95% percentile bootstrap over problems")
    difference_high: float | None
    lost: Count | None = Field(description="problems that only the original solves")
    gained: Count | None = Field(description="problems that only this arm solves")
    p_value: Share | None = Field(description="exact McNemar test")
    equivalence: str | None = Field(description="what the data allow to say of the difference")

    cot_tokens_mean: Tokens | None
    cot_tokens_median: Tokens | None
    cot_tokens_p95: Tokens | None = Field(description="95th percentile")
    total_tokens_mean: Tokens | None = Field(description="chain and answer")
    total_tokens_p95: Tokens | None
    tokens_per_right_answer: Tokens | None = Field(description="all tokens written over the number of right answers")
    tokens_saved_per_1000: float | None = Field(description="against the original, per 1,000 requests")

    achieved_ratio: Tokens | None = Field(description="CoT tokens over the original's, both summed over problems")
    ratio_error: float | None = Field(description="achieved minus asked")
    achieved_ratio_problem_median: Tokens | None = Field(description="over problems, each with its own ratio")
    achieved_ratio_problem_p10: Tokens | None
    achieved_ratio_problem_p90: Tokens | None
    achieved_ratio_quantiles: dict[str, Tokens | None] = Field(description="percentile -> achieved ratio of problems")

    finished_rate: Share | None = Field(description="ended by itself, no loop, thinking closed")
    cap_hit_rate: Share | None = Field(description="cut off at the token cap")
    loop_rate: Share | None = Field(description="repeats itself")
    unclosed_rate: Share | None = Field(description="never closed its thinking; null where there are no think tags")
    error_rate: Share | None = Field(description="the backend failed")
    ungradable_rate: Share | None = Field(description="no answer that can be graded")
    ungradable_reasons: dict[str, Count] = Field(description="why, the five most frequent")

    latency_s: Seconds | None = Field(description="seconds a sample in the largest batch")
    throughput_per_s: Tokens | None = Field(description="samples a second there")
    latency_device: str | None
    latency_batch_size: Count | None
    latency_warm: bool | None = Field(description="false: one batch only, so that its time includes the warm-up")
    latency_b1_s: Seconds | None = Field(description="median of samples one by one")

    length: Literal["full", "paper"] | None = Field(description="token cap: the full one, or ratio × cap")
    token_cap: Count | None
    by_level: dict[str, LevelRow] = Field(description="by the difficulty that the data give")

    @property
    def label(self) -> str:
        """What a row is called in tables and keys: `original`, `tokenskip 0.6`."""
        return self.arm if self.ratio is None else f"{self.arm} {self.ratio}"

    @property
    def trained(self) -> bool:
        """Whether its weights are other than the untouched model's."""
        return self.weights != "base"


class Matched(Record):
    """An arm beside the method at equal length."""

    arm: str
    ratio: Ratio | None
    cot_tokens_mean: Tokens
    accuracy: Share
    on_front: bool = Field(description="no other arm is as accurate with fewer tokens, or more with no more")
    reference_accuracy: Share | None = Field(description="the method's, interpolated at this arm's mean CoT tokens")
    advantage: float | None = Field(description="how far this arm is above it")

    @property
    def label(self) -> str:
        """As `ArmResult.label`."""
        return self.arm if self.ratio is None else f"{self.arm} {self.ratio}"


class FunnelStep(Record):
    """How many were left, or left out, at one step from completions to training rows."""

    reason: str
    count: Count


class RoundRatio(Record):
    """One ratio of an on-policy round: what was sampled and kept, and how the round's adapter did on the test."""

    sampled: Count | None = None
    correct: Count | None = None
    near: Count | None = None
    kept: Count | None = None
    achieved_ratio_correct: Tokens | None = None
    n: Count | None = None
    accuracy: Share | None = None
    accuracy_low: Share | None = None
    accuracy_high: Share | None = None
    cot_tokens_mean: Tokens | None = None
    achieved_ratio: Tokens | None = None
    ratio_error: float | None = None


class PoolSource(Record):
    """What became of a source's candidates; by ratio, how many were near it and how many are trained on."""

    source: str
    candidates: Count
    right: Count
    near: dict[str, Count]
    won: dict[str, Count]


class Pool(Record):
    """Of all candidates the ones to train on: see `tokenskip.candidates.choose`."""

    prefer: str
    tolerance: float
    questions: Count
    rows: dict[str, Count] = Field(description="ratio -> training rows")
    missing: dict[str, Count] = Field(description="ratio -> questions without a candidate near it")
    sources: tuple[PoolSource, ...]


class ChosenChain(Record):
    """A chain that is trained on."""

    ratio: float
    source: str = Field(description="whole: the untouched model's own chain")
    achieved_ratio: Tokens
    text: str


class ChosenChains(Record):
    """The chains that one question is trained on, side by side."""

    id: str
    question: str
    chains: tuple[ChosenChain, ...]


class Round(Record):
    """An on-policy round: chains sampled, right, near a ratio, kept; CoT tokens of its training rows."""

    round: Count
    arm: str | None = Field(description="the arm that has its adapter; null where none was evaluated")
    sampled: Count
    correct: Count
    near: Count
    kept: Count
    train_tokens: Count
    by_ratio: dict[str, RoundRatio]


class Sample(Record):
    """A training chain, what each ratio keeps of it and how important its parts are."""

    id: str
    question: str
    gold: str
    cot: str
    n_chars_left_out: Count = Field(description="of a chain too long to show whole")
    kept_by_ratio: dict[str, tuple[tuple[int, int], ...]] = Field(description="ratio -> kept character ranges")
    importance: tuple[tuple[int, int, float], ...] = Field(description="(start, end, importance) of every part")


class Output(Record):
    """What an arm wrote for a problem."""

    correct: bool | None = Field(description="null: cannot be graded")
    n_cot_tokens: Count
    output: str


class ShownProblem(Record):
    """A problem of the report's browser."""

    id: str
    question: str
    gold: str
    level: str | None
    arms: dict[str, Output] = Field(description="label of a row -> what it wrote")


class Results(Record):
    """Every number of a run's report."""

    schema_version: Literal[2]
    run: str = Field(description="the run's name")
    tokenskip_version: str
    created: str = Field(description="when, UTC")
    hardware: dict[str, JsonValue]
    versions: dict[str, str | None] = Field(description="of the packages")
    config: dict[str, JsonValue] = Field(description="the resolved configuration")
    backend: str
    funnel: tuple[FunnelStep, ...]
    arms: tuple[ArmResult, ...]
    monotone: dict[str, bool] = Field(description="arm -> its chains never get shorter as the ratio grows")
    matched: tuple[Matched, ...]
    rounds: tuple[Round, ...]
    pool: Pool | None = Field(None, description="null where pruned chains alone are trained on")
    chosen: tuple[ChosenChains, ...] = ()
    samples: tuple[Sample, ...]
    problems: tuple[ShownProblem, ...]
    word_levels: dict[str, int] = Field(description="word -> 0 (least important fifth) to 4")
    warnings: tuple[str, ...] = Field(description="what to know before believing the numbers, one sentence each")

    def to_json(self) -> str:
        """The text of `results.json`."""
        return self.model_dump_json(indent=1) + "\n"


def load_results(path: Path | str) -> Results:
    """The results of a run folder, or of a `results.json` wherever it is.

    Raises:
        RunError: there is none, it cannot be read, or another version wrote it. DataError: it is no results file.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() or not path.suffix else path
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RunError(f"no {file}: run `tokenskip evaluate` and `tokenskip report` on the run folder first") from None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a results file: not UTF-8 ({error.reason} at byte {error.start})") from None
    return parse_results(text, str(file))


def parse_results(text: str, source: str) -> Results:
    """`text` as results; `source` is where it is from.

    Raises:
        RunError: another version wrote it. DataError: it is damaged, or a value is not of its type.
    """
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not a results file: {one_line(str(error))}") from None
    if not isinstance(values, dict) or not isinstance(values.get("arms"), list):
        raise DataError(f"{source} is not a results file: it has no list of arms")
    written = values.get("schema_version", 1)
    if written != SCHEMA or isinstance(written, bool):
        raise RunError(
            f"{source} has the results schema {_shown(written)}; this version of tokenskip reads {SCHEMA}: run "
            "`tokenskip report` on its run folder to write it anew"
        )
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = ".".join(map(str, mistake["loc"])) or "the whole file"
        given = "" if mistake["type"] == "missing" else f"; given: {_shown(mistake['input'])}"
        raise DataError(f"{source} is not a results file: {one_line(where)}: {mistake['msg']}{given}") from None


def _shown(value: Any) -> str:
    text = one_line(json.dumps(value, ensure_ascii=True, default=str))
    return text if len(text) <= 80 else text[:80] + "…"
