"""Names -> tasks, backends, scorers and sources: four literal tables, and `package.module:attr` for a user's own.

To add one: write its file, add one line here, write its test. What a configuration names is checked before anything
heavy loads. A plug-in's constructor is given what it names, so one that needs no loaded model never loads one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenskip.config import PromptConfig, RunConfig, TaskConfig
from tokenskip.errors import ConfigError, unknown_name
from tokenskip.models.loading import check_adapter, check_context, load_model, load_tokenizer, resolve_model
from tokenskip.prompting.prompts import Prompts
from tokenskip.ratio import spaced
from tokenskip.types import (
    Ask,
    Backend,
    ChecksOptions,
    Refuses,
    Scorer,
    Source,
    Task,
    TokenCounter,
    Trajectory,
)

TASKS = {
    "embedded": "tokenskip.tasks.embedded:EmbeddedTask",
    "gsm8k": "tokenskip.tasks.gsm8k:Gsm8k",
    "math500": "tokenskip.tasks.math500:Math500",
    "jsonl": "tokenskip.tasks.jsonl:JsonlTask",
    "choice": "tokenskip.tasks.choice:Choice",
}
BACKENDS = {
    "hf": "tokenskip.backends.hf:HfBackend",
    "openai": "tokenskip.backends.openai:OpenAIBackend",
    "vllm": "tokenskip.backends.vllm:VllmBackend",
    "scripted": "tokenskip.backends.scripted:ScriptedBackend",
}
SCORERS = {
    "surprisal": "tokenskip.scorers.surprisal:Surprisal",
    "goal_gradient": "tokenskip.scorers.goal_gradient:GoalGradient",
    "random": "tokenskip.scorers.random:RandomScorer",
    "llmlingua2": "tokenskip.scorers.llmlingua2:LLMLingua2",
    "leave_one_out": "tokenskip.scorers.leave_one_out:LeaveOneOut",
    "ablation": "tokenskip.scorers.ablation:Ablation",
    "mist": "tokenskip.scorers.mist:Mist",
    "contrast": "tokenskip.scorers.contrast:Contrast",
}
SOURCES = {
    "prune": "tokenskip.sources.prune:Prune",
    "sample": "tokenskip.sources.sample:Sample",
    "prompt": "tokenskip.sources.prompt:Prompt",
    "skip_steps": "tokenskip.sources.skip_steps:SkipSteps",
    "on_policy": "tokenskip.sources.on_policy:OnPolicy",
    "rewrite": "tokenskip.sources.rewrite:Rewrite",
}

# what a constructor may ask for by name; every other argument is an option of the user's
_FOR_BACKENDS = (
    *("model", "path", "adapter", "journal", "tokenizer", "template_kwargs", "batch_size", "device", "dtype", "seed"),
)
_FOR_SCORERS = ("model", "tokenizer", "render", "batch_tokens", "seed", "device", "dtype")
_FOR_SOURCES = ("ask", "ratios", "count")
SERVER = "server"
"""Option of any source that asks: the model that it asks is behind this server, by options of the openai backend."""


def load(kind: str, name: str, table: dict[str, str]) -> Any:
    """The class that `name` means in `table`, or `package.module:attr` points to; an `answer_fn` is a function.

    Raises:
        ConfigError: there is no such name, module or attribute, or it is no class of that kind.
    """
    target = table.get(name, name)
    module_name, colon, attribute = target.partition(":")
    if not colon:
        raise ConfigError(unknown_name(kind, name, table) + ", or package.module:attr of your own")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(f"{kind} {name!r} needs the package {error.name!r}: pip install {error.name}") from None
        raise ConfigError(f"{kind} {name!r}: there is no module {module_name!r} to import") from None
    except Exception as error:  # a module of the user's may raise anything when it is imported
        raise ConfigError(
            f"{kind} {name!r}: importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    try:
        plugin = getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}") from None
    if kind in METHODS:
        _check_plugin(kind, name, plugin, module_name)
    return plugin


METHODS = {
    "task": ("problems", "extract", "grade"),
    "backend": ("generate", "close"),
    "scorer": ("score",),
    "source": ("candidates",),
}
"""What a class of each kind has, as the protocols in `types` say."""


def _check_plugin(kind: str, name: str, plugin: Any, module: str) -> None:
    """ConfigError unless `plugin` is a class of its kind that the named package defines, not one that it imports."""
    package = module.partition(".")[0]
    if not inspect.isclass(plugin) or plugin.__module__.partition(".")[0] != package:
        raise ConfigError(f"{kind} {name!r} is no class of the package {package!r}")
    missing = [method for method in METHODS[kind] if not callable(getattr(plugin, method, None))]
    if missing:
        raise ConfigError(f"{kind} {name!r} is no {kind}: it has no method {' and no '.join(missing)}")


def make_task(config: TaskConfig, prompt: PromptConfig) -> Task:
    """The configured task; one whose constructor names `prompt` is given the recipe's trigger and tags with it.

    Raises:
        TokenskipError: an unknown task, or a configuration that the task refuses.
    """
    factory = load("task", config.name, TASKS)
    made: Task = (
        factory(config, prompt=prompt) if "prompt" in inspect.signature(factory).parameters else factory(config)
    )
    return made


def check_backend(config: RunConfig) -> None:
    """ConfigError when the backend is unknown or does not take one of `generate.options`."""
    backend = load("backend", config.generate.backend, BACKENDS)
    _check_options(f"generate.options of {config.generate.backend}", backend, _FOR_BACKENDS, config.generate.options)
    if isinstance(backend, ChecksOptions):
        backend.check_options(**config.generate.options)


def check_arms(config: RunConfig) -> None:
    """ConfigError when the backend says (as `types.Refuses`) that it cannot do an arm of the evaluation, and why."""
    backend = load("backend", config.generate.backend, BACKENDS)
    if not isinstance(backend, Refuses):
        return
    options = config.generate.options
    refused = {arm.name: backend.refuses(arm, config.model.path, **options) for arm in config.chosen_arms()}
    if names := [name for name, reason in refused.items() if reason]:
        raise ConfigError(
            f"the {config.generate.backend} backend cannot do {', '.join(names)} as configured: {refused[names[0]]}; "
            "or leave them out: --set evaluate.arms=[…]"
        )


def check_adapters(config: RunConfig, folders: Iterable[Path | None]) -> None:
    """ModelError where the backend would load an adapter (a folder) that is not whole or belongs to another model."""
    wanted = inspect.signature(load("backend", config.generate.backend, BACKENDS)).parameters
    if "model" in wanted or config.generate.backend == "vllm":
        for folder in folders:
            if folder is not None:
                check_adapter(folder, config.model)


def make_backend(
    config: RunConfig, prompts: Prompts, adapter: Path | None = None, journal: Path | None = None
) -> Backend:
    """The configured backend. It is given what its constructor names.

    One that takes `model` gets the loaded model, with the adapter (a folder) on it; one that takes `path` gets the
    model's name and, as `adapter`, the folder or None, and serves them as it can. `journal` is a file where one may
    keep answers until the stage has written them.
    """
    factory = load("backend", config.generate.backend, BACKENDS)
    provided: dict[str, Any] = {
        "path": config.model.path,
        "adapter": adapter,
        "journal": journal,
        "tokenizer": prompts.tokenizer,
        "template_kwargs": prompts.config.template_kwargs,
        "batch_size": config.generate.batch_size,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "seed": config.seed,
    }
    wanted = inspect.signature(factory).parameters
    chosen = {name: value for name, value in provided.items() if name in wanted}
    if "model" in wanted:
        check_context(config.model, len(prompts.prompt("").token_ids), config.generate.max_new_tokens)
        chosen["model"] = load_model(config.model, adapter)
    made: Backend = factory(**chosen, **config.generate.options)
    return made


def check_scorer(config: RunConfig) -> None:
    """ConfigError when the scorer is unknown or does not take one of `score.options`."""
    scorer = load("scorer", config.score.scorer, SCORERS)
    _check_options(f"score.options of {config.score.scorer}", scorer, _FOR_SCORERS, config.score.options)
    if config.score.model and "model" in inspect.signature(scorer).parameters and config.score.model != "embedded":
        resolve_model(config.score.model)


def _check_options(
    where: str, factory: Callable[..., Any], provided: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    accepted = [name for name in parameters if name not in provided]
    for option in options:
        if option not in accepted:
            raise ConfigError(f"{where}: {unknown_name('option', option, accepted)}")


def check_sources(config: RunConfig) -> None:
    """ConfigError when a source of `candidates.sources` is unknown, or refuses its options."""
    for name, options in config.candidates.sources.items():
        where = f"candidates.sources.{name}"
        source = load("source", name, SOURCES)
        own = {key: value for key, value in options.items() if key != SERVER}
        if asks(name) and SERVER in options:
            if not isinstance(options[SERVER], dict):
                raise ConfigError(f"{where}.server holds options of the openai backend; given: {options[SERVER]!r}")
            backend = load("backend", "openai", BACKENDS)
            _check_options(f"{where}.server", backend, _FOR_BACKENDS, options[SERVER])
            backend.check_options(**options[SERVER])
        elif name == "rewrite":
            raise ConfigError(f"{where} needs another model: set {where}={{server: {{url: ..., served: ...}}}}")
        _check_options(where, source, _FOR_SOURCES, own if asks(name) else options)
        try:
            make_source(config, name)
        except TypeError as error:  # a value of another type, where the source does not look at it first
            raise ConfigError(f"{where}={options}: {error}") from None


def asks(source: str) -> bool:
    """Whether a source has a model write: its constructor names `ask`."""
    return "ask" in inspect.signature(load("source", source, SOURCES)).parameters


def ratios_below_one(config: RunConfig) -> list[float]:
    """The ratios that a source may aim at: of those trained on (of a range the tenths) all below 1, long ones first."""
    return sorted((ratio for ratio in spaced(config.prune.ratios) if ratio < 1), reverse=True)


def make_source(config: RunConfig, name: str, ask: Ask | None = None, count: TokenCounter | None = None) -> Source:
    """A source of `candidates.sources`, given what its constructor names: `ratios` are those trained on below 1."""
    factory = load("source", name, SOURCES)
    provided: dict[str, Any] = {"ask": ask, "count": count, "ratios": ratios_below_one(config)}
    wanted = inspect.signature(factory).parameters
    chosen = {key: value for key, value in provided.items() if key in wanted}
    options = {key: value for key, value in config.candidates.sources[name].items() if key != SERVER}
    made: Source = factory(**chosen, **options)
    return made


def needs_prompts(config: RunConfig) -> bool:
    """Whether the configured scorer reads rendered prompts; an encoder's tokenizer could not even render them."""
    return "render" in inspect.signature(load("scorer", config.score.scorer, SCORERS)).parameters


