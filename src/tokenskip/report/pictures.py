"""Three pictures of a run for documents and slides: `curve.png`, `ratio.png` and `example.png`; also the arms' colours.

Drawn from `results.json` with matplotlib, without a window system and without global state. `tokenskip report RUN`
writes them beside the page.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from tokenskip.evaluation.comparisons import by_arm, main_arm
from tokenskip.evaluation.schema import ArmResult, Results, Sample
from tokenskip.report.highlight import sample_view
from tokenskip.storage.disk import write_atomically
from tokenskip.terminal import printable

# Okabe and Ito's palette, distinguishable with any colour vision: (on light, on dark).
ORIGINAL_COLOUR = ("#3f4854", "#c9d1db")
MAIN_COLOUR = ("#0072b2", "#4aa8e0")
OTHER_COLOURS = (
    ("#00875f", "#2dbd92"),
    ("#6a5acd", "#a99cf0"),
    ("#d55e00", "#ee8340"),
    ("#b8608f", "#dd94bd"),
    ("#c98500", "#e8a92e"),
    ("#2a8a9a", "#66c5d4"),
    ("#8a6d1a", "#cdb25c"),
    ("#9a3b3b", "#dd8585"),
    ("#6b7a2a", "#b0c062"),
)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
EXAMPLE_CHARS, EXAMPLE_LINES = 3_000, 60
"""Of a chain, what `example.png` shows: a picture of a longer one could not be opened."""


def colours(arms: Sequence[ArmResult]) -> dict[str, tuple[str, str]]:
    """Arm -> (on light, on dark): the original's and the main arm's are always the same, the others' by their order."""
    main, chosen, others = main_arm(arms), {}, 0
    for name, rows in by_arm(arms).items():
        if rows[0].role == "original":
            chosen[name] = ORIGINAL_COLOUR
        elif name == main:
            chosen[name] = MAIN_COLOUR
        else:
            chosen[name] = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            others += 1
    return chosen


def draw_curve(results: Results, target: Path) -> None:
    """Accuracy against mean CoT tokens, one line an arm, with 95% intervals."""
    figure, axes = _axes("CoT tokens, mean", "accuracy, %")
    main, colour_of = main_arm(results.arms), colours(results.arms)
    for index, (name, all_rows) in enumerate(by_arm(results.arms).items()):
        rows = sorted((arm for arm in all_rows if arm.n), key=lambda arm: arm.ratio or 1.0)
        y = [100 * (arm.accuracy or 0) for arm in rows]
        low = [max(0.0, value - 100 * (arm.accuracy_low or 0)) for value, arm in zip(y, rows, strict=True)]
        high = [max(0.0, 100 * (arm.accuracy_high or 0) - value) for value, arm in zip(y, rows, strict=True)]
        style = {"color": colour_of[name][0], "marker": MARKERS[index % len(MARKERS)], "label": name}
        lead: dict[str, Any] = {"linewidth": 2.2, "zorder": 3} if name == main else {"linewidth": 1.2}
        if all_rows[0].role == "original":  # a ring, because the trained model at γ = 1 lies on the same spot
            lead |= {"zorder": 4, "markersize": 11, "markerfacecolor": "none", "linestyle": "none"}
        axes.errorbar([arm.cot_tokens_mean for arm in rows], y, yerr=[low, high], capsize=2, **style, **lead)
    axes.set_ylim(-3, 103)
    _save(figure, axes, target)


def draw_ratio(results: Results, target: Path) -> None:
    """Requested against achieved ratio of every arm that takes one."""
    figure, axes = _axes("requested ratio γ", "achieved ratio")
    colour_of = colours(results.arms)
    axes.plot([0, 1.05], [0, 1.05], color="#9aa3ad", linestyle="--", linewidth=1, label="as requested")
    asked = [1.0]
    for index, (name, rows) in enumerate(by_arm(results.arms).items()):
        points = sorted((arm.ratio, arm.achieved_ratio) for arm in rows if arm.ratio and arm.achieved_ratio is not None)
        if points:
            x = [ratio for ratio, _ in points]
            style = {"color": colour_of[name][0], "marker": MARKERS[index % len(MARKERS)], "label": name}
            axes.plot(x, [achieved for _, achieved in points], **style)
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
    _write(figure, target)


def _write(figure: Any, target: Path) -> None:
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_atomically(target, png.getvalue())


def draw_example(results: Results, target: Path) -> None:
    """The first sample's CoT: kept tokens on blue, skipped ones grey and struck through. An empty note without one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    view = sample_view(_short(results.samples[0]) if results.samples else _NO_SAMPLE)
    columns, size = 92, 10.0
    question = _wrap([(printable(view.sample.question)[:EXAMPLE_CHARS], "question")], columns, 0)
    cells = _wrap([(printable(s.text), s.mask >> view.shown & 1) for s in view.segments], columns, question[1] + 1)
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
    if view.ratios:
        note = f"γ = {view.ratios[view.shown]}: blue is kept, struck through is skipped"
        axes.text(0, rows - 0.7, note, color="#5a6470", **font)
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", UserWarning)  # characters the font lacks show as boxes
        _write(figure, target)


_NO_SAMPLE = Sample(
    id="", question="No sample was kept.", gold="", cot="", n_chars_left_out=0, kept_by_ratio={}, importance=()
)


def _short(sample: Sample) -> Sample:
    """The sample with the beginning of its chain; ranges that reach beyond it are cut where they are drawn."""
    lines = sample.cot[:EXAMPLE_CHARS].split("\n")[:EXAMPLE_LINES]
    return sample.model_copy(update={"cot": "\n".join(lines)})


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
