"""A run folder together with the objects that its configuration names: what every stage is handed.

with Run(Path("runs/mine"), config) as job:
    pipeline.run(job)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenskip import plugins
from tokenskip.arms import weights_folder
from tokenskip.config import EngineConfig, RunConfig
from tokenskip.engine import RayPool, check_engine
from tokenskip.errors import StageError
from tokenskip.models import load_tokenizer, resolve_model
from tokenskip.plugins import check_backend, check_scorer, make_backend
from tokenskip.progress import Progress, Silent
from tokenskip.prompts import Prompts
from tokenskip.store import ADAPTER, JOURNAL, Row, RunFolder, Work, in_turn
from tokenskip.tokens import token_counter
from tokenskip.tracking import check_trackers
from tokenskip.types import Backend, Problem, Task


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
        check_engine(config.engine)
        check_trackers(config.train.report_to)
        resolve_model(config.model.path)
        self.folder = RunFolder(path, config)
        self._backends: dict[str, Backend] = {}
        self._pool: RayPool | None = None
        if config.engine.name == "ray":
            here = config.model_copy(update={"engine": EngineConfig()})
            self._pool = RayPool(config.engine, partial(Run, path.absolute(), here))

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
    def count(self) -> Any:
        """Counts text in the target model's tokens."""
        return token_counter(self.prompts.tokenizer)

    def problems(self, split: str) -> Iterable[Problem]:
        """Training or test problems, limited as configured."""
        limit = self.config.task.train_limit if split == "train" else self.config.task.test_limit
        return self.task.problems(split, limit)

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

    def map(self, make: Callable[[Run], Work], windows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Row]]:
        """The rows of each window, in order, by the work that `make` builds of a job: of this one, or in actors."""
        return self._pool.map(make, windows) if self._pool else in_turn(partial(make, self), windows)

    def adapter(self, weights: str) -> Path | None:
        """The adapter's folder; None for the untouched model, StageError for one that is not there yet."""
        if weights == "base":
            return None
        if "/" in weights:
            return Path(weights).expanduser()
        found = self.folder.path / weights_folder(weights) / ADAPTER
        if not found.exists():
            raise StageError(f"{self.folder.path} has no {found.relative_to(self.folder.path)}: train first")
        return found

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
