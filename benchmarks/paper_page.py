"""The page docs/results/paper.md, from what `paper.py` measured. Pure: results in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pages import table

from tokenskip.arms import ARMS
from tokenskip.report.text import pct, signed

Results = Mapping[str, Any]
GAMMAS = (0.6, 0.5)
"""The ratios at which the sizes are compared with each other."""

SHIPPED = "shipped"
"""The package's own model, of size `s`, in the headline run."""

Cell = tuple[float, float | None]
QWEN: dict[str, dict[float | None, Cell]] = {
    "Qwen 3B": {None: (83.7, None), 1.0: (83.4, 1.0), 0.9: (83.2, 0.83), 0.8: (81.6, 0.79), 0.7: (80.1, 0.73),
                0.6: (77.3, 0.63), 0.5: (74.4, 0.54)},
    "Qwen 7B": {None: (91.4, None), 1.0: (91.7, 1.0), 0.9: (91.1, 0.86), 0.8: (90.1, 0.8), 0.7: (89.9, 0.73),
                0.6: (87.9, 0.6), 0.5: (86.0, 0.51)},
    "Qwen 14B": {None: (93.1, None), 1.0: (93.0, 1.0), 0.9: (93.3, 0.86), 0.8: (93.2, 0.79), 0.7: (93.4, 0.7),
                 0.6: (92.7, 0.57), 0.5: (91.4, 0.5)},
}  # fmt: skip
"""Table 2 of the paper (arXiv 2502.12067v3): accuracy in percent and achieved ratio on GSM8K; None: the original."""
LLAMA: dict[tuple[str, float | None], Cell] = {
    ("original", None): (86.2, None),
    ("tokenskip", 1.0): (86.7, 1.0),
    ("tokenskip", 0.9): (86.1, 0.93),
    ("tokenskip", 0.8): (84.3, 0.8),
    ("tokenskip", 0.7): (82.5, 0.7),
    ("tokenskip", 0.6): (81.1, 0.61),
    ("tokenskip", 0.5): (78.2, 0.53),
    ("prompt_be_concise", None): (82.9, 0.76),
    ("prompt_only_numbers", None): (83.2, 0.78),
    ("prompt_abbreviate", None): (83.7, 0.8),
    ("prompt_lc", 0.9): (84.1, 1.06),
    ("prompt_lc", 0.7): (84.9, 0.98),
    ("prompt_lc", 0.5): (83.7, 0.89),
    ("truncation", 0.9): (70.2, 0.95),
    ("truncation", 0.7): (25.9, 0.7),
    ("truncation", 0.5): (7.0, 0.49),
}
"""Table 1 of the paper: Llama-3.1-8B-Instruct on GSM8K, 1,319 problems."""


def page(results: Results) -> str:
    """The whole page."""
    settings = results["settings"]
    one = results["rows"][0]["n"]
    train = settings["train"]
    return f"""# The paper's tables on the embedded family

Made by `python benchmarks/paper.py`; every row: [paper.json](paper.json). Sizes of the embedded model, each pretrained
from random weights on the same documents for as many tokens, then compressed with the same settings: chains of
{settings["chains"]:,} problems (only right ones are kept), scorer `{settings["scorer"]}`, cut
`{settings["prune"]["cut"]}`, {settings["steps"]:,} steps of {train["batch_size"]} rows at {train["learning_rate"]:g}
(`{train["method"]}`, {train["optimizer"]}), greedy decoding of the same {one:,} held-out problems. One seed.

These models stand in for a family and are weaker than the one that the package ships, which has seen more tokens. That
one stands beside them as `{SHIPPED}`: a model of size `s` with the training of [the headline run](embedded.md).

{sizes_table(results["sizes"])}{absent(results)}
The paper's figures are those of its tables 1 and 2 (arXiv 2502.12067v3), on GSM8K. Its models are a hundred thousand
times larger and its problems are another kind: the shape can be compared, the numbers cannot.

## What holds here

{verdicts(results)}

## Requested and achieved ratios, beside table 2

Accuracy, and the achieved ratio behind the slash; intervals are 95% Wilson intervals.

{ratio_table(results)}
## Truncation and prompts, beside table 1

{baseline_table(results)}
The paper's token cap is 512 on chains of 213 tokens in the mean, ours {settings_cap(results)}: how deep truncation cuts
depends on that choice, so its rows compare by their achieved ratio. "Be concise." and, but for a word, "Only use
numbers or equations." ask for ways of writing that the embedded models know from their pretraining; the other two
prompts are unknown to them.

## Do larger models hold up better?

The paper says so (table 2: at γ = 0.6, −6.4 points for 3B, −3.5 for 7B, −0.4 for 14B). Here, each size against its own
original, paired by problem:

{losses_table(results)}
How much less the larger of two sizes loses, on the same problems (positive: it holds up better; 95% bootstrap over
problems):

{held_up_table(results)}
Points favour models that know little: one that solves half of the problems cannot lose more than that half. The column
`kept` is the share of the original's own right answers that are still right.
"""


