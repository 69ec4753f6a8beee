"""The run folder: what is in it, how it grows, and how a killed run goes on.

Every stage appends whole windows of rows to its own JSONL file and flushes them; row i of every file belongs to row i
of `trajectories.jsonl`, so a reader zips the files and memory stays flat. To resume, a torn last line is cut off, and
the window that was being written is computed again from the same inputs: batches are formed inside a window only, so
the bytes come out equal. One process at a time holds a folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tokenskip.config import RunConfig, check_config
from tokenskip.distributed import rank, world
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.progress import Progress
from tokenskip.types import Grade, Pruned, Scores, Span, Trajectory

Row = dict[str, Any]
Item = TypeVar("Item")
Work = Callable[[Sequence[Any]], Sequence[Row]]
"""A window of inputs -> one row each, in order."""
Mapper = Callable[[Callable[..., Work], Iterable[Sequence[Any]]], Iterable[Sequence[Row]]]
"""How a stage's work is made, windows -> the rows of each window, in order."""

FORMAT = 1
"""Layout of a run folder; raised when an older tokenskip could no longer read it."""

COMPLETIONS, TRAJECTORIES, SCORES = "completions.jsonl", "trajectories.jsonl", "scores.jsonl"
PRUNED, TRAIN = "pruned.jsonl", "train.jsonl"
ADAPTER, EVAL, RESULTS, CALIBRATION = "adapter", "eval", "results.json", "calibration.json"
JOURNAL = ".requests"
"""Folder of answers of a server that no stage has written yet."""

_OUTPUTS = {
    "generate": (COMPLETIONS, TRAJECTORIES),
    "score": (SCORES,),
    "prune": (PRUNED, TRAIN),
    "train": (ADAPTER, "checkpoints"),
    "rounds": ("samples.jsonl", "round-1"),
    "evaluate": (EVAL,),
}
_SECTION_STAGE = {"seed": "generate", "model": "generate", "task": "generate", "prompt": "generate"}
_ROUND_ZERO = "round-0"
_SERVER = ("url", "served", "concurrency", "retries", "timeout_s")
_FREE_KEYS = (
    *("name", "evaluate.arms", "evaluate.ratios", "evaluate.latency_samples", "model.device", "train.report_to"),
    *(f"generate.options.{key}" for key in _SERVER),
)
"""Keys that select what is run or shown, or say where a server is, and change no row that exists already."""


