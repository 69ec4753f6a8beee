"""`tokenskip candidates RUN`: shorter chains from other sources; see `tokenskip.candidates.choose`."""

from __future__ import annotations

from tokenskip.commands.console import RunDir, Set, run_stage, say
from tokenskip.storage.store import CHOSEN


def candidates(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 4b: collect shorter chains from every source and choose what is trained on."""
    run_stage("candidates", run_dir, None, set_)
    file = run_dir / CHOSEN
    if file.exists():
        from tokenskip.candidates.choose import load_info, summary_lines

        for line in summary_lines(load_info(file)):
            say(line)
