"""What is in a run folder, and `config.json`: which settings it was made under, and which of them may still change.

Part of `tokenskip.store`, where the rest of the package imports it from.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokenskip.commands.trust import check_trust
from tokenskip.config import RunConfig, check_config
from tokenskip.disk import write_atomically
from tokenskip.errors import ConfigError, RunError
from tokenskip.recipes import lay_over

FORMAT = 2
"""Layout of a run folder; raised when older folders can no longer be read.

1: `trajectories.jsonl` and every row of `eval/` held a text and its parts; `pruned.jsonl` held the pruned texts.
2: a text is stored once, in `completions.jsonl` or its row of `eval/`, with the character range of its chain.
"""

MANIFEST = "config.json"
COMPLETIONS, TRAJECTORIES, SCORES = "completions.jsonl", "trajectories.jsonl", "scores.jsonl"
PRUNED, TRAIN = "pruned.jsonl", "train.jsonl"
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
    "train": (ADAPTER, "checkpoints"),
    "rounds": ("samples.jsonl", "round-1"),
    "evaluate": (EVAL,),
}
_SECTION_STAGE = {"seed": "generate", "model": "generate", "task": "generate", "prompt": "generate"}
_ROUND_ZERO = "round-0"
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
    """Write `config.json`."""
    manifest = {**_manifest_head(), "config": config.model_dump(mode="json")}
    write_atomically(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")


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
    if key in _FREE_KEYS or section in _FREE_SECTIONS:
        return False
    if key.startswith("evaluate.define."):  # the rows of that arm only
        arm = key.rpartition(".")[2]
        return any(path.glob(f"{EVAL}/{arm}.jsonl")) or any(path.glob(f"{EVAL}/{arm}-*.jsonl"))
    if section == "rounds":  # they are rows beside what is evaluated already, until one was adopted
        begun = (_ROUND_ZERO,) if key in ("rounds.count", "rounds.adopt") else _OUTPUTS[stage]
        return any((path / name).exists() for name in begun)
    stages = list(_OUTPUTS)
    later = stages[stages.index(stage) :]
    if section == "prune":
        later.remove("evaluate")  # without an adapter only the untouched model can have been evaluated
    return any((path / name).exists() for stage in later for name in _OUTPUTS[stage])


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
