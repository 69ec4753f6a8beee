"""Stage 1: the target model answers every training problem itself. Writes `completions.jsonl`.

The paper (section 3.2) compresses the model's own chains: they are in its own words, so that fine-tuning changes what
is left out and little else.

    tokenskip generate runs/NAME
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from tokenskip.config import PromptConfig
from tokenskip.split import split_completion
from tokenskip.types import Backend, Completion, Problem, Prompt, Sampling, Trajectory

TokenCount = Callable[[str], int]


def repeat(problems: Iterable[Problem], samples: int) -> Iterator[Problem]:
    """Every problem `samples` times, told apart by `#k` behind the id; just the problems for one sample."""
    for problem in problems:
        if samples == 1:
            yield problem
        else:
            yield from (replace(problem, id=f"{problem.id}#{k}") for k in range(samples))


def complete(
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    backend: Backend,
    sampling: Sampling,
    config: PromptConfig,
    count: TokenCount,
) -> list[Trajectory]:
    """One ungraded trajectory per problem and prompt; a completion that failed is kept as such, with the error."""
    completions = backend.generate(prompts, sampling)
    return [
        trajectory_of(problem, prompt.ratio, completion, config, count)
        for problem, prompt, completion in zip(problems, prompts, completions, strict=True)
    ]


def trajectory_of(
    problem: Problem, ratio: float, completion: Completion, config: PromptConfig, count: TokenCount
) -> Trajectory:
    """The record of one completion, divided into CoT and answer, the CoT counted in the target's tokens."""
    split = split_completion(completion.text, completion.finish, config)
    trajectory = Trajectory(
        id=problem.id,
        question=problem.question,
        gold=problem.gold,
        level=problem.level,
        ratio=ratio,
        output=completion.text,
        head=split.head,
        cot=split.cot,
        tail=split.tail,
        n_tokens=completion.n_tokens,
        n_cot_tokens=count(split.cot),
        finish=completion.finish,
    )
    return trajectory.drop(f"backend error: {completion.error}") if completion.error else trajectory
