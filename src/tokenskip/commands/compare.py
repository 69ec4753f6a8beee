"""`tokenskip compare`: several runs on one page, paired where their problems coincide.

tokenskip compare runs/a runs/b -o compare.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenskip.commands.console import say
from tokenskip.storage.outputs import check_file
from tokenskip.terminal import console


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders or results.json files; the first is the reference.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("compare.html"),
) -> None:
    """Put runs side by side: one offline page and a table, with exact paired tests on the problems they share.

    Of runs that differ only in their seed, it also shows how much each number varies over the trainings.
    """
    from tokenskip.report.compare import pairs, read_runs, spread_table, spreads, terminal_table, write_comparison

    check_file(output, runs)
    read = read_runs(runs)
    page = write_comparison(read, output)
    screen = console()
    screen.print(terminal_table(pairs(read), read[0].name))
    if over_trainings := spreads(read):
        screen.print(spread_table(over_trainings))
    say(f"comparison: {page}")
