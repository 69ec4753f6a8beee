"""A run folder together with the objects that its configuration names: what every stage is handed.

    with Run(Path("runs/mine"), config) as run:
        pipeline.run(run)

A stage is a function of a run. What it computes it names as a module-level function that is given a run and builds the
work, a function of a window of inputs; `Run.map` has that done here or by actors of a cluster, and gives back what
comes of each window in order:

    for rows in run.map(grading, run.folder.pending(TRAJECTORIES, completions, WINDOW), "grade"):
        run.folder.append(TRAJECTORIES, rows)
"""

from __future__ import annotations

import datetime
import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenskip import plugins
from tokenskip.arms import weights_folder
from tokenskip.config import EngineConfig, RunConfig
from tokenskip.engine import Build, RayPool, check_engine, in_turn
from tokenskip.errors import StageError
from tokenskip.models.loading import load_tokenizer, resolve_model
from tokenskip.plugins import check_backend, check_scorer, check_sources, make_backend
from tokenskip.progress import Progress, Silent
from tokenskip.prompting.chat_template import is_dated
from tokenskip.prompting.prompts import Prompts
from tokenskip.storage.store import ADAPTER, JOURNAL, Pending, RunFolder, read_manifest
from tokenskip.tokens import token_counter
from tokenskip.tracking import check_trackers
from tokenskip.training.check import check_training
from tokenskip.types import Backend, Problem, Task, TokenCounter


def today() -> datetime.date:
    """The date that a new run's chat template shows, by the clock of this machine."""
    return datetime.date.today()


class Run:
    """A run folder with the objects that its configuration names; each is made when first needed, and checked before.

    Raises:
        TokenskipError: a name, path or folder that cannot be used; nothing heavy has been loaded by then.
    """

    def __init__(self, path: Path, config: RunConfig, progress: Progress | None = None) -> None:
        self.config = config
        self.progress = progress or Silent()
        self.task: Task = plugins.make_task(config.task, config.prompt)
        check_backend(config)
        check_scorer(config)
        check_sources(config)
        check_engine(config.engine)
        check_trackers(config.train.report_to)
        resolve_model(config.model.path)
        self.config = config = self._started(path, config)
        self.folder = RunFolder(path, config)
        self._backends: dict[str, Backend] = {}
        self._pool: RayPool | None = None
        if config.engine.name == "ray":
            here = config.model_copy(update={"engine": EngineConfig()})
            self._pool = RayPool(config.engine, partial(Run, path.absolute(), here))

    def _started(self, path: Path, config: RunConfig) -> RunConfig:
        """`config` with the date that the folder was started on, where the chat template shows one.

        Training settings are checked unless the folder has been written under the same ones. A folder from before
        dates were kept has none, and its template still shows today.
        """
        known = read_manifest(path)["config"] if (path / "config.json").exists() else None
        if known is None:
            tokenizer = load_tokenizer(config.model)
            if config.prompt.date is None and is_dated(tokenizer.chat_template):
                config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"date": today()})})
            self.prompts = Prompts(tokenizer, config.prompt)
            check_training(config, self.prompts)
            return config
        values = config.model_dump(mode="json")
        if config.prompt.date is None and known["prompt"]["date"]:
            date = datetime.date.fromisoformat(known["prompt"]["date"])
            config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"date": date})})
        if values["train"] != known["train"] or values["model"] != known["model"]:
            check_training(config)
        return config

    def __enter__(self) -> Run:
        self.folder.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.free()
        self.folder.__exit__(*exception)

    @cached_property
    def prompts(self) -> Prompts:
        """The renderer of prompts, with the target's tokenizer."""
        return Prompts(load_tokenizer(self.config.model), self.config.prompt)

    @cached_property
    def count(self) -> TokenCounter:
        """Counts text in the target model's tokens."""
        return token_counter(self.prompts.tokenizer)

    def problems(self, split: str) -> Iterable[Problem]:
        """Training or test problems, limited as configured."""
        limit = self.config.task.train_limit if split == "train" else self.config.task.test_limit
        return self.task.problems(split, limit)

    def check_problems(self, split: str) -> int:
        """How many there are; RunError when they are not those that the run was begun with, naming some."""
        return self.folder.check_data(split, lambda: self.problems(split))

    def backend(self, weights: str = "base") -> Backend:
        """The backend over the weights of an arm; see `arms.Arm.weights`.

        Raises:
            StageError: an adapter that has not been trained yet.
        """
        if weights not in self._backends:
            self.free()  # one model in memory at a time
            journal = self.folder.file(JOURNAL)
            self._backends[weights] = make_backend(self.config, self.prompts, self.adapter(weights), journal)
        return self._backends[weights]

    def map(self, build: Build, pending: Pending, title: str, total: int | None = None) -> Iterator[Any]:
        """What comes of each window that is pending, in order; shown as a stage of `total` inputs.

        `build` is called only when there is a window, so that a stage with nothing left to do loads no model.
        """
        sizes: deque[int] = deque()

        def counted() -> Iterator[Sequence[Any]]:
            for window in pending.windows:
                sizes.append(len(window))
                yield window

        with self.progress.stage(title, total) as advance:
            advance(pending.done)
            for result in self.compute(build, counted()):
                yield result
                advance(sizes.popleft())

    def compute(self, build: Build, windows: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """`map` without showing it: by the work that `build` makes of this run, or of each actor's own."""
        return self._pool.map(build, windows) if self._pool else in_turn(partial(build, self), windows)

    def adapter(self, weights: str) -> Path | None:
        """The adapter's folder; None for the untouched model, StageError for one that is not there yet."""
        if weights == "base":
            return None
        if "/" in weights:
            return Path(weights).expanduser()
        adapter = self.folder.path / weights_folder(weights) / ADAPTER
        if not adapter.exists():
            raise StageError(f"{self.folder.path} has no {adapter.relative_to(self.folder.path)}: train first")
        return adapter

    def sub_folder(self, weights: str, **changes: Any) -> RunFolder:
        """The folder inside this run where other weights are trained, under this configuration with `changes`.

        Nothing is evaluated in it, and arms that need what it lacks (rounds) would make it unreadable.
        """
        name = weights_folder(weights)
        evaluate = self.config.evaluate.model_copy(update={"arms": ("original",)})
        changes = {"name": name, "evaluate": evaluate, **changes}
        return RunFolder(self.folder.path / name, self.config.model_copy(update=changes))

    def free(self) -> None:
        """Let go of every loaded model, and of the actors that hold some."""
        if self._pool:
            self._pool.close()
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()
        gc.collect()
