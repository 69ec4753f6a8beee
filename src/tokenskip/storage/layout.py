"""What is in a run folder, and `config.json`: which settings it was made under, and which of them may still change.

Part of `tokenskip.storage.store`, where the rest of the package imports it from.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokenskip.candidates.settings import ON_POLICY
from tokenskip.config import RunConfig, check_config
from tokenskip.errors import ConfigError, RunError
from tokenskip.recipes import lay_over
from tokenskip.storage.disk import write_atomically
from tokenskip.trust import check_trust
from tokenskip.types import Problem

FORMAT = 2
"""Layout of a run folder; raised when older folders can no longer be read.

1: `trajectories.jsonl` and every row of `eval/` held a text and its parts; `pruned.jsonl` held the pruned texts.
2: a text is stored once, in `completions.jsonl` or its row of `eval/`, with the character range of its chain.
"""

MANIFEST = "config.json"
NOTES = "notes"
"""Key of `config.json` for what is known about the run besides its settings."""
COMPLETIONS, TRAJECTORIES, SCORES = "completions.jsonl", "trajectories.jsonl", "scores.jsonl"
PRUNED, TRAIN, CANDIDATES, CHOSEN = "pruned.jsonl", "train.jsonl", "candidates", "candidates.json"
ADAPTER, EVAL, RESULTS, CALIBRATION = "adapter", "eval", "results.json", "calibration.json"
JOURNAL = ".requests"
"""Folder of answers of a server that no stage has written yet."""

MADE_BY = {COMPLETIONS: "generate", TRAJECTORIES: "grade", SCORES: "score", PRUNED: "prune", TRAIN: "prune"}
MADE_BY |= {ADAPTER: "train", CALIBRATION: "calibrate"}
"""File -> the command that makes it; everything else is `evaluate`'s."""

_OUTPUTS = {
    "generate": (COMPLETIONS, TRAJECTORIES),
    "score": (SCORES,),
    "prune": (),  # PRUNED and TRAIN are made anew until something was trained on them
    "candidates": (),  # each source's file is made under that source's options; what is chosen, until training
    "train": (ADAPTER, "checkpoints"),
    "grpo": ("grpo",),
    "evaluate": (EVAL,),
}
_SECTION_STAGE = {"seed": "generate", "model": "generate", "task": "generate", "prompt": "generate"}
_SOURCES = "candidates.sources."
_SERVER = ("url", "served", "concurrency", "retries", "timeout_s")
_FREE_SECTIONS = ("engine", "calibrate")
_FREE_KEYS = (
    *("name", "evaluate.arms", "evaluate.ratios", "evaluate.latency_samples", "model.device", "train.report_to"),
    *(f"generate.options.{key}" for key in _SERVER),
)
"""Keys that select what is run or shown, or say where a server is, and change no row that exists already."""


def is_run(folder: Path) -> bool:
    """Whether `config.json` there is a run's: a model's own has the same name, and adapters are kept beside models."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
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
    file = path / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is not a run folder (it has no config.json): start one with `tokenskip run`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise RunError(f"{file} was not written by tokenskip: choose another --out")
    if _format_of(manifest) > FORMAT:
        raise RunError(f"{_writer(file, manifest)}, which cannot read it: update, or choose another --out")
    try:
        manifest["config"] = check_config(manifest["config"], str(file)).model_dump(mode="json")
    except ConfigError as error:
        raise RunError(
            f"{_writer(file, manifest)}, with settings that do not fit: {error}. Use that version, or another --out"
        ) from None
    return manifest


def run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run folder, `section.key=value` overrides laid over it.

    Raises:
        RunError: as `read_manifest`. ConfigError: an override that is not allowed, or code that is not trusted.
    """
    values, source = read_manifest(path)["config"], str(path / MANIFEST)
    for override in overrides:
        lay_over(values, override)
    config = check_config(values, source)
    check_trust(config, overrides, source, recipe=False)
    return config


def check_manifest(path: Path, config: RunConfig) -> dict[str, str]:
    """Write `config.json`, or compare it; returns the settings that have changed, key -> `key: old -> new`.

    A key may change only before the first stage that reads it has begun; one of `prune`, until training has begun.

    Raises:
        RunError: a key that may not change any more, or a folder that another version has laid out.
    """
    file = path / MANIFEST
    resolved = config.model_dump(mode="json")
    changed: dict[str, str] = {}
    if file.exists():
        manifest = read_manifest(path)
        if _format_of(manifest) < FORMAT:
            raise RunError(
                f"{_writer(file, manifest)}, which stores texts once and cannot read that layout: "
                "choose another --out, or use that version"
            )
        changed = _changed_keys(manifest["config"], resolved)
        blocked = [key for key in changed if _has_begun(path, key)]
        if blocked:
            way = "Set them back, or choose another --out"
            if all(key.startswith("prune.") for key in blocked):
                way = f"`tokenskip prune {path} --into RUN2` cuts the same scored chains in a new run folder"
            raise RunError(f"{path} was run with other settings: {'; '.join(changed[key] for key in blocked)}. {way}")
    return changed


