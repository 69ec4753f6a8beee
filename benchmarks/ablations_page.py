"""The page docs/results/ablations.md, from what `ablations.py` measured. Pure: results in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages import table

from tokenskip.report.text import pct, signed
from tokenskip.training.dataset import FEW_STEPS

Results = Mapping[str, Any]
Row = Mapping[str, Any]
HELD = 0.05
"""A variant whose rows miss the ratio by no more than this in the mean obeys it."""


def page(results: Results) -> str:
    """The whole page."""
    absent = ", ".join(f"`{name}`" for name in results["absent"])
    missing = f"\nNot run yet, so not in the tables: {absent}.\n" if absent else ""
    return f"""# Ablations on the embedded model

Made by `python benchmarks/ablations.py`; every row: [ablations.json](ablations.json). The shipped model is fine-tuned
anew for every variant, with one thing changed from `base`: {results["chains"]:,} problems and eight epochs of three
rows a chain, a third of the steps of the headline run, so the figures are lower; variants with other rows a chain train
for as many steps, those with fewer problems for as many epochs. {results["test"]:,} held-out problems, greedy, one
seed. Accuracy, then the achieved ratio behind the slash; `error` is the mean distance of achieved and asked ratio over
the columns.
{missing}
{variants_table(results)}
## Against base

Points of accuracy against `base` at the same γ, paired by problem (95% bootstrap); what excludes 0 is **bold**.

{differences_table(results)}
{between_section(results)}## Reading

{reading(results)}
"""


def by_ratio(variant: Row) -> dict[float, Row]:
    """Ratio -> row of the tuned model."""
    return {row["ratio"]: row for row in variant["rows"] if row["arm"] == "tokenskip"}


def ratio_error(variant: Row) -> float:
    """The mean distance of achieved and asked ratio."""
    errors = [abs(row["achieved_ratio"] - ratio) for ratio, row in by_ratio(variant).items()]
    return sum(errors) / len(errors)


def reach(variant: Row) -> float:
    """How far the achieved ratios span the ones asked for: 1 where they follow, 0 where the ratio changes nothing."""
    rows = by_ratio(variant)
    low, high = min(rows), max(rows)
    return float((rows[high]["achieved_ratio"] - rows[low]["achieved_ratio"]) / (high - low))


def variants_table(results: Results) -> str:
    """One row per variant."""
    header = (
        "variant",
        "what is changed",
        "chains",
        "rows",
        "steps",
        *(f"γ = {r}" for r in results["ratios"]),
        "error",
    )
    rows = []
    for one in results["variants"]:
        rows_of = by_ratio(one)
        cells = [f"{pct(rows_of[r]['accuracy'])} / {rows_of[r]['achieved_ratio']:.2f}" for r in results["ratios"]]
        counts = (f"{one['chains']:,}", f"{one['training_rows']:,}", f"{one['steps']:,}")
        rows.append((one["variant"], one["about"], *counts, *cells, f"{ratio_error(one):.3f}"))
    return table(header, rows, 2)


def differences_table(results: Results) -> str:
    """Every variant against base at every ratio."""
    rows = []
    for one in results["variants"]:
        found = [by_ratio(one)[ratio].get("to_base") for ratio in results["ratios"]]
        if any(found):
            rows.append((one["variant"], *(difference(cell) for cell in found)))
    return table(("variant", *(f"γ = {ratio}" for ratio in results["ratios"])), rows) if rows else "No variant yet.\n"


def between_section(results: Results) -> str:
    """What ratios give that base has no rows for; nothing before a variant was asked for them."""
    rows = []
    for one in results["variants"]:
        found = {row["ratio"]: row for row in one["between"]}
        if all(ratio in found for ratio in results["between"]):
            cells = [f"{pct(found[r]['accuracy'])} / {found[r]['achieved_ratio']:.2f}" for r in results["between"]]
            rows.append((one["variant"], *cells))
    if not rows:
        return ""
    header = ("variant", *(f"γ = {ratio}" for ratio in results["between"]))
    return f"""## Between the trained ratios

Asked for ratios that `base` was never trained on.

{table(header, rows)}
"""


def difference(cell: Mapping[str, float] | None) -> str:
    """Points with their interval."""
    if cell is None:
        return "–"
    text = f"{signed(100 * cell['difference'])} [{signed(100 * cell['low'])}, {signed(100 * cell['high'])}]"
    return f"**{text}**" if cell["low"] > 0 or cell["high"] < 0 else text


def reading(results: Results) -> str:
    """One line per variant, computed: accuracy over the ratios against base, and whether the ratio is obeyed."""
    lines = []
    for one in results["variants"]:
        held = ratio_error(one) <= HELD
        control = f"obeys the ratio (mean error {ratio_error(one):.3f})" if held else (
            f"does not obey the ratio: mean error {ratio_error(one):.3f}, its chains span {100 * reach(one):.0f}% of "
            "the range asked for"
        )  # fmt: skip
        cells = [row["to_base"] for row in by_ratio(one).values() if "to_base" in row]
        worse, better = sum(cell["high"] < 0 for cell in cells), sum(cell["low"] > 0 for cell in cells)
        compared = f"; less accurate than base at {worse}, more at {better} of {len(cells)} ratios" if cells else ""
        lines.append(f"- `{one['variant']}` {control}{compared}.")
    floor = data_floor(results)
    return "\n".join([*lines, *([floor] if floor else [])])


def data_floor(results: Results) -> str | None:
    """Between which amounts of data control is lost; None where the data sizes were not run."""
    sizes = [(one["steps"], one) for one in results["variants"] if one["group"] in ("Base", "Data")]
    if len(sizes) < 2:
        return None
    out = [steps for steps, one in sizes if ratio_error(one) > HELD]
    held = [steps for steps, one in sizes if ratio_error(one) <= HELD and steps > max(out, default=0)]
    if not out:
        return "- Data: every amount that was tried keeps control."
    kept = f"{min(held):,} do" if held else "no amount that was tried does"
    warns = f"A run warns below {FEW_STEPS}."
    return f"- Data and time: {max(out):,} steps do not give control of the ratio; {kept}. {warns}"
