"""What the modules of all commands share: options that mean the same everywhere, progress bars, and how a stage runs.

A command's module imports from here; `cli` registers it and is the only place that exits or catches our errors.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenskip import terminal
from tokenskip.distributed import rank, world
from tokenskip.errors import RunError, TokenskipError
from tokenskip.progress import Advance, Lines, Progress
from tokenskip.terminal import printable

Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the recipe; may repeat.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder (default: runs/NAME).")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most N training and N evaluation problems.")]
RunDir = Annotated[Path, typer.Argument(help="Run folder.")]


def run_stage(
    name: str,
    path: Path,
    recipe: Path | None = None,
    set_: list[str] | None = None,
    limit: int | None = None,
    *,
    then: str | None = None,
) -> None:
    """Run one stage, and the one `then`, on a folder, under its own configuration and what is laid over it."""
    from tokenskip import pipeline

    if recipe is None and (path / "config.json").exists():
        config = read_recipe(path / "config.json", set_ or [], limit, asks=name not in pipeline.LOCAL)
    elif name == "generate":
        config = read_recipe(recipe or Path("embedded"), set_ or [], limit)
    else:
        raise RunError(f"{path} is not a run folder: start one with `tokenskip run` or `tokenskip generate`")
    with bars() as progress, pipeline.Run(path, config, progress) as run:
        for change in run.folder.recut:
            say(f"{change}: the chains are cut anew, and the training rows with them")
        for stage in filter(None, (name, then)):
            pipeline.STAGES[stage](run)
    say(f"{name}: done, see {path}")


def read_recipe(recipe: Path, overrides: list[str], limit: int | None, *, asks: bool = True) -> Any:
    """The configuration of a recipe file, of a shipped recipe's name, or of a run folder's `config.json`.

    `asks`: what it is for may send requests to the servers that it names.
    """
    from tokenskip.config import load_recipe
    from tokenskip.recipes import find_recipe
    from tokenskip.storage.store import run_config
    from tokenskip.trust import check_servers

    if limit is not None:
        overrides = [*overrides, f"task.train_limit={limit}", f"task.test_limit={limit}"]
    if recipe.name == "config.json":
        config = run_config(recipe.parent, overrides)
        if asks:
            check_servers(config, overrides, str(recipe))
        return config
    return load_recipe(find_recipe(recipe), overrides)


@contextmanager
def bars() -> Iterator[Any]:
    """Progress on standard error: bars on a terminal, else a line every 30 s, for logs.

    A bar has rows done, rows a second, time spent and time left. Speed is taken over all that this process did: of
    rich's 30 seconds a window of a slow scorer leaves no two reports.
    """
    from rich import progress as rich

    quiet()
    console = terminal.console(stderr=True, quiet=bool(rank()))
    if not console.is_terminal and not console.is_jupyter:
        shown = _Stoppable(Lines(_log), _log)
        with _stopping(shown):
            yield shown
        return

    class RateColumn(rich.ProgressColumn):
        def render(self, task: rich.Task) -> str:
            speed = task.finished_speed or task.speed
            return f"{speed:.3g}/s" if speed else "–/s"

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        RateColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console, speed_estimate_period=math.inf) as bars:
        shown = _Stoppable(_Bars(bars), bars.console.print)
        with _stopping(shown):
            yield shown


def _log(line: str) -> None:
    """One line on standard error, from the first of several launched processes."""
    if not rank():
        print(printable(line), file=sys.stderr, flush=True)


@contextmanager
def _stopping(shown: _Stoppable) -> Iterator[None]:
    """The first Ctrl-C or termination ends the run after the batch in flight, the second one at once.

    Not in one of several launched processes: those have to stop together, which is their launcher's business.
    """
    if world() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if shown.stopping:
            raise KeyboardInterrupt
        shown.stopping = True
        shown.say("stopping after the batch in flight; once more stops at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stoppable:
    """A `Progress` that ends the run at the next report of a stage once it is `stopping`."""

    def __init__(self, shown: Progress, say: Callable[[str], None]) -> None:
        self.shown, self.say = shown, say
        self.stopping = False

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`."""
        with self.shown.stage(name, total) as report:

            def advance(n: int, *, total: int | None = None, note: str = "") -> None:
                report(n, total=total, note=note)
                if self.stopping:
                    raise KeyboardInterrupt

            yield advance


class _Bars:
    """Our `Progress` on rich."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """See `Progress.stage`."""
        task = self.bars.add_task(name, total=total)

        def advance(n: int, *, total: int | None = None, note: str = "") -> None:
            if total is not None:
                self.bars.update(task, total=total)
            self.bars.advance(task, n)

        try:
            yield advance
        except TokenskipError:
            self.bars.update(task, visible=False)  # the error's line says it
            raise
        self.bars.update(task, total=self.bars.tasks[self.bars.task_ids.index(task)].completed or 1)


def quiet() -> None:
    """Keep the libraries' own notes and bars out of ours; warnings that matter become our errors or counts."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # "Loading weights", "Truncating train dataset"
    warnings.filterwarnings("ignore")
    for name in ("transformers", "trl", "peft", "accelerate", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)


def say(text: str) -> None:
    """One line for the user, from the first of several launched processes; control characters in it are escaped."""
    if not rank():
        print(printable(text), flush=True)  # into a pipe as well, where somebody waits for the address of a page
