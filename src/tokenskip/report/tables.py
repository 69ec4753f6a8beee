"""The rows of an evaluation as tables: Markdown for documents, rich for a terminal of 80 columns. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenskip.evaluation.schema import ArmResult, Results
from tokenskip.report.text import num, pct, points, signed
from tokenskip.terminal import one_line

TABLE_HEADER = ("arm", "γ", "accuracy", "CoT tokens mean/median", "achieved ratio", "latency")


def table_rows(arms: Iterable[ArmResult]) -> list[tuple[str, ...]]:
    """One row an arm, under `TABLE_HEADER`."""
    return [
        (
            arm.arm,
            _ratio(arm),
            f"{pct(arm.accuracy)} [{pct(arm.accuracy_low)}, {pct(arm.accuracy_high)}]",
            f"{num(arm.cot_tokens_mean, 1)} / {num(arm.cot_tokens_median)}",
            num(arm.achieved_ratio, 3),
            "–" if arm.latency_s is None else f"{1000 * arm.latency_s:,.0f} ms (batch {arm.latency_batch_size})",
        )
        for arm in arms
    ]


def markdown_table(arms: Iterable[ArmResult]) -> str:
    """`table_rows` as a Markdown table."""
    lines = [TABLE_HEADER, ("---", "--:", "--:", "--:", "--:", "--:"), *table_rows(arms)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def terminal_table(results: Results) -> Any:
    """The main columns as a rich table that fits 80 columns; an arm's name is written once, above its ratios."""
    from rich.table import Table

    size = next((arm.n_problems for arm in results.arms), 0)
    title = plain(f"{results.run}: {num(size)} problems")
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True, max_width=20)
    for heading in ("γ", "right", "95% interval", "vs original", "CoT tokens", "achieved", "ms"):
        table.add_column(heading, justify="right")
    previous = None
    for arm in results.arms:
        sure = arm.p_value is not None and arm.p_value < 0.05
        table.add_row(
            plain("" if arm.arm == previous else arm.arm),
            _ratio(arm),
            pct(arm.accuracy),
            f"{_bound(arm.accuracy_low)}–{_bound(arm.accuracy_high)}",
            signed(points(arm.difference)) + ("*" if sure else " "),
            num(arm.cot_tokens_mean, 1),
            num(arm.achieved_ratio, 2),
            "–" if arm.latency_s is None else num(1000 * arm.latency_s),
        )
        previous = arm.arm
    table.caption = "* p < 0.05 against the original (exact McNemar); ms: a sample, largest batch"
    table.caption_justify = "left"
    return table


def plain(text: str) -> Any:
    """`text` for a cell of a terminal's table: brackets are no markup, control characters are written out."""
    from rich.text import Text

    return Text(one_line(text))


def _bound(share: float | None) -> str:
    """An end of an interval in percent, within four characters: 100 has no decimals."""
    return "100" if share is not None and share > 0.9995 else num(points(share), 1)


def _ratio(arm: ArmResult) -> str:
    return "–" if arm.ratio is None else f"{arm.ratio}"
