"""The vocabulary of the package: the one record that goes through all stages, and what plug-ins must be able to do.

`Trajectory` is immutable. A stage takes trajectories and yields the same trajectories with one more field filled in
(`dataclasses.replace`); nothing is deleted: a trajectory that is not used any further carries the reason in `dropped`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Message = dict[str, Any]
"""One chat turn, `{"role": ..., "content": ...}`, as every chat template reads it."""

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its gold answer. `level` is its difficulty where the data knows one.

    `solution` is a whole chain with its answer, where the data brings one (`generate.source: solutions`).
    A problem that is asked several times has a `sample` number for each; ids are the data's, and mean nothing.
    """

    id: str
    question: str
    gold: str
    level: str | None = None
    sample: int = 0
    solution: str | None = None


class Span(NamedTuple):
    """Characters `start:end` of a CoT and how important they are (any scale; higher is kept longer)."""

    start: int
    end: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The importance of one CoT, as spans in reading order that do not overlap; gaps have none."""

    scorer: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Whether an answer is right. `correct` is None when it cannot be decided (`reason` says why)."""

    correct: bool | None
    reason: str
    extracted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A CoT cut to `ratio`. Token counts are in the target model's tokens.

    `kept` are the character ranges of the CoT that `text` consists of, in reading order.
    """

    ratio: float
    text: str
    n_tokens: int
    n_tokens_pruned: int
    rejected: str | None = None
    kept: tuple[tuple[int, int], ...] = ()

    @property
    def achieved_ratio(self) -> float:
        """Tokens kept as a share of all tokens of the CoT; 1.0 for an empty CoT."""
        return self.n_tokens_pruned / self.n_tokens if self.n_tokens else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One completion of one problem by the target model.

    `output == head + cot + tail`: `head` is an opening `<think>` tag (mostly empty: templates write the tag
    themselves), `tail` holds the answer and everything around it (the trigger, the box, `</think>`); no stage ever
    touches either. `ratio` is the ratio that the prompt asked for; `sample` the number of the completion, where a
    problem has several.
    """

    id: str
    sample: int = 0
    question: str
    gold: str
    level: str | None = None
    ratio: float = 1.0
    output: str = ""
    head: str = ""
    cot: str = ""
    tail: str = ""
    n_tokens: int = 0
    n_cot_tokens: int = 0
    finish: Finish = "stop"
    grade: Grade | None = None
    scores: Scores | None = None
    pruned: tuple[Pruned, ...] = ()
    dropped: str | None = None

    def drop(self, reason: str) -> Trajectory:
        """This trajectory, marked as not used any further; the first reason stays."""
        return self if self.dropped else replace(self, dropped=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a backend completes: the exact token ids where a tokenizer is at hand, and the chat turns they come from.

    `prefill` is text that the assistant's turn already begins with (a forced answer, say). `seed` is that of this
    completion alone where it is sampled: the same whatever else is in the batch, and another for every sample.
    `template_kwargs` are arguments of the chat template beside the recipe's.
    """

    messages: tuple[Message, ...]
    ratio: float = 1.0
    token_ids: tuple[int, ...] = ()
    prefill: str = ""
    max_new_tokens: int | None = None
    seed: int | None = None
    template_kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What came back for one prompt. `token_ids` excludes the end-of-sequence token; `error` is set when it failed.

    `resumed`: an earlier process had asked for it, so the time of this call says nothing.
    """

    text: str
    n_tokens: int
    finish: Finish = "stop"
    token_ids: tuple[int, ...] = ()
    error: str | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a backend decodes; `temperature` 0 is greedy. `seed` makes sampled runs repeatable."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Task(Protocol):
    """Where problems come from and when an answer is right."""

    def problems(self, split: str, limit: int | None = None) -> Iterable[Problem]:
        """The problems of `train` or `test`, in a fixed order, ids unique."""
        ...

    def grade(self, answer: str, gold: str) -> Grade:
        """Compare an extracted answer with the gold one; bounded in time, never executes `answer`."""
        ...

    def extract(self, tail: str) -> str | None:
        """The answer inside the part of a completion after its CoT; None when there is none."""
        ...


@runtime_checkable
class HasDevelopment(Protocol):
    """A task that has problems beside those of training and evaluation, for `tokenskip calibrate`."""

    def development(self, limit: int) -> Iterable[Problem]:
        """At most `limit` of them, in a fixed order."""
        ...


class Backend(Protocol):
    """Prompts -> completions."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in the same order; a prompt that failed carries `error` instead of raising."""
        ...

    def close(self) -> None:
        """Free what the backend holds."""
        ...


@runtime_checkable
class Refuses(Protocol):
    """A backend's class that knows, before it is made, which arms of the evaluation its options cannot do."""

    def refuses(self, arm: Any, path: str, **options: Any) -> str | None:
        """Why it cannot do `arm` (an `arms.Arm`) on the model `path`; None when it can."""
        ...


@runtime_checkable
class ChecksOptions(Protocol):
    """A backend's class that can say, before anything is asked or written, that an option cannot be used."""

    def check_options(self, **options: Any) -> None:
        """Raises ConfigError for a value of `generate.options` that is not allowed."""
        ...


@runtime_checkable
class HoldsModel(Protocol):
    """A backend with the loaded model in this process, whose device times are reported with."""

    model: Any


@runtime_checkable
class OnDevice(Protocol):
    """A loaded model, as torch has it."""

    device: Any


class Scorer(Protocol):
    """Trajectories -> importance. Receives trajectories that have a CoT; looks at nothing else of the run."""

    name: str

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a source of candidates has a model write: the answer to the question of `chain`, or to `content`.

    `system`, `instruction` and `shots` (question, chain, answer of worked examples) are said around the question; the
    assistant's turn begins with `prefill`. `sample` tells apart the requests of one question.
    """

    chain: Trajectory
    content: str | None = None
    ratio: float = 1.0
    instruction: str = ""
    system: str = ""
    shots: tuple[tuple[str, str, str], ...] = ()
    prefill: str = ""
    temperature: float = 0.0
    top_p: float = 1.0
    sample: int = 0


class Ask(Protocol):
    """A model that a source of candidates may ask."""

    def __call__(self, requests: Sequence[Sequence[Request]]) -> list[list[Completion]]:
        """One completion a request (its prefill in front), for the requests of each chain."""
        ...


class Source(Protocol):
    """Where shorter chains come from: a finished chain -> candidates, which the stage checks and chooses from.

    The chain's answer may be wrong (`dropped` says so): what is made from such a chain would be wrong as well.
    """

    name: str

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """The candidates of each chain: what a model wrote (chain and answer), or a cut of the chain itself."""
        ...


class TokenCounter(Protocol):
    """How many of the target model's tokens a text has."""

    def __call__(self, text: str) -> int:
        """The number of tokens, special tokens excluded."""
        ...


@runtime_checkable
class HasOffsets(Protocol):
    """A counter that knows where each token is; without it, `atoms: false` falls back to words."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token."""
        ...
