"""What a person opens: `report.html` and three pictures, all drawn from the `results.json` of a run folder.

`tokenskip report RUN` reads `RUN/results.json` and writes `report.html` (one file, opens offline, loads nothing),
`curve.png`, `ratio.png` and `example.png`. Text from data is escaped everywhere; numbers that are missing show as "–".
"""

from __future__ import annotations

import json
import math
import os
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tokenskip.errors import DataError, RunError
from tokenskip.metrics import arm_label, pareto, prompt_wins, summarise_arm, takes_ratio

TABLE_HEADER = ("arm", "γ", "accuracy", "CoT tokens mean/median", "achieved ratio", "latency")
HEADLINE_RATIO = 0.6
"""The ratio that the summary speaks about: fixed beforehand, so that nobody picks the best one afterwards."""
MAX_PROBLEMS = 200
MAX_SAMPLES = 12

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

Arm = Mapping[str, Any]


class Segment(NamedTuple):
    """A piece of a CoT: bit k of `mask` says whether the k-th ratio keeps it; `level` 0-4 ranks its importance."""

    text: str
    mask: int
    value: float | None
    level: int


def write_report(run_dir: Path) -> Path:
    """The path of the `report.html` just written into `run_dir`, beside its pictures.

    Raises:
        RunError: no `results.json` yet, or a folder that cannot be written.
        DataError: a `results.json` that is not one.
    """
    source = run_dir / "results.json"
    try:
        results = complete(json.loads(source.read_text(encoding="utf-8")))
        page = render_html(results)
    except FileNotFoundError:
        raise RunError(f"no {source}: run 'tokenskip evaluate {run_dir}' first") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{source} is not a results file: {type(error).__name__}: {error}") from None
    target = run_dir / "report.html"
    try:
        draw_curve(results, run_dir / "curve.png")
        draw_ratio(results, run_dir / "ratio.png")
        draw_example(results, run_dir / "example.png")
        unfinished = target.with_suffix(".html.tmp")
        unfinished.write_text(page, encoding="utf-8")
        os.replace(unfinished, target)  # a killed command leaves the previous page whole
    except OSError as error:
        raise RunError(f"{run_dir} cannot be written: {error.strerror or error}") from None
    return target


def complete(results: Mapping[str, Any]) -> dict[str, Any]:
    """`results` with an empty value for every optional key, so that files of older versions still show."""
    empty: dict[str, Any] = {"tokenskip_version": "", "created": "", "hardware": {}, "config": {}, "funnel": []}
    empty |= {"warnings": [], "samples": [], "problems": []}
    blank = summarise_arm("", None, [], [])
    required = ("arm", "n", "accuracy", "accuracy_low", "accuracy_high", "cot_tokens_mean")
    arms = [blank | arm | {key: arm[key] for key in required} for arm in results["arms"]]
    return {**empty, **results, "run": results["run"], "arms": arms}


