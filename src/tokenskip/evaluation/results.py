"""Every number the report shows: run folder -> `results.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from tokenskip.arms import Arm, label, rows_of
from tokenskip.errors import RunError, StageError
from tokenskip.evaluation.evaluate import full_cap, read_arm, read_timings
from tokenskip.evaluation.metrics import monotone, pareto, summarise_arm, warnings
from tokenskip.evaluation.word_importance import word_levels
from tokenskip.store import (
    ADAPTER,
    EVAL,
    PRUNED,
    RESULTS,
    SCORES,
    TRAIN,
    Row,
    RunFolder,
    read_manifest,
    read_rows,
    write_atomically,
)
from tokenskip.training.dataset import few_steps
from tokenskip.training.rounds import round_infos
from tokenskip.types import Trajectory

N_SAMPLES = 4
N_PROBLEMS = 200


def write_results(folder: RunFolder) -> dict[str, Any]:
    """Sum up the run and write `results.json`; returns what it holds.

    Raises:
        StageError: the original model has not been evaluated yet.
    """
    manifest = read_manifest(folder.path)
    finished = _finished_rows(folder)
    original = finished.get("original")
    if original is None:
        raise StageError(f"{folder.path} has no evaluation yet: run `tokenskip evaluate {folder.path}` first")
    # An arm without a dial has no ratio in its summary, so none in its times
    known = folder.config.known_arms()
    timings = [
        row if known[row["arm"]].dial else {**row, "ratio": None}
        for row in read_timings(folder)
        if row["arm"] in known  # one that the recipe no longer defines
    ]
    arms = []
    for arm, ratio in rows_of(list(known.values()), folder.config.evaluate.ratios):
        if (name := label(arm, ratio)) in finished:
            dial = ratio if arm.dial else None
            row = summarise_arm(arm.name, dial, finished[name], original, timings)
            arms.append(row | {"about": arm.about, **_length(folder, arm, ratio)})
    results = {
        "run": folder.config.name,
        "tokenskip_version": version("tokenskip"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": manifest["hardware"],
        "versions": manifest["versions"],
        "config": folder.config.model_dump(mode="json"),
        "funnel": funnel(folder),
        "backend": folder.config.generate.backend,
        "arms": arms,
        "monotone": monotone(arms),
        "matched": pareto(arms),
        "rounds": _rounds(folder, arms),
        "samples": _samples(folder, finished),
        "problems": _problems(finished),
    }
    results["word_levels"] = _word_levels(folder, results["problems"])
    results["warnings"] = warnings(results) + _length_warnings(arms) + _data_warnings(folder, results["funnel"])
    write_atomically(folder.file(RESULTS), json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    return results


def _length(folder: RunFolder, arm: Arm, ratio: float) -> Row:
    """The token cap of a row, and whether it is the full one or the paper's ratio × cap."""
    full = full_cap(folder.config)
    cap = arm.token_cap(full, ratio, folder.config.evaluate.length)
    return {"length": "full" if cap == full else "paper", "token_cap": cap}