def write_manifest(path: Path, config: RunConfig) -> None:
    """Write `config.json`; what is noted in it stays."""
    notes = _notes(path) if (path / MANIFEST).exists() else {}
    manifest = {**_manifest_head(), **({NOTES: notes} if notes else {}), "config": config.model_dump(mode="json")}
    write_atomically(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def note(path: Path, **values: Any) -> None:
    """Keep values in `config.json`, beside the settings: what the data is, what was trained on."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    notes = {**manifest.get(NOTES, {}), **values}
    if notes != manifest.get(NOTES):
        manifest[NOTES] = notes
        write_atomically(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def noted(path: Path, key: str) -> Any:
    """A value that was kept; None where there is none."""
    return _notes(path).get(key) if (path / MANIFEST).exists() else None


def check_data(path: Path, split: str, problems: Callable[[], Iterable[Problem]], *, begun: bool) -> int:
    """The number of problems, which are kept as the data of the run; before a row has `begun`, they may change.

    `data-SPLIT.jsonl` holds a hash of every problem, `config.json` one of them all.

    Raises:
        RunError: they are not those that the run was begun with; the message names the first that differ.
    """
    file = path / f"data-{split}.jsonl"
    whole = blake2b(digest_size=16)
    n = 0

    def lines() -> Iterable[str]:
        nonlocal n
        for problem in problems():
            line = _data_line(problem)
            whole.update(line.encode("utf-8", "surrogatepass"))
            n += 1
            yield line

    if begun and file.exists():
        with file.open(encoding="utf-8") as recorded:
            same = all(line == next(recorded, None) for line in lines()) and not next(recorded, None)
        if not same:
            raise RunError(
                f"{path} was begun with other {split} data: {_differences(file, problems)}. "
                "Restore the data, or choose another --out"
            )
    else:
        write_atomically(file, lines())
    note(path, **{split: {"rows": n, "digest": whole.hexdigest()}})
    return n


def _data_line(problem: Problem) -> str:
    content = json.dumps([problem.id, problem.question, problem.gold]).encode()
    return json.dumps([problem.id, blake2b(content, digest_size=6).hexdigest()]) + "\n"


def _differences(file: Path, problems: Callable[[], Iterable[Problem]]) -> str:
    """The first rows that are not as they were, by id."""
    with file.open(encoding="utf-8") as recorded:
        before = dict(map(json.loads, recorded))
    after = dict(json.loads(_data_line(problem)) for problem in problems())
    kinds = {
        "changed": [id for id in after if before.get(id, after[id]) != after[id]],
        "new": [id for id in after if id not in before],
        "missing": [id for id in before if id not in after],
    }
    shown = [f"{kind}: {', '.join(map(repr, ids[:3]))}{', …' if ids[3:] else ''}" for kind, ids in kinds.items() if ids]
    return "; ".join(shown) or "the same problems in another order"


def _notes(path: Path) -> dict[str, Any]:
    notes = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get(NOTES, {})
    return notes if isinstance(notes, dict) else {}


def _format_of(manifest: dict[str, Any]) -> int:
    number = manifest.get("format", 0)
    return number if isinstance(number, int) else 0


def _writer(file: Path, manifest: dict[str, Any]) -> str:
    writer = (manifest.get("versions") or {}).get("tokenskip") or "of another version"
    layout = f" (layout {_format_of(manifest)} of run folders)" if _format_of(manifest) != FORMAT else ""
    return f"{file} was written by tokenskip {writer}{layout}, and this is {version('tokenskip')}"


def _has_begun(path: Path, key: str) -> bool:
    """Whether a stage that reads the key has written something."""
    section = key.partition(".")[0]
    stage = "evaluate" if key.startswith("task.test") else _SECTION_STAGE.get(section, section)
    if key == "prompt.effort":
        stage = "train"  # which writes it into the adapter's template
    if key in _FREE_KEYS or section in _FREE_SECTIONS:
        return False
    if key.startswith("evaluate.define."):  # the rows of that arm only
        arm = key.rpartition(".")[2]
        return any(path.glob(f"{EVAL}/{arm}.jsonl")) or any(path.glob(f"{EVAL}/{arm}-*.jsonl"))
    if key.startswith(_SOURCES):
        changed = key.removeprefix(_SOURCES).replace(":", "-")
        if any(changed.endswith(f".server.{option}") for option in _SERVER):
            return False
        if changed.partition(".")[0] == ON_POLICY:  # rounds come after the training of the others
            return _has_rounds(path)
        made = [file.name.removesuffix(".jsonl") for file in path.glob(f"{CANDIDATES}/*.jsonl")]
        if any(f"{changed}.".startswith(f"{name}.") for name in made):
            return True
    elif section == "candidates" and not (path / CHOSEN).exists():  # so far there was nothing to choose from
        return _has_rounds(path)
    if key == "prune.ratios" and any(path.glob(f"{CANDIDATES}/*.jsonl")):
        return True
    stages = list(_OUTPUTS)
    later = stages[stages.index(stage) :]
    if section in ("prune", "candidates", "grpo"):
        later.remove("evaluate")  # without an adapter only the untouched model can have; GRPO's has rows of its own
    return any((path / name).exists() for stage in later for name in _OUTPUTS[stage])


def _has_rounds(path: Path) -> bool:
    return any((path / name).exists() for name in ("round-0", "round-1"))


def _changed_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> 'key: old -> new' for every value that differs."""
    changed: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        name = prefix + key
        before, after = old.get(key), new.get(key)
        inner = not prefix or name in ("generate.options", "evaluate.define") or f"{name}.".startswith(_SOURCES)
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
