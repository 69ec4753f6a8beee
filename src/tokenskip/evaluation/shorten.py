"""The original's own chains made shorter without any training: cut off, or with parts left out at random.

A chain that has no answer any more is made to give one: what servers do when a thinking budget is spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tokenskip.arms import Arm
from tokenskip.config import PruneConfig, RunConfig
from tokenskip.generation.generate import ask, trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.generation.split import TRUNCATED
from tokenskip.pruning.chain import Chain
from tokenskip.run import Run
from tokenskip.scorers.random import RandomScorer
from tokenskip.types import Backend, Completion, Problem, Sampling, Trajectory

ANSWER_CAP = 48
"""Tokens that a forced answer may take."""
ANY_UNIT = PruneConfig(verify=False)
"""Words go as they come, with their equations or without: the control knows nothing."""


class Item(NamedTuple):
    """A problem with what other arms wrote for it: the original, and the arm that is matched."""

    problem: Problem
    original: Trajectory | None = None
    matched: Trajectory | None = None


class Cut(NamedTuple):
    """A chain without its answer: the place of its row, the problem, and the ids of what is left."""

    place: int
    problem: Problem
    ids: list[int]


def full_cap(config: RunConfig) -> int:
    """The token cap of a completion that nothing shortens."""
    return config.evaluate.max_new_tokens or config.generate.max_new_tokens


def sampling_of(config: RunConfig) -> Sampling:
    """How every arm decodes: greedily unless `evaluate.temperature` says otherwise, under one cap."""
    settings = config.evaluate
    return Sampling(
        max_new_tokens=full_cap(config),
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=config.seed,
    )


def cut_off(run: Run, arm: Arm, ratio: float, items: Sequence[Item], backend: Backend) -> list[Trajectory]:
    """The original's chains under a cap of `ratio` × token cap; those that fit, or that failed, are untouched.

    A chain that has given its answer within the cap is not made to answer again.
    """
    budget = arm.token_cap(full_cap(run.config), ratio, run.config.evaluate.length)
    trajectories: list[Trajectory] = []
    unanswered: list[Cut] = []
    for i, (problem, original, _) in enumerate(items):
        assert original is not None
        assert (original.id, original.sample) == (problem.id, problem.sample)
        if original.finish == "error":
            trajectories.append(replace(original, ratio=ratio, grade=None))
            continue
        if original.n_tokens <= budget and original.finish == "stop":
            trajectories.append(replace(original, ratio=ratio, grade=None, dropped=None))
            continue
        ids = run.prompts.ids(original.output)[:budget]
        text = run.prompts.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        cut = Completion(text=text, n_tokens=len(ids), finish="length")
        trajectory = trajectory_of(problem, ratio, cut, run.config.prompt, run.count)
        grade = grade_trajectory(trajectory, run.task).grade
        if arm.forced and grade is not None and grade.reason == TRUNCATED:
            unanswered.append(Cut(i, problem, ids))
        trajectories.append(trajectory)
    return _answered(run, trajectories, unanswered, backend)


def left_out(run: Run, ratio: float, items: Sequence[Item], backend: Backend) -> list[Trajectory]:
    """The original's chains without so many units, drawn at random, that each is as long as the matched arm's.

    A matched chain that is as long as the original's leaves it as it is, and so does one that failed; the mean length
    is then the matched arm's up to a unit a chain, unless that arm writes longer chains than the original.
    """
    random = RandomScorer(seed=run.config.seed)
    trajectories: list[Trajectory] = []
    unanswered: list[Cut] = []
    for i, (problem, original, matched) in enumerate(items):
        assert original is not None
        assert matched is not None
        assert (original.id, original.sample) == (matched.id, matched.sample) == (problem.id, problem.sample)
        whole = original.finish == "error" or not original.cot.strip()
        if whole or matched.n_cot_tokens >= original.n_cot_tokens or matched.finish == "error":
            dropped = original.dropped if original.finish == "error" else None
            trajectories.append(replace(original, ratio=ratio, grade=None, dropped=dropped))
            continue
        [scores] = random.score([original])
        chain = Chain(original.cot, scores, run.count, ANY_UNIT)
        cot = chain.text(chain.best(chain.n_kept(matched.n_cot_tokens / original.n_cot_tokens)))
        ids = run.prompts.ids(original.head + cot)
        unanswered.append(Cut(i, problem, ids))
        trajectories.append(
            replace(
                original,
                ratio=ratio,
                output=original.head + cot,
                cot=cot,
                tail="",
                n_tokens=len(ids),
                n_cot_tokens=run.count(cot),
                finish="length",
                grade=None,
                dropped=None,
            )
        )
    return _answered(run, trajectories, unanswered, backend)


def _answered(
    run: Run, trajectories: list[Trajectory], unanswered: Sequence[Cut], backend: Backend
) -> list[Trajectory]:
    """The trajectories, those without an answer made to give one."""
    if not unanswered:
        return trajectories
    forced = run.prompts.forced_answer()
    prompts = []
    for i, problem, ids in unanswered:
        prompt = run.prompts.prompt(problem.question)
        prompts.append(
            replace(
                prompt,
                token_ids=(*prompt.token_ids, *ids, *run.prompts.ids(forced)),
                prefill=trajectories[i].output + forced,
                max_new_tokens=ANSWER_CAP,
            )
        )
    answers = ask([cut.problem for cut in unanswered], prompts, backend, sampling_of(run.config))
    for cut, completion in zip(unanswered, answers, strict=True):
        trajectories[cut.place] = _with_answer(trajectories[cut.place], forced, completion)
    return trajectories


def _with_answer(chain: Trajectory, forced: str, answer: Completion) -> Trajectory:
    """A chain that was cut off, with the answer that was then forced out of the model."""
    if answer.error:
        return replace(chain, finish="error").drop(f"backend error: {answer.error}")
    tail = chain.tail + forced + answer.text
    return replace(
        chain,
        output=chain.head + chain.cot + tail,
        tail=tail,
        n_tokens=chain.n_tokens + answer.n_tokens,
        finish=answer.finish,
        dropped=None,
    )