def _length_warnings(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    shortened = [arm for arm in arms if arm["length"] == "paper" and not arm["arm"].startswith("truncation")]
    if not shortened:
        return []
    names = ", ".join(dict.fromkeys(arm["arm"] for arm in shortened))
    return [
        f"The token cap of {names} shrinks with the ratio (the paper's protocol on MATH), so what they save is partly "
        "truncation: evaluate.length=full separates the two."
    ]


def _data_warnings(folder: RunFolder, steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the fine-tuning was too short for the ratio to mean anything; `steps` of the funnel."""
    rows = next((step["count"] for step in steps if step["reason"] == "training rows"), None)
    few = few_steps(rows, folder.config.train) if rows and folder.file(ADAPTER).exists() else None
    return [f"{few}."] if few else []


def _rounds(folder: RunFolder, arms: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Every on-policy round: what was sampled and kept at each ratio, and how its adapter then did on the test."""
    measured = ("n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean", "achieved_ratio", "ratio_error")
    adopted = folder.config.rounds.count if folder.config.rounds.adopt else None
    found = []
    for info in round_infos(folder):
        name = "tokenskip" if info["round"] == adopted else f"tokenskip_round_{info['round']}"
        by_ratio: dict[str, Row] = {ratio: dict(counts) for ratio, counts in info["by_ratio"].items()}
        for arm in arms:
            if arm["arm"] == name:
                by_ratio.setdefault(str(arm["ratio"]), {}).update({key: arm[key] for key in measured})
        found.append({**info, "arm": name, "by_ratio": by_ratio})
    return found


def load_results(path: Path | str) -> dict[str, Any]:
    """`results.json` of a run folder.

    Raises:
        RunError: there is none, or it is not readable.
    """
    file = Path(path) / RESULTS
    try:
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} has no {RESULTS}: run `tokenskip report {path}` first") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    return results


def funnel(folder: RunFolder) -> list[dict[str, Any]]:
    """From generated trajectories to training rows: how many were left out at each step, and why."""
    reasons: Counter[str] = Counter()
    generated = rejected = cuts = 0
    for trajectory in folder.trajectories():
        generated += 1
        reasons[trajectory.dropped or "correct"] += 1
    steps = [{"reason": "generated", "count": generated}, {"reason": "correct", "count": reasons.pop("correct", 0)}]
    steps += [{"reason": reason, "count": count} for reason, count in reasons.most_common()]
    if folder.file(PRUNED).exists():
        for row in read_rows(folder.file(PRUNED)):
            cuts += len(row.get("pruned", ()))
            rejected += sum(1 for cut in row.get("pruned", ()) if cut["rejected"])
        steps += [{"reason": "pruned texts", "count": cuts}, {"reason": "rejected by the verifier", "count": rejected}]
    if folder.file(TRAIN).exists():
        steps.append({"reason": "training rows", "count": sum(1 for _ in read_rows(folder.file(TRAIN)))})
    return steps


def _finished_rows(folder: RunFolder) -> dict[str, list[Trajectory]]:
    """Label -> completions of every row that was evaluated on as many problems as the original."""
    found = {}
    for arm, ratio in rows_of(list(folder.config.known_arms().values()), folder.config.evaluate.ratios):
        name = label(arm, ratio)
        if folder.file(f"{EVAL}/{name}.jsonl").exists():
            found[name] = list(read_arm(folder, name))
    size = len(found.get("original", ()))
    return {name: rows for name, rows in found.items() if rows and len(rows) == size}


def _samples(folder: RunFolder, finished: dict[str, list[Trajectory]]) -> list[Row]:
    """A few training chains with what was kept of them at each ratio, and how important every part is."""
    if not (folder.file(PRUNED).exists() and folder.file(SCORES).exists()):
        return []
    alive = (one for one in folder.trajectories(SCORES, PRUNED) if one.scores and one.pruned)
    wanted = sorted(islice(alive, 64), key=lambda one: -len(one.pruned))[:N_SAMPLES]
    return [
        {
            "id": one.id,
            "question": one.question,
            "gold": one.gold,
            "cot": one.cot,
            "kept_by_ratio": {str(cut.ratio): [list(span) for span in cut.kept] for cut in one.pruned if cut.ratio < 1},
            "importance": [[start, end, float(f"{value:.3g}")] for start, end, value in one.scores.spans],
            "outputs": {},
        }
        for one in wanted
        if one.scores
    ]


def _problems(finished: dict[str, list[Trajectory]]) -> list[Row]:
    """The first problems with every row's output, for the report's browser; flips from right to wrong come first."""
    names = [name for name in finished if not name.startswith("truncation")]
    ours: Sequence[Trajectory] = finished.get("tokenskip-0.6") or finished["original"]
    order = sorted(range(len(ours)), key=lambda i: (_is_right(ours[i]) or not _is_right(finished["original"][i]), i))
    return [
        {
            "id": finished["original"][i].id,
            "question": finished["original"][i].question,
            "gold": finished["original"][i].gold,
            "level": finished["original"][i].level,
            "arms": {name.replace("-", " "): _shown(finished[name][i]) for name in names},
        }
        for i in order[:N_PROBLEMS]
    ]


def _word_levels(folder: RunFolder, problems: Sequence[Row]) -> dict[str, int]:
    """How important the run's scorer finds the words of the problems' outputs; empty before anything is scored."""
    if not folder.file(SCORES).exists():
        return {}
    outputs = (shown["output"] for problem in problems for shown in problem["arms"].values())
    return word_levels((one for one in folder.trajectories(SCORES) if one.scores), outputs)


def _shown(one: Trajectory) -> Row:
    return {"correct": _is_right(one), "n_cot_tokens": one.n_cot_tokens, "output": one.output}


def _is_right(one: Trajectory) -> bool:
    return bool(one.grade and one.grade.correct)
