"""Stage 1: the target model answers every training problem itself. Writes `completions.jsonl`.

The paper (section 3.2) compresses the model's own chains: they are in its own words, so that fine-tuning changes what
is left out and little else.

    tokenskip generate runs/NAME
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from tokenskip.config import PromptConfig
from tokenskip.engine import Work
from tokenskip.errors import DataError, TokenskipError
from tokenskip.generation.split import UNCLOSED, split_completion
from tokenskip.prompting.prompts import example_answer
from tokenskip.run import Run
from tokenskip.storage.store import COMPLETIONS, Row, trajectory_row
from tokenskip.types import Backend, Completion, Problem, Prompt, Sampling, TokenCounter, Trajectory

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(run: Run) -> None:
    """Stage 1.

    Raises:
        DataError: the task has no problems, or a bad line. RunError: others than the run was begun with.
    """
    settings = run.config.generate
    total = run.check_problems("train") * settings.samples  # a bad line is reported before any work
    if settings.source == "solutions":
        _need_solutions(run.problems("train"))
    problems = repeat(run.problems("train"), settings.samples)
    pending = run.folder.pending(COMPLETIONS, problems, 4 * settings.batch_size)
    for rows in run.map(completing, pending, "generate", total):
        run.folder.append(COMPLETIONS, rows)


def completing(run: Run) -> Work:
    """The work of stage 1: problems -> rows of `completions.jsonl`."""
    settings = run.config.generate
    if settings.source == "solutions":
        return partial(given, config=run.config.prompt, count=run.count)
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=run.config.seed,
    )
    backend = run.backend()

    def work(problems: Sequence[Problem]) -> list[Row]:
        prompts = [run.prompts.prompt(problem.question) for problem in problems]
        trajectories = complete(problems, prompts, backend, sampling, run.config.prompt, run.count)
        return [trajectory_row(trajectory) for trajectory in trajectories]

    return work


def given(problems: Sequence[Problem], config: PromptConfig, count: TokenCounter) -> list[Row]:
    """Rows of `completions.jsonl` that hold the problems' own solutions; each gets its answer where it states none."""
    rows = []
    for problem in problems:
        text = problem.solution or ""
        if not split_completion(text, "stop", config).tail:
            text = text.rstrip() + example_answer(config, problem.gold)
        rows.append(
            trajectory_row(trajectory_of(problem, 1.0, Completion(text=text, n_tokens=count(text)), config, count))
        )
    return rows


def _need_solutions(problems: Iterable[Problem]) -> None:
    """DataError that names the first problem without a solution."""
    for problem in problems:
        if not problem.solution:
            raise DataError(
                f"generate.source=solutions: problem {problem.id!r} has none; give each training problem a whole "
                "solution in the field 'solution' (or name the field by task.fields.solution)"
            )


def repeat(problems: Iterable[Problem], samples: int) -> Iterator[Problem]:
    """Every problem `samples` times in a row, distinguished by its sample number."""
    return (replace(problem, sample=k) if k else problem for problem in problems for k in range(samples))


def repeat_in_passes(problems: Callable[[], Iterable[Problem]], samples: int) -> Iterator[Problem]:
    """As `repeat`, all problems once, then all of them again: a batch then holds a problem once."""
    for k in range(samples):
        yield from (replace(problem, sample=k) if k else problem for problem in problems())


def complete(
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    backend: Backend,
    sampling: Sampling,
    config: PromptConfig,
    count: TokenCounter,
) -> list[Trajectory]:
    """One ungraded trajectory per problem and prompt; a completion that failed is kept as such, with the error."""
    completions = ask(problems, prompts, backend, sampling)
    return [
        trajectory_of(problem, prompt.ratio, completion, config, count)
        for problem, prompt, completion in zip(problems, prompts, completions, strict=True)
    ]


def ask(
    problems: Sequence[Problem], prompts: Sequence[Prompt], backend: Backend, sampling: Sampling
) -> list[Completion]:
    """One completion a problem and prompt, each with its own seed.

    Samples of one number are asked for together, and with another seed for each number, for backends that know one seed
    a call only.
    """
    groups: dict[int, list[int]] = {}
    for i, problem in enumerate(problems):
        groups.setdefault(problem.sample, []).append(i)
    completions: dict[int, Completion] = {}
    for sample, group in groups.items():
        seeded = [replace(prompts[i], seed=seed_of(sampling.seed, problems[i])) for i in group]
        answers = answer(backend, seeded, replace(sampling, seed=sampling.seed + sample))
        completions |= zip(group, answers, strict=True)
    return [completions[i] for i in range(len(problems))]


def seed_of(seed: int, problem: Problem) -> int:
    """The seed of one completion: of the run, the problem and the sample, whatever batch it is in; below 2**31."""
    spelled = f"{seed}\0{problem.id}\0{problem.sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(spelled, digest_size=4).digest(), "big") >> 1


def answer(backend: Backend, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    """One completion a prompt. Where the backend raises, prompts are tried one by one, and those that fail are records.

    What fails for every one of several prompts is not the prompts' fault, and is raised.
    """

    def failed(error: Exception) -> Completion:
        return Completion(text="", n_tokens=0, finish="error", error=f"{type(error).__name__}: {error}"[:200])

    return one_by_one(lambda some: backend.generate(some, sampling), prompts, failed)


def one_by_one(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], failed: Callable[[Exception], Result]
) -> list[Result]:
    """`work(items)`; where that raises, `work` of each item alone, and `failed(error)` for those it raises over.

    Raises:
        Exception: a user's mistake, or what `work` raises over every single one of several items.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except TokenskipError:
        raise
    except Exception as error:
        results: list[Result] = []
        n_failed = 0
        for item in items:
            try:
                results += work([item])
            except TokenskipError:
                raise
            except Exception as own:
                results.append(failed(own))
                n_failed += 1
        if n_failed == len(items) > 1:
            raise error
        return results


def trajectory_of(
    problem: Problem, ratio: float, completion: Completion, config: PromptConfig, count: TokenCounter
) -> Trajectory:
    """The record of one completion, divided into CoT and answer, the CoT counted in the target's tokens."""
    split = split_completion(completion.text, completion.finish, config)
    trajectory = Trajectory(
        id=problem.id,
        sample=problem.sample,
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
    if completion.error:
        return trajectory.drop(f"backend error: {completion.error}")
    return trajectory.drop(UNCLOSED) if split.reason == UNCLOSED else trajectory