def render_html(results: Mapping[str, Any]) -> str:
    """The whole page as one string."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"pct": pct, "num": num, "signed": signed}
    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    return environment.get_template("report.html").render(
        r=results,
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        js=Markup((folder / "report.js").read_text(encoding="utf-8")),
        island=Markup(island(results)),
        colours=[(index, *colour(name, names)) for index, name in enumerate(names)],
        names=names,
        summary=summary(results),
        label=lambda arm: arm_label(arm["arm"], arm["ratio"]),
        takes_ratio=takes_ratio,
        matched=[row for row in pareto(results["arms"]) if row["advantage"] is not None],
        levels=list(dict.fromkeys(level for arm in results["arms"] for level in arm.get("by_level") or {})),
        widest=max((stage["count"] for stage in results.get("funnel") or []), default=0) or 1,
        samples=[sample_view(sample) for sample in (results.get("samples") or [])[:MAX_SAMPLES]],
        config=yaml.safe_dump(results.get("config") or {}, sort_keys=False, allow_unicode=True),
    )


def island(results: Mapping[str, Any]) -> str:
    """The JSON that the page's script reads, safe inside `<script>` (no `<`, `>` or `&`) and without NaN."""
    keys: tuple[str, ...] = ("arm", "ratio", "n", "accuracy", "accuracy_low", "accuracy_high")
    keys += (
        "cot_tokens_mean",
        "cot_tokens_median",
        "achieved_ratio",
        "achieved_ratio_problem_p10",
        "achieved_ratio_problem_p90",
    )
    arms = []
    for arm in results["arms"]:
        label, dial = arm_label(arm["arm"], arm["ratio"]), takes_ratio(arm["arm"], arm["ratio"])
        arms.append({key: arm.get(key) for key in keys} | {"label": label, "dial": dial})
    problems = list(results.get("problems") or [])[:MAX_PROBLEMS]
    text = json.dumps(_finite({"arms": arms, "problems": problems}), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    """`value` with None for every NaN and infinity, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def colour(name: str, names: Sequence[str]) -> tuple[str, str]:
    """(on light, on dark) of an arm; arms of the user's own take spare colours in order."""
    unknown = [other for other in names if other not in COLOURS]
    return COLOURS[name] if name in COLOURS else SPARE_COLOURS[unknown.index(name) % len(SPARE_COLOURS)]


def pct(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}%"


def num(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A number that carries its sign."""
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}".replace("-", "−")


def headline(arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
    """(original, tokenskip at the ratio nearest `HEADLINE_RATIO`), where both were evaluated."""
    original = next((arm for arm in arms if arm["arm"] == "original" and arm["n"]), None)
    dial = [arm for arm in arms if arm["arm"] == "tokenskip" and arm["n"] and arm["ratio"] is not None]
    if original is None or not dial:
        return None
    return original, min(dial, key=lambda arm: abs(arm["ratio"] - HEADLINE_RATIO))


def summary(results: Mapping[str, Any]) -> str:
    """Two sentences for someone who decides: what it cost and saved, and whether something simpler does as well."""
    pair = headline(results["arms"])
    if pair is None:
        return "This run has no original model beside a TokenSkip model, so nothing can be compared."
    original, arm = pair
    points = 100 * (arm["accuracy"] - original["accuracy"])
    if abs(points) < 0.05:
        change = "the same as"
    else:
        change = f"{abs(points):.1f} points {'fewer' if points < 0 else 'more'} than"
    p_value = arm.get("p_value")
    certain = ""
    if p_value is not None and abs(points) >= 0.05:
        certain = f" (a difference that {'is unlikely to be' if p_value < 0.05 else 'may well be'} chance)"
    first = (
        f"Asked to keep {100 * arm['ratio']:.0f}% of its reasoning, the model wrote {pct(arm['achieved_ratio'], 0)} of "
        f"the tokens and solved {pct(arm['accuracy'])} of {num(arm.get('n_problems') or arm['n'])} problems, "
        f"{change} the {pct(original['accuracy'])} without compression{certain}."
    )
    wins = prompt_wins(results["arms"])
    if wins:
        control, beaten = max(wins, key=lambda win: float(win[0]["accuracy"] - win[1]["accuracy"]))
        return (
            f"{first} But a control that needs no training does better in places: "
            f"{arm_label(control['arm'], control['ratio'])} solved {pct(control['accuracy'])} with "
            f"{num(control['cot_tokens_mean'])} reasoning tokens, where TokenSkip at {beaten['ratio']} solved "
            f"{pct(beaten['accuracy'])} with {num(beaten['cot_tokens_mean'])}."
        )
    cut = next((a for a in results["arms"] if a["arm"] == "truncation" and a["ratio"] == arm["ratio"] and a["n"]), None)
    if cut is None:
        return f"{first} No prompt in this run did better with as few tokens."
    return f"{first} Simply cutting the reasoning off at that length solved {pct(cut['accuracy'])}."


def table_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row an arm, under `TABLE_HEADER`."""
    rows: list[tuple[str, ...]] = []
    for arm in results["arms"]:
        batch = arm.get("latency_batch_size")
        latency = "–" if arm.get("latency_s") is None else f"{1000 * arm['latency_s']:,.0f} ms (batch {batch})"
        rows.append(
            (
                arm["arm"],
                f"{arm['ratio']}" if takes_ratio(arm["arm"], arm["ratio"]) else "–",
                f"{pct(arm['accuracy'])} [{pct(arm['accuracy_low'])}, {pct(arm['accuracy_high'])}]",
                f"{num(arm['cot_tokens_mean'], 1)} / {num(arm['cot_tokens_median'])}",
                num(arm["achieved_ratio"], 3),
                latency,
            )
        )
    return rows


def markdown_table(results: Mapping[str, Any]) -> str:
    """`table_rows` as a Markdown table."""
    lines = [TABLE_HEADER, ("---", "--:", "--:", "--:", "--:", "--:"), *table_rows(results)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def sample_view(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as the page shows it: its ratios ascending, its CoT in segments, and the ratio shown first."""
    ratios = sorted(sample.get("kept_by_ratio") or {}, key=float)
    shown = min(range(len(ratios)), key=lambda k: abs(float(ratios[k]) - HEADLINE_RATIO), default=0)
    return {**sample, "ratios": ratios, "shown": shown, "segments": segments(sample, ratios)}


def segments(sample: Mapping[str, Any], ratios: Sequence[str]) -> list[Segment]:
    """The CoT cut wherever importance or being kept changes; the texts concatenate to the CoT."""
    cot, spans = sample["cot"], sample.get("importance") or []
    masks, values = [0] * len(cot), [-1] * len(cot)
    for bit, ratio in enumerate(ratios):
        for start, end in sample["kept_by_ratio"][ratio]:
            for position in range(max(0, start), min(end, len(cot))):
                masks[position] |= 1 << bit
    for index, (start, end, _) in enumerate(spans):
        for position in range(max(0, start), min(end, len(cot))):
            values[position] = index
    order = sorted(range(len(spans)), key=lambda index: spans[index][2])
    levels = {index: 5 * rank // len(spans) for rank, index in enumerate(order)}
    edges = [i for i in range(len(cot)) if i == 0 or masks[i] != masks[i - 1] or values[i] != values[i - 1]]
    return [
        Segment(cot[i:j], masks[i], spans[values[i]][2] if values[i] >= 0 else None, levels.get(values[i], 0))
        for i, j in pairwise([*edges, len(cot)])
    ]


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
