"""Three pictures of a run for documents and slides: `curve.png`, `ratio.png` and `example.png`; also the arms' colours.

Drawn from `results.json` with matplotlib, without a window system and without global state. `tokenskip report RUN`
writes them beside the page.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenskip.evaluation.metrics import takes_ratio
from tokenskip.report.highlight import sample_view

# Okabe and Ito's palette, told apart with any colour vision: (on light, on dark). An arm keeps its colour in all runs.
COLOURS = {
    "original": ("#3f4854", "#c9d1db"),
    "tokenskip": ("#0072b2", "#4aa8e0"),
    "random": ("#c98500", "#e8a92e"),
    "truncation": ("#d55e00", "#ee8340"),
    "truncation_forced": ("#b8608f", "#dd94bd"),
    "prompt_be_concise": ("#00875f", "#2dbd92"),
    "marker_only": ("#6a5acd", "#a99cf0"),
}
SPARE_COLOURS = (("#8a6d1a", "#cdb25c"), ("#2a8a9a", "#66c5d4"), ("#9a3b3b", "#dd8585"), ("#6b7a2a", "#b0c062"))
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def colour(name: str, names: Sequence[str]) -> tuple[str, str]:
    """(on light, on dark) of an arm; arms of the user's own take spare colours in order."""
    unknown = [other for other in names if other not in COLOURS]
    return COLOURS[name] if name in COLOURS else SPARE_COLOURS[unknown.index(name) % len(SPARE_COLOURS)]


def draw_curve(results: Mapping[str, Any], target: Path) -> None:
    """Accuracy against mean CoT tokens, one line an arm, with 95% intervals."""
    figure, axes = _axes("CoT tokens, mean", "accuracy, %")
    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    for index, name in enumerate(names):
        arms = [arm for arm in results["arms"] if arm["arm"] == name and arm["n"]]
        arms.sort(key=lambda arm: arm["ratio"] or 1.0)
        y = [100 * arm["accuracy"] for arm in arms]
        low = [max(0.0, 100 * (arm["accuracy"] - arm["accuracy_low"])) for arm in arms]
        high = [max(0.0, 100 * (arm["accuracy_high"] - arm["accuracy"])) for arm in arms]
        style = {"color": colour(name, names)[0], "marker": MARKERS[index % len(MARKERS)], "label": name}
        lead: dict[str, Any] = {"linewidth": 2.2, "zorder": 3} if name == "tokenskip" else {"linewidth": 1.2}
        if name == "original":  # a ring, because TokenSkip at γ = 1 lies on the same spot
            lead |= {"zorder": 4, "markersize": 11, "markerfacecolor": "none", "linestyle": "none"}
        axes.errorbar([arm["cot_tokens_mean"] for arm in arms], y, yerr=[low, high], capsize=2, **style, **lead)
    axes.set_ylim(-3, 103)
    _save(figure, axes, target)


def draw_ratio(results: Mapping[str, Any], target: Path) -> None:
    """Requested against achieved ratio of every arm that takes one."""
    figure, axes = _axes("requested ratio γ", "achieved ratio")
    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    axes.plot([0, 1.05], [0, 1.05], color="#9aa3ad", linestyle="--", linewidth=1, label="as requested")
    asked = [1.0]
    for index, name in enumerate(names):
        arms = [arm for arm in results["arms"] if arm["arm"] == name and takes_ratio(name, arm["ratio"])]
        arms = sorted((arm for arm in arms if arm["achieved_ratio"] is not None), key=lambda arm: arm["ratio"])
        if arms:
            x = [arm["ratio"] for arm in arms]
            style = {"color": colour(name, names)[0], "marker": MARKERS[index % len(MARKERS)], "label": name}
            axes.plot(x, [arm["achieved_ratio"] for arm in arms], **style)
            asked += x
    axes.set_xlim(min(asked) - 0.05, 1.05)
    axes.set_ylim(bottom=max(0.0, min(asked) - 0.15))
    _save(figure, axes, target)


def _axes(x_label: str, y_label: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no window system, no global state
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, axes: Any, target: Path) -> None:
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(target, metadata={"Software": None})


def draw_example(results: Mapping[str, Any], target: Path) -> None:
    """The first sample's CoT: kept tokens on blue, skipped ones grey and struck through. An empty note without one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    sample = sample_view((results.get("samples") or [{"cot": "", "question": "No sample was kept."}])[0])
    columns, size = 92, 10.0
    question = _wrap([(sample["question"], "question")], columns, 0)
    cells = _wrap([(s.text, s.mask >> sample["shown"] & 1) for s in sample["segments"]], columns, question[1] + 1)
    rows = cells[1] + 2
    columns = max([48, *(column + len(text) for _, column, text, _ in question[0] + cells[0])])
    # DejaVu Sans Mono, which matplotlib brings along, is 0.602 em wide: one unit of x is one character.
    inches = ((columns + 2) * 0.602 * size / 72, (rows + 0.8) * 1.55 * size / 72)
    figure = Figure(figsize=inches, dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1, columns + 1), ylim=(rows, -0.8))
    axes.axis("off")
    font: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": size, "va": "center", "parse_math": False}
    for row, column, text, kept in question[0] + cells[0]:
        if kept == "question":
            axes.text(column, row, text, color="#1d232b", weight="bold", **font)
        elif kept:
            axes.add_patch(Rectangle((column, row - 0.42), len(text), 0.84, color="#cfe6f5", linewidth=0))
            axes.text(column, row, text, color="#0b3a57", **font)
        else:
            axes.text(column, row, text, color="#8b939d", **font)
            axes.plot([column, column + len(text.rstrip())], [row, row], color="#b7bec7", linewidth=0.9)
    if sample["ratios"]:
        note = f"γ = {sample['ratios'][sample['shown']]}: blue is kept, struck through is skipped"
        axes.text(0, rows - 0.7, note, color="#5a6470", **font)
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", UserWarning)  # characters the font lacks show as boxes
        figure.savefig(target, metadata={"Software": None})


def _wrap(parts: Sequence[tuple[str, Any]], columns: int, row: int) -> tuple[list[tuple[int, int, str, Any]], int]:
    """(row, column, text, tag) of every piece on a grid of characters, and the row below the last one."""
    placed: list[tuple[int, int, str, Any]] = []
    column = 0
    for text, tag in parts:
        for number, line in enumerate(text.split("\n")):
            row, column = (row + 1, 0) if number else (row, column)
            for word in line.replace(" ", " \0").split("\0"):  # a space stays with the word before it
                if column and column + len(word.rstrip()) > columns:
                    row, column = row + 1, 0
                while len(word) > columns:
                    placed.append((row, column, word[: columns - column], tag))
                    word, row, column = word[columns - column :], row + 1, 0
                if word and (word.strip() or column):
                    placed.append((row, column, word, tag))
                    column += len(word)
    return placed, row + 1
