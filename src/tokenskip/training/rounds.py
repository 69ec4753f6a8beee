"""On-policy rounds: the source `on_policy` asks the tuned model, and the base is trained again on the whole pool.

Round k asks with the weights of round k - 1 (the first with those that the run's other sources gave), chooses among the
candidates of all sources and of all rounds so far as `tokenskip.candidates.choose` does, and fine-tunes the base on
them. The last round's adapter becomes the run's own, the first one is kept in `round-0/`. Round k writes `round-k/`:

    candidates/on_policy.jsonl    one row per training chain: what the tuned model wrote at every ratio, graded
    candidates.json               how many were right, near their ratio and chosen, per source
    train.jsonl, adapter/         as in the run itself

    tokenskip rounds runs/NAME --set 'candidates.sources={prune: {}, on_policy: {rounds: 2}}'
"""

from __future__ import annotations

import shutil
from typing import Any

from tokenskip.candidates.choose import choose, load_info
from tokenskip.candidates.collect import collect
from tokenskip.candidates.pool import Part
from tokenskip.candidates.settings import ON_POLICY
from tokenskip.errors import StageError
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, CHOSEN, EVAL, RunFolder, read_rows
from tokenskip.training.train import first_weights
from tokenskip.training.train import train as train_adapter


def run(run: Run) -> None:
    """Stage 6b: all rounds of the configuration; each is skipped over as far as it has been done before.

    Raises:
        StageError: no adapter yet, or a run that was evaluated with its first adapter already.
    """
    n_rounds = run.config.candidates.rounds
    if not n_rounds:
        return
    first = first_weights(run.folder)
    if first == "tokenskip" and any(run.folder.file(EVAL).glob("tokenskip-*.jsonl")):
        raise StageError(
            f"{run.folder.path} was evaluated with its first adapter already, and rounds replace it: remove its eval/, "
            "or start another run (`tokenskip prune RUN --into RUN2` takes its scored chains)"
        )
    run.adapter(first)
    parts: list[Part] = [(source, run.folder) for source in run.config.candidates.pool]
    for number in range(1, n_rounds + 1):
        with run.sub_folder(f"round_{number}", candidates=without_rounds(run)) as folder:
            parts.append((ON_POLICY, folder))
            if not folder.file(ADAPTER).exists():
                weights = first if number == 1 else f"round_{number - 1}"
                collect(run, folder, ON_POLICY, weights, round=number)
                choose(run, folder, parts)
                run.free()
                train_adapter(folder, run.prompts, run.progress)
    _adopt(run, n_rounds)


def without_rounds(run: Run) -> Any:
    """The run's `candidates` for a folder inside it, which has no rounds of its own."""
    settings = run.config.candidates
    return settings.model_copy(update={"sources": {name: settings.sources[name] for name in settings.pool}})


def round_infos(folder: RunFolder) -> list[dict[str, Any]]:
    """What every round has chosen, in order, with its number."""
    infos = []
    for number in range(1, folder.config.candidates.rounds + 1):
        file = folder.file(f"round-{number}/{CHOSEN}")
        if file.exists():
            infos.append({"round": number, **load_info(file)})
    return infos


def trained_tokens(train_file: Any) -> int:
    """CoT tokens in a file of training rows: what one epoch on it learns from."""
    return sum(int(row["n_cot_tokens"]) for row in read_rows(train_file))


def _adopt(run: Run, last: int) -> None:
    """The last round's adapter as the run's `adapter/`; the first one moves to `round-0/`. Whole or not at all."""
    final, first = run.folder.file(ADAPTER), run.folder.file(f"round-0/{ADAPTER}")
    if not first.exists():
        first.parent.mkdir(exist_ok=True)
        final.replace(first)
    if not final.exists():
        draft = final.with_name(final.name + ".tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(run.folder.file(f"round-{last}/{ADAPTER}"), draft)
        draft.replace(final)