class RunFolder:
    """One run on disk. Use as a context manager; inside, the folder is locked for this process.

    Raises:
        RunError: the folder cannot be written, is held by another process, or was made under another configuration.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self._lock: TextIO | None = None

    def __enter__(self) -> RunFolder:
        if rank():  # one of several training processes: the first holds the folder for all
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}; choose another --out") from None
        self._take_lock(self._lock)
        self._check_manifest()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock:
            self._lock.truncate(0)
            self._lock.close()

    def _take_lock(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunError(f"cannot lock the run folder {self.path}: {error.strerror}; use another disk") from None
            lock.seek(0)
            holder = lock.read().strip() or "an unknown process"
            raise RunError(f"the run folder {self.path} is in use by {holder}: wait for it, or stop it") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()

    def _check_manifest(self) -> None:
        """Write `config.json`, or compare it: a key may change only before the first stage that reads it has begun."""
        file = self.path / "config.json"
        resolved = self.config.model_dump(mode="json")
        if file.exists():
            manifest = read_manifest(self.path)
            changed = _changed_keys(manifest["config"], resolved)
            blocked = [key for key in changed if self._has_begun(key)]
            if blocked:
                raise RunError(
                    f"{self.path} was run with other settings: {'; '.join(changed[key] for key in blocked)}. "
                    "Set them back, or choose another --out"
                )
            if not changed:
                return
        write_atomically(file, json.dumps({**_manifest_head(), "config": resolved}, indent=2) + "\n")

    def _has_begun(self, key: str) -> bool:
        section = key.partition(".")[0]
        stage = "evaluate" if key.startswith("task.test") else _SECTION_STAGE.get(section, section)
        if key in _FREE_KEYS or section == "engine":
            return False
        if key.startswith("evaluate.define."):  # the rows of that arm only
            arm = key.rpartition(".")[2]
            return any(self.path.glob(f"{EVAL}/{arm}.jsonl")) or any(self.path.glob(f"{EVAL}/{arm}-*.jsonl"))
        if section == "rounds":  # they stand beside what is evaluated already, until one was adopted
            begun = (_ROUND_ZERO,) if key in ("rounds.count", "rounds.adopt") else _OUTPUTS[stage]
            return any((self.path / name).exists() for name in begun)
        stages = list(_OUTPUTS)
        later = stages[stages.index(stage) :]
        return any((self.path / name).exists() for one in later for name in _OUTPUTS[one])

    def file(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self.path / name

    def grow(
        self,
        name: str,
        inputs: Iterable[Item],
        make: Callable[..., Work],
        *,
        window: int,
        progress: Progress,
        title: str,
        total: int | None = None,
        mapper: Mapper | None = None,
        notes: str | None = None,
    ) -> int:
        """Append one row per input to `name`, a window at a time; returns the number of rows the file has then.

        `make` builds the function that turns a window of inputs into rows; it is called only when there is work left,
        so that a finished stage loads no model. The function gets the same windows in every run. `mapper(make,
        windows)` says where that happens, several windows at a time perhaps, and gives the rows of each window in
        order; by default one after the other, here. What a window gives behind its rows goes to the file `notes`.
        """
        if world() > 1:
            raise RunError(f"{title}: only `tokenskip train` runs in several launched processes; see engine=ray")
        file = self.path / name
        done = repair(file)
        stream = iter(inputs)
        count = sum(1 for _ in islice(stream, done // window * window))
        begun: deque[tuple[int, int]] = deque()  # of the windows under way: inputs, and how many have rows already

        def unfinished(start: int) -> Iterator[Sequence[Item]]:
            while items := list(islice(stream, window)):
                fresh = min(max(done - start, 0), len(items))
                start += len(items)
                begun.append((len(items), fresh))
                if fresh < len(items):
                    yield items

        with progress.stage(title, total) as advance, _appending(file) as out:
            advance(count)
            for results in (mapper or in_turn)(make, unfinished(count)):
                size, fresh = begun.popleft()
                assert len(results) >= size, f"{title}: {len(results)} rows for {size} inputs"
                _write_rows(out, file, results[fresh:size])
                if notes and results[size:]:
                    self.append(notes, results[size:])
                count += size
                advance(size)
            rest = sum(size for size, _ in begun)  # a last window that is done already
            advance(rest)
        return count + rest

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """Put rows behind those of a file, after cutting off what a killed run left of a last line."""
        file = self.path / name
        repair(file)
        with _appending(file) as out:
            _write_rows(out, file, rows)

    def trajectories(self, *columns: str) -> Iterator[Trajectory]:
        """The graded trajectories, with the columns `SCORES` and `PRUNED` filled in where asked for.

        Raises:
            StageError: a file is missing; the message names the command that makes it.
        """
        readers = [read_rows(self.require(name)) for name in (TRAJECTORIES, *columns)]
        for number, first in enumerate(readers[0], start=1):
            trajectory = trajectory_from_row(first)
            for name, reader in zip(columns, readers[1:], strict=True):
                row = next(reader, None)
                if row is None:
                    raise RunError(f"{self.path / name} has only {number - 1} rows: finish the command that makes it")
                if row["id"] != trajectory.id:
                    raise RunError(f"{self.path / name} line {number} belongs to another row: make that file again")
                trajectory = _with_column(trajectory, row)
            yield trajectory

    def require(self, name: str) -> Path:
        """Path of a stage's output; StageError naming the command that makes it when it is not there."""
        file = self.path / name
        if not file.exists():
            command = {COMPLETIONS: "generate", TRAJECTORIES: "grade", SCORES: "score", PRUNED: "prune"}
            verb = command.get(name, "prune" if name == TRAIN else "train" if name == ADAPTER else "evaluate")
            raise StageError(f"{self.path} has no {name} yet: run `tokenskip {verb} {self.path}` first")
        return file


def in_turn(make: Callable[[], Work], windows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Row]]:
    """The `Mapper` of this process: one window after the other; nothing is made before the first one."""
    work: Work | None = None
    for window in windows:
        work = work or make()
        yield work(window)


def is_run(folder: Path) -> bool:
    """Whether `config.json` there is a run's: a model's own has the same name, and adapters are kept beside models."""
    try:
        manifest = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, RecursionError):
        return True  # `read_manifest` says what is wrong with it
    is_model = isinstance(manifest, dict) and ("model_type" in manifest or "architectures" in manifest)
    return not is_model or "config" in manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """`config.json` of a run folder; settings that are newer than it have their defaults.

    Raises:
        RunError: there is none, it is not readable, or a tokenskip wrote it whose settings this one cannot read.
    """
    file = path / "config.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is not a run folder (it has no config.json): start one with `tokenskip run`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise RunError(f"{file} was not written by tokenskip: choose another --out")
    writer = (manifest.get("versions") or {}).get("tokenskip") or "of another version"
    apart = f"{file} was written by tokenskip {writer}, and this is {version('tokenskip')}"
    layout = manifest.get("format", 0)
    if not isinstance(layout, int) or layout > FORMAT:
        raise RunError(f"{apart}, which cannot read it: update, or choose another --out")
    try:
        manifest["config"] = check_config(manifest["config"], str(file)).model_dump(mode="json")
    except ConfigError as error:
        raise RunError(f"{apart}, with settings that do not fit: {error}. Use that version, or another --out") from None
    return manifest


def repair(file: Path) -> int:
    """Cut a torn last line off a JSONL file and return the number of whole lines; 0 when there is no file."""
    if not file.exists():
        return 0
    with file.open("rb+") as handle:
        lines, keep = 0, 0
        while chunk := handle.read(1 << 20):
            newline = chunk.rfind(b"\n")
            if newline >= 0:
                keep = handle.tell() - len(chunk) + newline + 1
            lines += chunk.count(b"\n")
        handle.truncate(keep)
    return lines


