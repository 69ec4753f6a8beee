"""The run folder: what is in it, how its files grow, and how a killed run continues.

Every stage appends whole windows of rows to its own JSONL file; row i of every file belongs to row i of
`completions.jsonl`, so a reader zips the files and memory stays flat. To resume, a torn last line and a window that is
not whole are cut off, and that window is computed again from the same inputs: batches are formed inside a window only,
so the bytes come out equal. One process at a time holds a folder.

    completions.jsonl    {id, sample, question, gold, output, cot: [start, end], n_tokens, n_cot_tokens, finish, …}
    trajectories.jsonl   {id, correct, reason, extracted, dropped}
    scores.jsonl         {id, scorer, spans: [[start, end, value], …]}, or {id, dropped}
    pruned.jsonl         {id, pruned: [{ratio, n_tokens, n_tokens_pruned, rejected, kept: [[start, end], …]}, …]}

A text is stored once: ranges are characters of `output` (cot) or of the chain (spans, kept). The rows of `eval/` and of
a round's samples have the form of `completions.jsonl`, with their grade.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tokenskip.config import RunConfig
from tokenskip.distributed import rank, world
from tokenskip.errors import RunError, StageError
from tokenskip.storage.disk import append as append_text
from tokenskip.storage.disk import copy_atomically as copy_atomically
from tokenskip.storage.disk import count_lines, held, refuse_links, remove_drafts
from tokenskip.storage.disk import repair as repair
from tokenskip.storage.disk import write_atomically as write_atomically
from tokenskip.storage.layout import ADAPTER as ADAPTER
from tokenskip.storage.layout import CALIBRATION as CALIBRATION
from tokenskip.storage.layout import CANDIDATES as CANDIDATES
from tokenskip.storage.layout import CHOSEN as CHOSEN
from tokenskip.storage.layout import COMPLETIONS as COMPLETIONS
from tokenskip.storage.layout import EVAL as EVAL
from tokenskip.storage.layout import JOURNAL as JOURNAL
from tokenskip.storage.layout import MADE_BY, MANIFEST, check_data, check_manifest, noted, write_manifest
from tokenskip.storage.layout import PRUNED as PRUNED
from tokenskip.storage.layout import RESULTS as RESULTS
from tokenskip.storage.layout import SCORES as SCORES
from tokenskip.storage.layout import TRAIN as TRAIN
from tokenskip.storage.layout import TRAJECTORIES as TRAJECTORIES
from tokenskip.storage.layout import is_run as is_run
from tokenskip.storage.layout import read_manifest as read_manifest
from tokenskip.storage.layout import run_config as run_config
from tokenskip.types import Grade, Problem, Pruned, Scores, Span, Trajectory

Row = dict[str, Any]
_CUT_LOGPROBS = f"{CANDIDATES}/prune.logprobs.jsonl"


@dataclass(frozen=True, slots=True)
class Pending:
    """The windows of inputs that have no rows yet, and how many inputs have some."""

    done: int
    windows: Iterator[Sequence[Any]]


class RunFolder:
    """One run on disk. Use as a context manager; inside, the folder is locked for this process.

    `recut` names the settings of `prune` that have changed, where that took away what they had made before.

    Raises:
        RunError: the folder cannot be written, is held by another process, or was made under another configuration.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self.recut: tuple[str, ...] = ()
        self._exit = ExitStack()

    def __enter__(self) -> RunFolder:
        if rank():  # one of several training processes: the first holds the folder for all
            return self
        refuse_links(self.path)
        with ExitStack() as stack:
            stack.enter_context(held(self.path))
            remove_drafts(self.path)
            self._check_settings()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def _check_settings(self) -> None:
        """Write or compare `config.json`; chains that were cut under other settings go, and are cut anew."""
        changed = check_manifest(self.path, self.config)
        cuts = [self.file(name) for name in (TRAIN, PRUNED, CHOSEN, _CUT_LOGPROBS) if self.file(name).exists()]
        if cuts and (changes := [text for key, text in changed.items() if key.startswith("prune.")]):
            for file in cuts:
                file.unlink()
            self.recut = tuple(changes)
        if changed or not self.file(MANIFEST).exists():
            write_manifest(self.path, self.config)

    def file(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self.path / name

    def pending(self, name: str, inputs: Iterable[Any], window: int) -> Pending:
        """The windows of `inputs` whose rows `name` lacks; the same windows in every run.

        Raises:
            RunError: in one of several launched processes, of which only training knows what to do.
        """
        if world() > 1:
            raise RunError(f"{name}: only `tokenskip train` runs in several launched processes; see engine=ray")
        file = self.file(name)
        n_rows = repair(file)
        stream = iter(inputs)
        done = sum(1 for _ in islice(stream, n_rows // window * window))
        begun = list(islice(stream, window))
        if n_rows > done:
            if len(begun) <= n_rows - done:  # the last window is smaller than the others, and there
                return Pending(done + len(begun), iter(()))
            repair(file, done)

        def windows() -> Iterator[Sequence[Any]]:
            items = begun
            while items:
                yield items
                items = list(islice(stream, window))

        return Pending(done, windows())

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """Put rows after those of a file."""
        if rows:
            append_text(self.file(name), "".join(map(dump_row, rows)))

    def trajectories(self, *columns: str) -> Iterator[Trajectory]:
        """The graded trajectories, with the columns `SCORES` and `PRUNED` filled in where asked for.

        Raises:
            StageError: a file is missing or has fewer rows than the first; the message names the command that makes it.
        """
        names = (COMPLETIONS, TRAJECTORIES, *columns)
        n = self.completions()
        for name in names[1:]:
            self.require_rows(name, n)
        for i, rows in enumerate(zip(*(read_rows(self.file(name)) for name in names), strict=True), start=1):
            trajectory = trajectory_from_row(rows[0])
            for name, row in zip(names[1:], rows[1:], strict=True):
                if row["id"] != trajectory.id:
                    raise RunError(f"{self.file(name)} line {i} belongs to another row: remove that file")
                trajectory = _with_column(trajectory, row)
            yield trajectory

    def completions(self) -> int:
        """The number of rows of the first stage, which must be there for every problem.

        Raises:
            StageError: it was interrupted; the message names the command that completes it.
        """
        data = noted(self.path, "train")
        return self.require_rows(COMPLETIONS, data["rows"] * self.config.generate.samples if data else 0)

    def require_rows(self, name: str, n: int) -> int:
        """The number of rows of a file; StageError naming the command that completes it for fewer than `n`."""
        found = count_lines(self.require(name))
        if found < n:
            command = MADE_BY.get(name, "evaluate")
            raise StageError(
                f"{self.path} has {found} of {n} rows of {name}: `tokenskip {command} {self.path}` completes them"
            )
        return found

    def check_data(self, split: str, problems: Callable[[], Iterable[Problem]]) -> int:
        """The number of problems, which are those that the run was begun with; see `layout.check_data`."""
        files = [self.file(COMPLETIONS)] if split == "train" else self.path.glob(f"{EVAL}/*.jsonl")
        begun = any(file.exists() and file.stat().st_size for file in files)
        return check_data(self.path, split, problems, begun=begun)

    def require(self, name: str) -> Path:
        """Path of a stage's output; StageError naming the command that makes it when it is not there."""
        file = self.path / name
        if not file.exists():
            command = MADE_BY.get(name, "evaluate")
            raise StageError(f"{self.path} has no {name} yet: run `tokenskip {command} {self.path}` first")
        return file


class StoredRow(dict[str, Any]):
    """A row of one of our files; a field that it lacks is no bug but damage, named with its place."""

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
        raise RunError(f"{file} line {max(number, 1)} is damaged: remove that file to have it made again") from None


def dump_row(row: Row) -> str:
    """One line of JSON, the same bytes for the same row."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a whole JSONL file, row by row, so that it is whole or not there."""
    write_atomically(file, map(dump_row, rows))


def trajectory_row(trajectory: Trajectory) -> Row:
    """A completion as it is stored: its text once, with the character range of the chain; and its grade, if it has one.

    What other files hold (scores, pruned chains) is left out.
    """
    text = trajectory.head + trajectory.cot + trajectory.tail
    assert text == trajectory.output or not trajectory.output, "a trajectory's output is head + cot + tail"
    start = len(trajectory.head)
    return {
        "id": trajectory.id,
        "sample": trajectory.sample,
        "question": trajectory.question,
        "gold": trajectory.gold,
        "level": trajectory.level,
        "ratio": trajectory.ratio,
        "output": text,
        "cot": [start, start + len(trajectory.cot)],
        "n_tokens": trajectory.n_tokens,
        "n_cot_tokens": trajectory.n_cot_tokens,
        "finish": trajectory.finish,
        "grade": _shallow(trajectory.grade) if trajectory.grade else None,
        "dropped": trajectory.dropped,
    }


def trajectory_from_row(row: Row) -> Trajectory:
    """The inverse of `trajectory_row`.

    Raises:
        RunError: a row of an older layout, or a damaged one.
    """
    if not isinstance(row.get("cot"), list):
        raise RunError(f"row {row.get('id')!r} has the layout of an older tokenskip, which this one cannot read")
    try:
        start, end = row["cot"]
        output, grade = row["output"], row["grade"]
        parts = {"head": output[:start], "cot": output[start:end], "tail": output[end:]}
        made = Trajectory(**{**row, **parts, "grade": Grade(**grade) if grade else None})
        "".join((made.id, made.question, made.gold, made.cot))
    except (TypeError, ValueError) as error:
        raise RunError(f"{getattr(row, 'where', 'a stored row')} is damaged: {error}") from None
    return made


def grade_row(trajectory: Trajectory) -> Row:
    """What `trajectories.jsonl` holds: the grade, and why the trajectory is not used any further."""
    assert trajectory.grade is not None
    return {"id": trajectory.id, **_shallow(trajectory.grade), "dropped": trajectory.dropped}


def scores_row(trajectory: Trajectory) -> Row:
    """What `scores.jsonl` holds: spans as [start, end, value] with six significant digits, or why there are none."""
    if trajectory.scores is None:
        return {"id": trajectory.id, "dropped": trajectory.dropped}
    spans = [[start, end, float(f"{value:.6g}")] for start, end, value in trajectory.scores.spans]
    return {"id": trajectory.id, "scorer": trajectory.scores.scorer, "spans": spans}


def pruned_row(trajectory: Trajectory) -> Row:
    """What `pruned.jsonl` holds: what was kept at each ratio, or why there is nothing."""
    if not trajectory.pruned:
        return {"id": trajectory.id, "dropped": trajectory.dropped}
    cuts = [_shallow(cut) for cut in trajectory.pruned]
    for cut in cuts:
        del cut["text"]
    return {"id": trajectory.id, "pruned": cuts}


def _shallow(record: Grade | Pruned) -> Row:
    return {field.name: getattr(record, field.name) for field in fields(record)}  # asdict copies: ten times as slow


def _with_column(trajectory: Trajectory, row: Row) -> Trajectory:
    if "correct" in row:
        grade = Grade(correct=row["correct"], reason=row["reason"], extracted=row["extracted"])
        return replace(trajectory, grade=grade, dropped=row["dropped"])
    if row.get("dropped"):
        return trajectory.drop(row["dropped"])
    if "spans" in row:
        spans = tuple(map(Span._make, row["spans"]))
        return replace(trajectory, scores=Scores(scorer=row["scorer"], spans=spans))
    if "pruned" in row:
        return replace(trajectory, pruned=tuple(_pruned(trajectory.cot, cut) for cut in row["pruned"]))
    return trajectory


def _pruned(cot: str, cut: Row) -> Pruned:
    kept = tuple(map(tuple, cut["kept"]))
    return Pruned(**{**cut, "kept": kept, "text": "".join([cot[start:end] for start, end in kept])})
