"""`--dry-run`: a recipe resolved and shown, nothing run and nothing downloaded.

What is not on this machine is named in lines `would download: …`. Without the model, three prompts are still shown: a
stand-in tokenizer (the embedded model's) renders them, and without the data, three made-up questions are used; both say
so. The wording around them is then not the real template's, and token counts are rough.

    tokenskip run RECIPE --dry-run
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from tokenskip import plugins, terminal
from tokenskip.arms import rows_of
from tokenskip.commands.estimate import Workload, count_parameters, line
from tokenskip.config import ModelConfig, RunConfig
from tokenskip.errors import ConfigError, DataError
from tokenskip.models.loading import is_here, load_tokenizer, resolve_model
from tokenskip.plugins import check_arms, check_backend, check_scorer
from tokenskip.prompting.chat_template import is_dated, unread_kwargs
from tokenskip.prompting.prompts import Prompts, example_answer
from tokenskip.ratio import covers, spaced
from tokenskip.tasks._base import is_local
from tokenskip.tracking import check_trackers
from tokenskip.training.check import check_training
from tokenskip.training.dataset import few_steps, training_rows
from tokenskip.types import Problem, Pruned, Trajectory

PROMPT, TRAINED = "dim", "bold green"
N_SHOWN = 3
HUB_SIZES = {
    ("openai/gsm8k:main", "train"): 7473,
    ("openai/gsm8k:main", "test"): 1319,
    ("DigitalLearningGmbH/MATH-lighteval", "train"): 7500,
    ("HuggingFaceH4/MATH-500", "test"): 500,
}
"""Problems in the hub data sets that recipes name, so that sizes are known before a download."""
STAND_INS = (
    Problem(id="stand-in-1", question="Tom has 12 apples and buys 5 more. How many apples does he have?", gold="17"),
    Problem(id="stand-in-2", question="A train takes 3 hours for 240 km. What is its speed in km/h?", gold="80"),
    Problem(id="stand-in-3", question="What is $\\frac{1}{2} + \\frac{1}{3}$?", gold="\\frac{5}{6}"),
)


@dataclass(frozen=True, slots=True)
class Data:
    """The problems of one split as far as they are known: how many (None: unknown), and the first of them."""

    n: int | None
    first: tuple[Problem, ...]
    missing: str | None = None


def dry_run(config: RunConfig) -> None:
    """Print what a run would do: settings, downloads, three training rows with what is trained on, and sizes.

    Raises:
        TokenskipError: whatever would stop the run before its first stage.
    """
    console = terminal.console()
    task = plugins.make_task(config.task, config.prompt)
    check_backend(config)
    check_scorer(config)
    check_trackers(config.train.report_to)
    config.check_calibration()
    source = resolve_model(config.model.path, reachable=False)
    train, test = (_data(task, config, split) for split in ("train", "test"))
    here = is_here(source)
    console.print(f"model: {source}", markup=False, highlight=False, soft_wrap=True)
    downloads = [None if here else source, _scorer_download(config), train.missing, test.missing]
    for name in dict.fromkeys(filter(None, downloads)):
        console.print(f"would download: {name}", markup=False, highlight=False, soft_wrap=True)
    console.print_json(config.model_dump_json())
    if not here:
        console.print("! stand-in tokenizer: the embedded model's, so turns look different and counts are rough")
    if train.missing:
        console.print("! stand-in questions: the training problems are not on this machine")
    tokenizer = load_tokenizer(config.model if here else ModelConfig())
    own_template = tokenizer.chat_template if here else None
    prompts = Prompts(tokenizer, config.prompt)
    check_training(config, prompts if here else None)
    lengths = [
        _show(console, prompts, problem, ratio) for problem, ratio in zip(train.first, _ratios(config), strict=False)
    ]
    console.print(_sizes(config, train.n, test.n, max(lengths)), highlight=False, soft_wrap=True)
    for warning in _warnings(config, own_template):
        console.print(f"! {warning}", markup=False, highlight=False, soft_wrap=True)
    few = few_steps(train.n * config.generate.samples * config.prune.rows_per_chain, config.train) if train.n else None
    if few:
        console.print(f"! at most {few}", highlight=False, soft_wrap=True)
    if train.n and test.n:
        console.print(line(_workload(config, train.n, test.n, max(lengths), Path(source))), soft_wrap=True)


def _warnings(config: RunConfig, template: str | None) -> Iterator[str]:
    """What is allowed and probably not meant; `template`: the model's own, where it is on this machine."""
    if template:
        for name in unread_kwargs(template, config.prompt.template_kwargs):
            yield f"prompt.template_kwargs: the model's chat template never reads {name}"
        if is_dated(template):
            day = config.prompt.date
            yield (
                "the model's chat template shows the date: it stays "
                + (
                    f"{day} (prompt.date)"
                    if day
                    else "that of the run's start, in all stages and in the saved template"
                )
            )
            if config.generate.backend == "openai" and config.generate.options.get("endpoint", "chat") == "chat":
                yield (
                    "the server's own template shows the server's date: set generate.options.endpoint=completions, or "
                    "give the date by prompt.template_kwargs where the template takes one"
                )
    try:
        check_arms(config)
    except ConfigError as error:
        yield f"evaluate will stop: {error}"
    generate, evaluate = config.generate, config.evaluate
    if (generate.temperature > 0) != (evaluate.temperature > 0):
        how = {True: "samples", False: "decodes greedily"}
        yield (
            f"generate {how[generate.temperature > 0]} and evaluate {how[evaluate.temperature > 0]}: chains are "
            "measured otherwise than they were made (evaluate.temperature, evaluate.top_p)"
        )
    if untrained := [ratio for ratio in evaluate.ratios if not covers(config.prune.ratios, ratio)]:
        spelled = ", ".join(map(str, untrained))
        yield f"evaluate.ratios: {spelled} not among the trained prune.ratios; the model may not follow"