class StoredRow(dict[str, Any]):
    """A row of one of our files; a field that it lacks is not a bug but damage, named with its place."""

    where: str

    def __missing__(self, field: str) -> Any:
        raise RunError(f"{self.where} is damaged: it has no {field!r}; remove that file to have it made again")


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of one of our own JSONL files; a torn last line is not a row.

    Raises:
        RunError: the file cannot be read, or a line of it is damaged.
    """
    number = 0
    try:
        with file.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.endswith("\n"):
                    row = StoredRow(json.loads(line))
                    row.where = f"{file} line {number}"
                    yield row
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, RecursionError):  # no UTF-8, no JSON, no object
        raise RunError(f"{file} line {number} is damaged: remove that file to have it made again") from None


def dump_row(row: Row) -> str:
    """One line of JSON, the same bytes for the same row."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_atomically(file: Path, text: str | Iterable[str]) -> None:
    """Write a whole file, from a text or its lines, so that it is either the old one or the new one, never half."""
    draft = file.with_name(file.name + ".tmp")
    try:
        with draft.open("w", encoding="utf-8") as out:
            out.writelines((text,) if isinstance(text, str) else text)
        draft.replace(file)
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror}; what was computed before is kept") from None


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a whole JSONL file, row by row, so that it is whole or not there."""
    write_atomically(file, map(dump_row, rows))


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that the copy is whole or not there."""
    draft = target.with_name(target.name + ".tmp")
    try:
        shutil.copyfile(source, draft)
        draft.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}; what was computed before is kept") from None


def trajectory_row(trajectory: Trajectory) -> Row:
    """What `trajectories.jsonl` holds of a trajectory: all but scores and pruned texts."""
    row = _shallow(trajectory)
    del row["scores"], row["pruned"]
    return {**row, "grade": _shallow(trajectory.grade) if trajectory.grade else None}


def _shallow(record: Trajectory | Grade | Pruned) -> Row:
    return {one.name: getattr(record, one.name) for one in fields(record)}  # asdict copies deeply: ten times as slow


def trajectory_from_row(row: Row) -> Trajectory:
    """The inverse of `trajectory_row`."""
    try:
        grade = row["grade"]
        made = Trajectory(**{**row, "grade": Grade(**grade) if grade else None})
    except TypeError as error:
        raise RunError(f"{getattr(row, 'where', 'a row')} is damaged: {error}") from None
    for name in ("id", "question", "gold", "head", "cot", "tail"):
        if not isinstance(getattr(made, name), str):
            raise RunError(f"{getattr(row, 'where', 'a row')} is damaged: {name!r} is no text")
    return made


def scores_row(trajectory: Trajectory) -> Row:
    """What `scores.jsonl` holds: spans as [start, end, value] with six significant digits, or why there are none."""
    if trajectory.scores is None:
        return {"id": trajectory.id, "dropped": trajectory.dropped}
    spans = [[start, end, float(f"{value:.6g}")] for start, end, value in trajectory.scores.spans]
    return {"id": trajectory.id, "scorer": trajectory.scores.scorer, "spans": spans}


def pruned_row(trajectory: Trajectory) -> Row:
    """What `pruned.jsonl` holds: one entry per ratio, or why there is none."""
    if not trajectory.pruned:
        return {"id": trajectory.id, "dropped": trajectory.dropped}
    return {"id": trajectory.id, "pruned": [_shallow(one) for one in trajectory.pruned]}


def _with_column(trajectory: Trajectory, row: Row) -> Trajectory:
    if row.get("dropped"):
        return trajectory.drop(row["dropped"])
    if "spans" in row:
        spans = tuple(map(Span._make, row["spans"]))
        return replace(trajectory, scores=Scores(scorer=row["scorer"], spans=spans))
    if "pruned" in row:
        cuts = tuple(Pruned(**{**one, "kept": tuple(map(tuple, one["kept"]))}) for one in row["pruned"])
        return replace(trajectory, pruned=cuts)
    return trajectory


def _appending(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror}") from None


def _write_rows(out: TextIO, file: Path, rows: Sequence[Row]) -> None:
    try:
        out.write("".join(map(dump_row, rows)))
        out.flush()
    except OSError as error:
        with suppress(OSError):  # what could not be written is tried again on closing
            out.close()
        raise RunError(
            f"cannot write {file}: {error.strerror}; what is written is kept, the same command goes on from there"
        ) from None


def _changed_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> 'key: old -> new' for every value that differs."""
    changed: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        before, after = old.get(key), new.get(key)
        inner = not prefix or name in ("generate.options", "evaluate.define")
        if isinstance(before, dict) and isinstance(after, dict) and inner:
            changed |= _changed_keys(before, after, f"{name}.")
        elif before != after:
            changed[name] = f"{name}: {json.dumps(before)} -> {json.dumps(after)}"
    return changed


def _manifest_head() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in ("tokenskip", "torch", "transformers", "peft", "trl", "tokenizers", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    hardware = {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
    return {"format": FORMAT, "versions": versions, "python": platform.python_version(), "hardware": hardware}
