"""The whole run, top to bottom: this file reads as the method.

    generate   the target model answers the training problems            completions.jsonl
    grade      right, wrong, or impossible to tell                       trajectories.jsonl
    score      an importance for every part of every right chain         scores.jsonl
    prune      every chain cut to its ratios, then the training rows     pruned.jsonl, train.jsonl
    candidates the best short chain from any other source, if asked      candidates/, train.jsonl
    train      LoRA on `question <eos> ratio <eos> -> pruned chain`      adapter/
    rounds     again with the tuned model's own short chains, if asked   round-1/ ...
    grpo       reinforcement learning from there, if asked               grpo/
    controls   the adapters that it is compared with                     control-random/ ...
    calibrate  the ratio asked for -> the one to prompt with, if asked   calibration.json
    evaluate   all arms on the same problems                             eval/
    report     every number, and a page to open                          results.json, report.html

A stage is a function of a `Run`: it reads the files of those before it and adds what is missing in its own. So a run
that was killed ends as it would have, and any stage can be run alone. Each has its own module; names become
objects in `tokenskip.plugins`.
"""

from __future__ import annotations

from tokenskip.candidates.choose import run as candidates
from tokenskip.evaluation.calibrate import run as calibrate
from tokenskip.evaluation.evaluate import run as evaluate
from tokenskip.generation.generate import run as generate
from tokenskip.generation.grade import run as grade
from tokenskip.pruning.prune import run as prune
from tokenskip.pruning.score import run as score
from tokenskip.report.report import run as report
from tokenskip.run import Run
from tokenskip.storage.store import CALIBRATION
from tokenskip.training.controls import run as controls
from tokenskip.training.grpo import run as grpo
from tokenskip.training.rounds import run as rounds
from tokenskip.training.train import run as train

STAGES = {
    "generate": generate,
    "grade": grade,
    "score": score,
    "prune": prune,
    "candidates": candidates,
    "train": train,
    "rounds": rounds,
    "grpo": grpo,
    "controls": controls,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "report": report,
}
"""Name -> stage, in order."""
LOCAL = ("grade", "score", "prune", "train", "grpo", "controls", "report")
"""The stages that ask no server."""

__all__ = ["LOCAL", "STAGES", "Run", "run", *STAGES]


def run(run: Run) -> None:
    """All stages; each is skipped over as far as it has been done before."""
    if not run.folder.file(CALIBRATION).exists():
        run.config.check_calibration()
    for stage in STAGES.values():
        stage(run)