def settings_cap(results: Results) -> str:
    """The token cap of the evaluation in words."""
    return f"{results['settings']['token_cap']} on chains of {_original_tokens(results)}"


def _original_tokens(results: Results) -> str:
    means = [row["cot_tokens_mean"] for row in results["rows"] if row["arm"] == "original"]
    return f"{min(means):.0f} to {max(means):.0f}" if len(means) > 1 else f"{means[0]:.0f}"


def absent(results: Results) -> str:
    """A sentence about sizes that are not finished."""
    missing = ", ".join(f"`{size}`" for size in results["absent"])
    return f"\nNot run yet, so not in the tables: {missing}.\n" if missing else ""


def find(results: Results, size: str, arm: str, ratio: float | None) -> Mapping[str, Any] | None:
    """The row; None where there is none."""
    rows = results["rows"]
    return next((row for row in rows if (row["size"], row["arm"], row["ratio"]) == (size, arm, ratio)), None)


def names(results: Results) -> list[str]:
    """The sizes that were measured, the smallest first."""
    return [one["size"] for one in results["sizes"]]


def family(results: Results) -> list[str]:
    """The sizes that were pretrained and compressed in the same way."""
    return [size for size in names(results) if size != SHIPPED]


def sizes_table(sizes: Sequence[Mapping[str, Any]]) -> str:
    """What each size is."""
    header = ("size", "parameters", "pretraining tokens", "right chains", "training rows")
    return table(header, [
        (one["size"], f"{one['parameters']:,}", f"{one['pretraining_tokens']:,}" if one["pretraining_tokens"] else "–",
         f"{one['correct']:,} of {one['generated']:,}", f"{one['training_rows']:,}")
        for one in sizes
    ])  # fmt: skip