def _workload(config: RunConfig, n_train: int, n_test: int, n_prompt: int, source: Path) -> Workload:
    """The run's size for the estimate: half the cap for a completion, and 8B parameters where they are not known."""
    ratios = spaced(config.prune.ratios)
    return Workload(
        n_train=n_train,
        n_parameters=count_parameters(source) or Workload(n_train=1).n_parameters,
        prompt_tokens=n_prompt,
        completion_tokens=config.generate.max_new_tokens // 2,
        samples=config.generate.samples,
        rows_per_chain=config.prune.rows_per_chain,
        kept=sum(ratios) / len(ratios),
        epochs=config.train.epochs,
        train_passes=4.0 if config.train.method == "full" else 3.0,
        n_test=n_test,
        n_arms=len(list(rows_of(config.chosen_arms(), config.evaluate.ratios))),
    )


def _ratios(config: RunConfig) -> tuple[float, ...]:
    ratios = config.prune.ratios
    return (1.0, min(ratios), sorted(ratios)[len(ratios) // 2])


def _data(task: Any, config: RunConfig, split: str) -> Data:
    limit = config.task.train_limit if split == "train" else config.task.test_limit
    source = getattr(config.task, split) or getattr(task, "sources", {}).get(split)
    if source is None or is_local(source):
        n, first = 0, []
        for n, problem in enumerate(task.problems(split, limit), start=1):
            first += [problem] if n <= N_SHOWN else []
        if not n:
            raise DataError(f"task {config.task.name} has no {split} problems")
        return Data(n, tuple(first))
    size = HUB_SIZES.get((source, split))
    n_known = min(size, limit or size) if size else limit
    return Data(n_known, tuple(islice(STAND_INS, limit)), f"{source} (data, {split} split)")


def _scorer_download(config: RunConfig) -> str | None:
    """The hub id of the scorer's model where it is not on this machine."""
    model = config.score.model
    if model is None:
        scorer = plugins.load("scorer", config.score.scorer, plugins.SCORERS)
        parameter = inspect.signature(scorer).parameters.get("model")
        model = parameter.default if parameter and isinstance(parameter.default, str) else None
    if model is None or model == "embedded" or Path(model).expanduser().exists():
        return None
    return None if is_here(model) else f"{model} (scorer {config.score.scorer})"


def _show(console: Console, prompts: Prompts, problem: Problem, ratio: float) -> int:
    """Print one training row, what is trained on in green; returns its prompt's tokens.

    It is rendered as training renders it, with a placeholder for the chain and the problem's gold answer.
    """
    example = Trajectory(
        id=problem.id,
        question=problem.question,
        gold=problem.gold,
        tail=example_answer(prompts.config, problem.gold),
        pruned=(Pruned(ratio=ratio, text="… chain of thought …", n_tokens=1, n_tokens_pruned=1),),
    )
    (row,) = training_rows(example, prompts)
    prompt = prompts.text(row["prompt"], row["ratio"])
    text = Text(prompt, PROMPT)
    text.append(row["completion"][0]["content"] + prompts.tokenizer.eos_token, TRAINED)
    n_prompt = len(prompts.ids(prompt))
    title = f"{problem.id}, ratio {ratio}: {n_prompt} prompt tokens (green: trained on)"
    console.print(Panel(text, title=Text(title), title_align="left"))
    return n_prompt


def _sizes(config: RunConfig, n_train: int | None, n_test: int | None, n_prompt: int) -> str:
    cap = config.generate.max_new_tokens
    per_problem = config.prune.rows_per_chain
    row = f"a training row has about {n_prompt} prompt tokens and at most {cap:,} of completion"
    if n_train is None:
        return f"as many training problems as the data has; {row}"
    n_samples = n_train * config.generate.samples
    own = f"at most {n_samples * cap:,} tokens to generate, about {n_samples * n_prompt:,} to read"
    work = "with their own solutions" if config.generate.source == "solutions" else own
    tests = "as many evaluation problems as the data has" if n_test is None else f"{n_test} evaluation problems"
    return (
        f"{n_train} training problems ({work}), at most {n_samples * per_problem:,} training rows, {tests} per arm and "
        f"ratio; {row}"
    )
