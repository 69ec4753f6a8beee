"""Where windows of rows are worked on: in this process, or by actors of a Ray cluster. Writes nothing.

A stage names its work as a module-level function (with `functools.partial` for its settings) that is given a run and
builds the function window -> rows. `in_turn` calls it here. `RayPool` has every actor build its own run, hands out
whole windows, and gives back the rows of each window in the order in which the windows came. Windows are the same as in
one process, batches are formed inside them only, and just this process writes: the run folder ends in the same bytes.
When an actor dies, Ray starts it again and repeats its window.

Plain actors and not `ray.data.map_batches`: that keeps no order, drops a whole block for one bad row, and resumes only
into its own sinks, so all three would have to be undone here.

    tokenskip run mine.yaml --set engine=ray --set engine.workers=8 --set engine.gpus_per_worker=1
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from typing import Any

from tokenskip import tracking
from tokenskip.config import EngineConfig
from tokenskip.errors import BackendError, ConfigError

Work = Callable[[Sequence[Any]], Any]
"""A window of inputs -> what comes of it: one row for each, in order, where the stage says nothing else."""
Build = Callable[[Any], Work]
"""A run -> the work of a stage. What is slow to make (a model) is made here, once."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here: only text goes through it."""
RESTARTS = 3
"""How often one actor, and the window it had, may be started again."""


def check_engine(config: EngineConfig) -> None:
    """ConfigError when the engine needs what is not installed."""
    if config.name == "ray" and find_spec("ray") is None:
        raise ConfigError("engine 'ray' needs the package 'ray': pip install 'ray>=2.40', or set engine=local")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our answer to a termination, which Ray replaces by an exit that aborts the driver."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a cluster that is started here listen to this machine only: its servers ask nobody for a password.

    Ray takes 127.0.0.1 for the machine's address on a network, unless it may have no cluster of several machines; that
    switch is read when Ray is imported, and again by the processes it starts.
    """
    from ray._private import ray_constants

    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, allowed = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = allowed
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def in_turn(build: Callable[[], Work], windows: Iterable[Sequence[Any]]) -> Iterator[Any]:
    """What comes of each window, in this process, one after the other; nothing is built before the first one."""
    work: Work | None = None
    for window in windows:
        work = work or build()
        yield work(window)


class _Worker:
    """What runs inside an actor: its own run, and the work of the stage it was last asked for."""

    def __init__(self, make_run: Callable[[], Any], folder: str, modules: Sequence[str]) -> None:
        with suppress(OSError):  # relative paths of the configuration are meant from where the command was given
            os.chdir(folder)
        sys.path += [path for path in modules if path not in sys.path]  # for plug-ins of the user's own
        self.make_run = make_run
        self.own_run: Any = None
        self.stage = -1
        self.work: Work | None = None

    def run(self, stage: int, build: Build, window: Sequence[Any]) -> Any:
        """What comes of one window; the run, and the work of a new stage, are made first."""
        self.own_run = self.own_run or self.make_run()
        if self.work is None or stage != self.stage:
            self.work, self.stage = build(self.own_run), stage
        return self.work(window)

    def process(self) -> int:
        """The process's id, so that a test can end it."""
        return os.getpid()


class RayPool:
    """Actors that each hold a run made by `make_run`; they start with the first window and live until `close`."""

    def __init__(self, config: EngineConfig, make_run: Callable[[], Any]) -> None:
        self.config = config
        self.make_run = make_run
        self.actors: list[Any] = []
        self._stages = count()
        self._own = False

    def map(self, build: Build, windows: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """What comes of each window, in order; at most four windows an actor are ahead of the one that is waited for.

        Raises:
            BackendError: an actor died more than `RESTARTS` times, or the cluster went away.
            TokenskipError: what the work itself raises, as in one process.
        """
        waiting = iter(windows)
        first = next(waiting, None)
        if first is None:
            return
        ray = self._start()
        stage, shared = next(self._stages), ray.put(build)
        idle, busy = deque(self.actors), dict[Any, Any]()
        order: deque[Any] = deque()
        upcoming: Sequence[Any] | None = first
        while upcoming is not None or order:
            while upcoming is not None and idle and len(order) < 4 * len(self.actors):
                actor = idle.popleft()
                ref = actor.run.remote(stage, shared, upcoming)
                busy[ref] = actor
                order.append(ref)
                upcoming = next(waiting, None)
            if order[0] in busy:
                [done], _ = ray.wait(list(busy), num_returns=1)
                idle.append(busy.pop(done))
            else:
                yield self._result(order.popleft())

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        if not self.actors and not self._own:
            return
        import ray

        for actor in self.actors:
            with suppress(Exception):  # one that is gone already
                ray.kill(actor)
        self.actors = []
        if self._own:
            ray.shutdown()
            self._own = False

    def _start(self) -> Any:
        tracking.switch_telemetry_off()
        import ray

        if not self.actors:
            self._connect(ray)
            worker = ray.remote(_Worker).options(
                num_cpus=self.config.cpus_per_worker,
                num_gpus=self.config.gpus_per_worker,
                max_restarts=RESTARTS,
                max_task_retries=RESTARTS,
            )
            self.actors = [worker.remote(self.make_run, os.getcwd(), sys.path) for _ in range(self.config.workers)]
        return ray

    def _connect(self, ray: Any) -> None:
        """Join the cluster, or start one here; ConfigError when it has too little for the actors."""
        settings = self.config
        if not ray.is_initialized():
            with _own_signals():
                self._join_or_start(ray)
        there = ray.cluster_resources()
        for what, each in (("CPU", settings.cpus_per_worker), ("GPU", settings.gpus_per_worker)):
            if settings.workers * each > there.get(what, 0) + 1e-6:
                self.close()
                raise ConfigError(
                    f"engine: {settings.workers} workers of {each:g} {what} do not fit a cluster with "
                    f"{there.get(what, 0):g} {what}: lower engine.workers or engine.{what.lower()}s_per_worker"
                )

    def _join_or_start(self, ray: Any) -> None:
        settings = self.config
        quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
        joined = False
        if settings.address != "local":
            try:
                ray.init(address=settings.address, log_to_driver=False, logging_level="error")
                joined = True
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                if settings.address != "auto":
                    reason = " ".join(str(error).split())[:200]
                    raise BackendError(f"no Ray cluster at {settings.address}: {reason}") from None
        if not joined:
            cpus = max(os.cpu_count() or 1, -(-settings.workers * settings.cpus_per_worker // 1))
            options = {"num_cpus": int(cpus), "object_store_memory": OBJECT_STORE_BYTES, **quiet}
            with _loopback():
                ray.init(address="local", _node_ip_address="127.0.0.1", **options)
            self._own = True

    def _result(self, ref: Any) -> Any:
        import ray

        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the work raised, without the actor's traceback around it
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(
                f"Ray lost a worker for good ({reason}); what is written is kept, the same command continues from there"
            ) from None