def _ours(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    span = f"{pct(row['accuracy'])} [{100 * row['accuracy_low']:.1f}, {100 * row['accuracy_high']:.1f}]"
    return span if ARMS[row["arm"]].role == "original" else f"{span} / {row['achieved_ratio']:.2f}"


def _theirs(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{cell[0]:.1f}%" + (f" / {cell[1]:.2f}" if cell[1] is not None else "")


def ratio_table(results: Results) -> str:
    """TokenSkip at every ratio: the sizes, and the paper's models."""
    sizes = names(results)
    rows = []
    for ratio in (None, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
        arm = "original" if ratio is None else "tokenskip"
        ours = [_ours(find(results, size, arm, ratio)) for size in sizes]
        theirs = [_theirs(QWEN[model].get(ratio)) for model in QWEN]
        rows.append(["original" if ratio is None else f"{ratio}", *ours, *theirs, _theirs(LLAMA.get((arm, ratio)))])
    return table(["γ", *sizes, *QWEN, "Llama 8B"], rows)


def baseline_table(results: Results) -> str:
    """What needs no training."""
    sizes = names(results)
    keys = dict.fromkeys((row["arm"], row["ratio"]) for row in results["rows"])
    rows = []
    for name, ratio in sorted(keys, key=lambda key: (list(ARMS).index(key[0]), -(key[1] or 0))):
        if ARMS[name].role != "method":
            ours = [_ours(find(results, size, name, ratio)) for size in sizes]
            rows.append([name, f"{ratio}" if ratio else "–", *ours, _theirs(LLAMA.get((name, ratio)))])
    return table(["arm", "γ", *sizes, "Llama 8B (paper)"], rows, 2)


def points(row: Mapping[str, Any]) -> str:
    """The paired difference to the original, in points with its interval."""
    low, high = signed(100 * row["difference_low"]), signed(100 * row["difference_high"])
    return f"{signed(100 * row['difference'])} [{low}, {high}]"


def losses_table(results: Results) -> str:
    """Every size against its own original."""
    rows = []
    for ratio in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
        cells = []
        for size in names(results):
            row, original = find(results, size, "tokenskip", ratio), find(results, size, "original", None)
            if row is None or original is None:
                cells += ["–", "–"]
                continue
            right = round(original["accuracy"] * original["n"])
            cells += [points(row), pct(1 - row["lost"] / right if right else None)]
        rows.append([f"{ratio}", *cells])
    header = [head for size in names(results) for head in (f"{size}, points", "kept")]
    return table(["γ", *header], rows)


def held_up_table(results: Results) -> str:
    """Pairs of sizes."""
    if not results["held_up"]:
        return "Not measured: fewer than two sizes are finished.\n"
    return table(("γ", "sizes", "points less lost", ""), [
        (f"{one['ratio']}", f"{one['larger']} against {one['smaller']}",
         f"{signed(100 * one['difference'])} [{signed(100 * one['low'])}, {signed(100 * one['high'])}]", verdict(one))
        for one in results["held_up"]
    ], 2)  # fmt: skip


def verdict(one: Mapping[str, Any]) -> str:
    """Whether the larger size of a pair holds up better."""
    if one["low"] > 0:
        return "holds up better"
    return "holds up worse" if one["high"] < 0 else "not decided: the interval includes 0"


def verdicts(results: Results) -> str:
    """The paper's claims, each with what was measured."""
    lines = []
    for size in names(results):
        row = find(results, size, "tokenskip", 0.6)
        if row:
            lines.append(f"- `{size}` at γ = 0.6: {points(row)} points with {row['achieved_ratio']:.2f} of the tokens.")
    ours = [row for row in results["rows"] if ARMS[row["arm"]].role == "method"]
    worst = max(ours, key=lambda row: abs(row["achieved_ratio"] - row["ratio"]))
    lines.append(
        f"- The ratio: the worst of {len(ours)} rows is `{worst['size']}`, which achieves "
        f"{worst['achieved_ratio']:.2f} where {worst['ratio']} was asked for "
        "(the paper's worst on GSM8K: 0.83 for 0.9)."
    )
    for size in names(results):
        cut, row = find(results, size, "truncation", 0.6), find(results, size, "tokenskip", 0.6)
        if cut and row:
            lines.append(
                f"- Truncation at 0.6 of the cap leaves `{size}` {pct(cut['accuracy'])} with "
                f"{cut['achieved_ratio']:.2f} of the tokens; TokenSkip at 0.6 has {pct(row['accuracy'])}."
            )
    lines += [_prompt_line(results, size) for size in names(results)]
    apart = results["held_up"]
    wide = [one for one in apart if (one["smaller"], one["larger"]) == (family(results)[0], family(results)[-1])]
    lines += [f"- `{one['larger']}` against `{one['smaller']}` at γ = {one['ratio']}: {verdict(one)}." for one in wide]
    return "\n".join(lines)


def _prompt_line(results: Results, size: str) -> str:
    """The most accurate prompt that is shorter than the original, against TokenSkip."""
    of_size = [(ARMS[row["arm"]], row) for row in results["rows"] if row["size"] == size]
    rows = [row for arm, row in of_size if arm.role == "control" and arm.shortened_by == "instruction"]
    best = max(rows, key=lambda row: (row["achieved_ratio"] < 0.95, row["accuracy"]))
    name = best["arm"] + (f" at {best['ratio']}" if best["ratio"] else "")
    shorter = [row for arm, row in of_size if arm.role == "method" and row["ratio"] < 1]
    beaten = [f"{row['ratio']}" for row in shorter
              if best["accuracy"] >= row["accuracy"] and best["cot_tokens_mean"] <= row["cot_tokens_mean"]]  # fmt: skip
    said = f"beats TokenSkip at γ = {', '.join(beaten)} with no more tokens" if beaten else "beats TokenSkip nowhere"
    return (
        f"- The best prompt that shortens the chains of `{size}` is {name}: {pct(best['accuracy'])} with "
        f"{best['achieved_ratio']:.2f} of the tokens; it {said}."
    )
