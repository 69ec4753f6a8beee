"""`tokenskip rounds RUN`: on-policy rounds on a run folder; see `tokenskip.training.rounds`."""

from __future__ import annotations

from tokenskip.commands.console import RunDir, Set, run_stage


def rounds(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 6b: train again on the tuned model's own short correct chains (source on_policy)."""
    run_stage("rounds", run_dir, None, set_, then="controls")
