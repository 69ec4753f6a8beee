"""`tokenskip playground`: a local page that answers with the whole and with a shortened chain, side by side.

    pip install 'gradio>=6,<7'
    tokenskip playground                                   # the embedded model
    tokenskip playground runs/mine                         # a run: its model, and that with its adapter
    tokenskip playground --url http://localhost:8000 --model tokenskip --original base-model

Both answers stream together. Loaded models take turns, and each is timed in its own turns only, so neither slows the
other's clock; a server is asked both at once. `playground_page` shows what comes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from tokenskip.backends import _replies as replies
from tokenskip.client import Client, base_url, redact, run
from tokenskip.config import PromptConfig, RunConfig, check_config, lay_over
from tokenskip.embedded import family
from tokenskip.errors import ConfigError, ModelError
from tokenskip.generation.split import split_completion
from tokenskip.models.loading import EMBEDDED, load_tokenizer, resolve_model
from tokenskip.plugins import make_backend
from tokenskip.prompting.chat_template import TemplateSettings, read_settings
from tokenskip.prompting.prompts import Prompts, chat_turns, prompt_kwargs
from tokenskip.ratio import spell
from tokenskip.serving.doctor import KWARGS, diagnose
from tokenskip.serving.merge import Trained, find_adapter
from tokenskip.storage.store import COMPLETIONS, read_rows
from tokenskip.terminal import one_line
from tokenskip.tokens import token_counter
from tokenskip.types import Completion, Finish

Timed = tuple[Completion, float]
"""An answer so far, and the seconds it took so far."""
Reading = Callable[[Callable[[Completion], None]], Coroutine[Any, Any, None]]
"""Reads an answer and passes on what there is so far."""
REFRESH_S = 0.1
"""How often an answer that comes is put together, at most."""
HEARTBEAT_S = 1.0
ANSWER_S = 1800.0
"""The longest that a server's answer is read."""
N_WAITING = 8
"""Items of a stream that wait to be taken; older ones are passed over."""
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

    def tokens(self, completion: Completion) -> int:
        """CoT tokens as the reports count them, or what the server counts."""
        return self.count(self.parts(completion.text)[0]) if self.count else completion.n_tokens


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
        own_prompts = prompts.served_by(adapter) if adapter else prompts

        def ask(question: str, ratio: float, cap: int = generate.max_new_tokens) -> Iterator[Timed]:
            try:
                prompt = own_prompts.prompt(question, ratio)
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
        note="" if KWARGS in found.by else f"This server ignores the ratio ({found.found}): {found.advice}.",
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


def pumped(items: Iterable[Completion] | Reading) -> Iterator[Timed]:
    """The newest item with the seconds since the call, read in a thread that starts at once; an error becomes an item.

    Items that come faster than they are taken are passed over. While none comes, the last one is given again about
    once a second, so that whoever watches can leave; closing the iterator ends the reading.
    """
    arrived: deque[Timed] = deque(maxlen=N_WAITING)
    news, closed, done = Condition(), Event(), Event()
    start = time.perf_counter()

    def put(item: Completion) -> None:
        with news:
            arrived.append((item, time.perf_counter() - start))
            news.notify()

    def read() -> None:
        try:
            if isinstance(items, Iterable):
                for item in items:
                    put(item)
                    if closed.is_set():
                        break
            else:
                run(_until(items(put), closed))
        except Exception as error:  # shown in the page
            put(Completion(text="", n_tokens=0, finish="error", error=one_line(error)))
        with news:
            done.set()
            news.notify()

    Thread(target=read, daemon=True, name="answer").start()
    last = Completion(text="", n_tokens=0)
    try:
        while True:
            with news:
                news.wait_for(lambda: arrived or done.is_set(), HEARTBEAT_S)
                item = arrived.popleft() if arrived else None
                if item is None and done.is_set():
                    return
            last = item[0] if item else last
            yield item or (last, time.perf_counter() - start)
    finally:
        closed.set()


async def _until(work: Coroutine[Any, Any, None], closed: Event) -> None:
    """Do `work`, or drop it soon after `closed` is set."""
    task = asyncio.create_task(work)
    while not task.done():
        await asyncio.wait({task}, timeout=0.2)
        if closed.is_set():
            task.cancel()
            await asyncio.wait({task})
            return
    task.result()


def race(ground: Ground, question: str, ratio: float) -> Generator[tuple[Timed | None, Timed | None, bool]]:
    """(original so far, short so far, whether both are done), after every piece of either."""
    running: dict[int, Iterator[Timed]] = {
        0: ground.original[1](question, 1.0),
        1: ground.short[1](question, ratio),
    }
    latest: list[Timed | None] = [None, None]
    try:
        while running:
            for side in list(running):
                item = next(running[side], None)
                if item is None:
                    del running[side]
                else:
                    latest[side] = item
                yield latest[0], latest[1], not running
    finally:
        for answer in running.values():
            if isinstance(answer, Generator):
                answer.close()


def _served(url: str, config: RunConfig, model: str, question: str, ratio: float) -> Reading:
    """How a server's answer is read as it grows; the last item has the server's own token count, where it has one."""
    kwargs = prompt_kwargs(config.prompt, ratio)
    body = {
        "model": model,
        "messages": list(chat_turns(config.prompt, question)),
        "max_tokens": config.generate.max_new_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"chat_template_kwargs": kwargs} if kwargs else {}),
    }

    async def read(put: Callable[[Completion], None]) -> None:
        answer = _Growing(put)
        async with Client(timeout_s=ANSWER_S) as client:
            await client.stream(f"{url}/chat/completions", body, answer.take)
        answer.show()

    return read


class _Growing:
    """An answer that grows by the events of a stream; it is put together and passed on a few times a second."""

    def __init__(self, put: Callable[[Completion], None]) -> None:
        self.put = put
        self.thought: list[str] = []
        self.said: list[str] = []
        self.n_events = 0
        self.n_tokens: int | None = None
        self.finish: Finish = "stop"
        self.next_s = 0.0

    def take(self, event: Any) -> None:
        """Add an event. Raises OddReply when it is none."""
        piece = replies.piece(event)
        self.thought.append(piece.thought)
        self.said.append(piece.said)
        self.n_events += 1
        self.n_tokens = piece.n_tokens or self.n_tokens
        self.finish = "length" if piece.finish == "length" else self.finish
        if (start := time.perf_counter()) >= self.next_s:
            self.show()
            end = time.perf_counter()
            self.next_s = end + max(REFRESH_S, 4 * (end - start))

    def show(self) -> None:
        """Pass on what there is so far. The key may have come in two pieces, so the whole is cleaned again."""
        thought, said = redact("".join(self.thought)), redact("".join(self.said))
        text = f"<think>{thought}" + (f"</think>{said}" if said else "") if thought else said
        self.put(Completion(text=text, n_tokens=self.n_tokens or self.n_events, finish=self.finish))


def _trained(source: str, base: str | None) -> Trained:
    return find_adapter(source, base or (EMBEDDED if source == EMBEDDED else None))


def _trained_on(folder: Path) -> str:
    """What the saved chat template does with a ratio that was not trained; empty where it does not say."""
    file = folder / "chat_template.jinja"
    settings = read_settings(file.read_text(encoding="utf-8")) if file.exists() else TemplateSettings()
    if not settings.ratios:
        return ""
    others = "refused" if settings.strict else "asked as the nearest of these"
    return f"Trained on ratios {spell(settings.ratios)}; others are {others}."


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
    return [problem.question for problem in family.problems("test", N_QUESTIONS)]
