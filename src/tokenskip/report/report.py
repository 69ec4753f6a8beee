"""Stage 8: every number of a run, and a page to open. Writes `results.json`, `report.html` and its pictures.

tokenskip report runs/NAME
"""

from __future__ import annotations

from tokenskip.evaluation.results import write_results
from tokenskip.report.page import write_report
from tokenskip.run import Run
from tokenskip.storage.layout import EVAL, noted
from tokenskip.tracking import log_results


def run(run: Run) -> None:
    """Stage 8. Raises StageError when the original model has not been evaluated yet, or not on all problems."""
    if data := noted(run.folder.path, "test"):
        run.folder.require_rows(f"{EVAL}/original.jsonl", data["rows"] * run.config.evaluate.samples)
    log_results(run.config.train.report_to, run.folder.path, write_results(run.folder))
    write_report(run.folder.path)
