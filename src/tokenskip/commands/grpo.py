"""`tokenskip grpo RUN`: reinforcement learning from a run's adapter; see `tokenskip.training.grpo`."""

from __future__ import annotations

from tokenskip.commands.console import RunDir, Set, run_stage


def grpo(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 6d: reinforcement learning on right answers within the ratio (--set grpo=200)."""
    run_stage("grpo", run_dir, None, set_)