def make_scorer(config: RunConfig, prompts: Prompts | None) -> Scorer:
    """The configured scorer. It is given what its constructor names; `prompts` may be None without `needs_prompts`.

    A scorer that takes `render` scores with a causal LM: `score.model`, by default the target itself, loaded. One that
    takes only `model` is handed the path and loads what it needs.
    """
    settings = config.score
    factory = load("scorer", settings.scorer, SCORERS)
    wanted = inspect.signature(factory).parameters
    provided: dict[str, Any] = {
        "batch_tokens": settings.batch_tokens,
        "seed": config.seed,
        "device": config.model.device,
        "dtype": config.model.dtype,
    }
    if "render" in wanted:
        assert prompts is not None
        provided |= _causal_model(config, prompts)
    elif settings.model:
        provided["model"] = settings.model
    chosen = {name: value for name, value in provided.items() if name in wanted}
    scorer: Scorer = factory(**chosen, **settings.options)
    return scorer


def _causal_model(config: RunConfig, prompts: Prompts) -> dict[str, Any]:
    """The loaded model of a causal scorer, its tokenizer, and its rendering of a trajectory's prompt."""
    model_config = config.model
    if config.score.model:
        model_config = model_config.model_copy(update={"path": config.score.model, "revision": None})
        prompts = Prompts(load_tokenizer(model_config), config.prompt)

    def render(trajectory: Trajectory) -> list[int]:
        return list(prompts.prompt(trajectory.question).token_ids)  # the scorer adds `trajectory.head`

    return {"model": load_model(model_config), "tokenizer": prompts.tokenizer, "render": render}
