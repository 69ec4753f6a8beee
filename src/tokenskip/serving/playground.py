"""`tokenskip playground`: a local page that answers with the whole and with a shortened chain, side by side.

    pip install 'tokenskip[playground]'
    tokenskip playground                                   # the embedded model
    tokenskip playground runs/mine                         # a run: its model, and that with its adapter
    tokenskip playground --url http://localhost:8000 --model tokenskip --original base-model

Both answers stream together. Loaded models take turns, and each is timed in its own turns only, so neither slows the
other's clock; a server is asked both at once. `playground_page` shows what comes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from tokenskip.client import KEY_VARIABLE, base_url
from tokenskip.config import PromptConfig, RunConfig, check_config, lay_over
from tokenskip.embedded import family
from tokenskip.errors import ConfigError, ModelError
from tokenskip.generation.split import split_completion
from tokenskip.models import EMBEDDED, load_tokenizer, resolve_model
from tokenskip.plugins import make_backend
from tokenskip.prompts import Prompts, chat_turns, prompt_kwargs
from tokenskip.serving.chat_template import TemplateSettings, read_settings
from tokenskip.serving.doctor import diagnose
from tokenskip.serving.merge import Trained, find_adapter
from tokenskip.store import COMPLETIONS, read_rows
from tokenskip.tokens import token_counter
from tokenskip.types import Completion

Timed = tuple[Completion, float]
"""An answer so far, and the seconds it took so far."""
N_QUESTIONS = 3
"""Example questions."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the page asks, and how it shows the answers.

    `ask(question, ratio)` starts an answer; `original` and `short` are (title, ask). `count` is None where no tokenizer
    is at hand: then whole answers are counted, as the server reports them.
    """

    original: tuple[str, Callable[[str, float], Iterator[Timed]]]
    short: tuple[str, Callable[[str, float], Iterator[Timed]]]
    prompt: PromptConfig
    count: Callable[[str], int] | None
    note: str = ""
    questions: Sequence[str] = ()

    def parts(self, text: str) -> tuple[str, str]:
        """Chain and answer of an answer so far."""
        split = split_completion(text, "stop", self.prompt)
        return split.head + split.cot, split.tail

    def tokens(self, one: Completion) -> int:
        """CoT tokens as the reports count them, or what the server counts."""
        return self.count(self.parts(one.text)[0]) if self.count else one.n_tokens


def local(source: str, base: str | None, overrides: Sequence[str]) -> Ground:
    """Both models of a run, an adapter, or 'embedded', loaded here.

    Raises:
        TokenskipError: a model, adapter or setting that cannot be used.
    """
    trained = _trained(source, base)
    config = _overlaid(trained.config, overrides)
    if trained.is_model and Path(resolve_model(config.model.path)) == trained.folder:
        raise ConfigError(f"{source} holds a whole model and does not name its original: give it by --base")
    generate = config.generate.model_copy(update={"backend": "hf", "options": {}, "batch_size": 1})
    config = config.model_copy(update={"generate": generate})
    prompts = Prompts(load_tokenizer(config.model), config.prompt)

    def column(adapter: Path | None) -> Callable[[str, float], Iterator[Timed]]:
        backend: Any = make_backend(config, prompts, adapter)
        own = prompts.served_by(adapter) if adapter else prompts

        def ask(question: str, ratio: float, cap: int = generate.max_new_tokens) -> Iterator[Timed]:
            try:
                prompt = own.prompt(question, ratio)
            except ModelError as error:  # the template refuses the ratio
                failed = Completion(text="", n_tokens=0, finish="error", error=str(error))
                return iter([(failed, 0.0)])
            return timed(backend.stream(prompt, cap))

        list(ask("", 0.5, 2))  # warms up
        return ask

    return Ground(
        original=(f"{_name(config.model.path)}, whole chain", column(None)),
        short=("the same, with TokenSkip", column(trained.folder)),
        prompt=config.prompt,
        count=token_counter(prompts.tokenizer),
        note=_trained_on(trained.folder),
        questions=_questions(trained),
    )


def remote(
    url: str, model: str, original: str | None, source: str | None, base: str | None, overrides: Sequence[str]
) -> Ground:
    """A server's models: `model` with ratios, and `original` (or `model` without one); prompts as `source` has them.

    Raises:
        TokenskipError: the server is down or serves no such model, or a source or setting that cannot be used.
    """
    trained = _trained(source, base) if source else None
    config = _overlaid(trained.config if trained else RunConfig(), overrides)
    found = diagnose(url, model)
    tokenizer = load_tokenizer(config.model) if trained else None
    ask = partial(_served, base_url(url), config)
    whole = f"{original}, whole chain" if original else f"{model}, ratio 1"
    return Ground(
        original=(whole, lambda question, _: pumped(ask(original or model, question, 1.0))),
        short=(model, lambda question, ratio: pumped(ask(model, question, ratio))),
        prompt=config.prompt,
        count=token_counter(tokenizer) if tokenizer else None,
        note="" if found.honoured else f"This server ignores the ratio ({found.found}): {found.advice}.",
        questions=_questions(trained) if trained else (),
    )


def timed(items: Iterable[Completion]) -> Iterator[Timed]:
    """Each item with the seconds that it and those before took to make; what happens between two does not count."""
    seconds, source = 0.0, iter(items)
    while True:
        start = time.perf_counter()
        item = next(source, None)
        if item is None:
            return
        seconds += time.perf_counter() - start
        yield item, seconds


def pumped(items: Iterable[Completion]) -> Iterator[Timed]:
    """Each item with the seconds since the call, read in a thread that starts at once; an error becomes an item."""
    arrived: Queue[Timed | None] = Queue()
    start = time.perf_counter()

    def read() -> None:
        try:
            for item in items:
                arrived.put((item, time.perf_counter() - start))
        except Exception as error:  # shown in the page
            failed = Completion(text="", n_tokens=0, finish="error", error=" ".join(str(error).split())[:300])
            arrived.put((failed, time.perf_counter() - start))
        arrived.put(None)

    Thread(target=read, daemon=True).start()
    return iter(arrived.get, None)


def race(ground: Ground, question: str, ratio: float) -> Iterator[tuple[Timed | None, Timed | None, bool]]:
    """(original so far, short so far, whether both are done), after every piece of either."""
    running: dict[int, Iterator[Timed]] = {
        0: ground.original[1](question, 1.0),
        1: ground.short[1](question, ratio),
    }
    latest: list[Timed | None] = [None, None]
    while running:
        for side in list(running):
            item = next(running[side], None)
            if item is None:
                del running[side]
            else:
                latest[side] = item
            yield latest[0], latest[1], not running


def _served(url: str, config: RunConfig, model: str, question: str, ratio: float) -> Iterator[Completion]:
    """A server's answer as it grows; the last item has the server's own token count, where it gives one."""
    import openai

    kwargs = prompt_kwargs(config.prompt, ratio)
    client: Any = openai.OpenAI(base_url=url, api_key=os.environ.get(KEY_VARIABLE, "none"), max_retries=1)
    stream = client.chat.completions.create(
        model=model,
        messages=list(chat_turns(config.prompt, question)),
        max_tokens=config.generate.max_new_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"chat_template_kwargs": kwargs} if kwargs else {},
    )
    thought, said, n_tokens, finish = "", "", 0, "stop"
    for event in stream:
        if event.choices:
            delta = event.choices[0].delta
            thought += getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
            said += delta.content or ""
            n_tokens += 1
            finish = event.choices[0].finish_reason or finish
        if event.usage and event.usage.completion_tokens:
            n_tokens = event.usage.completion_tokens
        text = f"<think>{thought}" + (f"</think>{said}" if said else "") if thought else said
        yield Completion(text=text, n_tokens=n_tokens, finish="length" if finish == "length" else "stop")


def _trained(source: str, base: str | None) -> Trained:
    return find_adapter(source, base or (EMBEDDED if source == EMBEDDED else None))


def _trained_on(folder: Path) -> str:
    """What the saved chat template does with a ratio that was not trained; empty where it does not say."""
    file = folder / "chat_template.jinja"
    settings = read_settings(file.read_text(encoding="utf-8")) if file.exists() else TemplateSettings()
    if not settings.ratios:
        return ""
    others = "refused" if settings.strict else "asked as the nearest of these"
    return f"Trained on ratios {', '.join(map(str, sorted(settings.ratios)))}; others are {others}."


def _overlaid(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    values = config.model_dump(mode="json")
    for override in overrides:
        lay_over(values, override)
    return check_config(values, "--set")


def _name(path: str) -> str:
    return "the embedded model" if path == EMBEDDED else Path(path).name


def _questions(trained: Trained) -> list[str]:
    """The first questions of a run; of the embedded family for its model; none where nothing is known."""
    file = trained.run / COMPLETIONS if trained.run else None
    if file and file.exists():
        return [str(row["question"]) for row in islice(read_rows(file), N_QUESTIONS)]
    if trained.config.model.path != EMBEDDED:
        return []
    return [one.question for one in family.problems("test", N_QUESTIONS)]
