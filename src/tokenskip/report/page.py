"""What a person opens: `report.html` and three pictures, all drawn from the `results.json` of a run folder.

`tokenskip report RUN` reads `RUN/results.json` and writes `report.html` (one file, opens offline, loads nothing),
`curve.png`, `ratio.png` and `example.png`. Text from data is escaped everywhere; numbers that are missing show as "–".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenskip.errors import DataError, RunError
from tokenskip.evaluation.metrics import arm_label, monotone, pareto, prompt_wins, summarise_arm, takes_ratio
from tokenskip.report.highlight import HEADLINE_RATIO, sample_view
from tokenskip.report.pictures import colour, draw_curve, draw_example, draw_ratio

TABLE_HEADER = ("arm", "γ", "accuracy", "CoT tokens mean/median", "achieved ratio", "latency")
TEMPLATES = Path(__file__).parent / "templates"
MAX_PROBLEMS = 200
MAX_SAMPLES = 12

Arm = Mapping[str, Any]


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
    blank |= {"about": "", "length": None, "token_cap": None}
    arms = [blank | arm | {key: arm[key] for key in required} for arm in results["arms"]]
    return {**empty, **results, "run": results["run"], "arms": arms}


def render_html(results: Mapping[str, Any]) -> str:
    """The whole page as one string."""
    import yaml

    names = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    page: str = (
        environment()
        .get_template("report.html")
        .render(
            r=results,
            css=read_templates("report.css"),
            js=read_templates("charts.js", "report.js"),
            island=island(results),
            colours=[(index, *colour(name, names)) for index, name in enumerate(names)],
            names=names,
            summary=summary(results),
            tiles=tiles(results),
            label=lambda arm: arm_label(arm["arm"], arm["ratio"]),
            takes_ratio=takes_ratio,
            matched=pareto(results["arms"]),
            monotone=monotone(results["arms"]),
            conditions=conditions(results),
            levels=list(dict.fromkeys(level for arm in results["arms"] for level in arm.get("by_level") or {})),
            widest=max((stage["count"] for stage in results.get("funnel") or []), default=0) or 1,
            samples=[sample_view(sample) for sample in (results.get("samples") or [])[:MAX_SAMPLES]],
            config=yaml.safe_dump(results.get("config") or {}, sort_keys=False, allow_unicode=True),
        )
    )
    return page


def environment() -> Any:
    """The templates, with everything escaped that is not said to be markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    found.filters |= {"pct": pct, "num": num, "signed": signed}
    return found


def read_templates(*names: str) -> Any:
    """Style sheets or scripts of ours, one behind the other, as markup."""
    from markupsafe import Markup

    return Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def island(results: Mapping[str, Any]) -> Any:
    """The JSON that the page's script reads."""
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
    return embed({"arms": arms, "problems": problems, "words": dict(results.get("word_levels") or {})})


def embed(value: Any) -> Any:
    """`value` as JSON that cannot end the `<script>` it stands in (no `<`, `>` or `&`), without NaN."""
    from markupsafe import Markup

    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    """`value` with None for every NaN and infinity, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def pct(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}%"


def num(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}".replace("-", "−")


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
    first = (
        f"Asked to keep {100 * arm['ratio']:.0f}% of its reasoning, the model wrote {pct(arm['achieved_ratio'], 0)} of "
        f"the tokens and solved {pct(arm['accuracy'])} of {num(arm.get('n_problems') or arm['n'])} problems, "
        f"{_change(original, arm)} the {pct(original['accuracy'])} without compression{_certainty(original, arm)}."
    )
    wins = prompt_wins(results["arms"])
    if wins:
        control, beaten = max(wins, key=lambda win: float(win[0]["accuracy"] - win[1]["accuracy"]))
        about = f" ({control['about']})" if control.get("about") else ""
        return (
            f"{first} But something that needs no training does better: {arm_label(control['arm'], control['ratio'])}"
            f"{about} solved {pct(control['accuracy'])} with {num(control['cot_tokens_mean'])} reasoning tokens, where "
            f"TokenSkip at {beaten['ratio']} solved {pct(beaten['accuracy'])} with {num(beaten['cot_tokens_mean'])}."
        )
    cut = next((a for a in results["arms"] if a["arm"] == "truncation" and a["ratio"] == arm["ratio"] and a["n"]), None)
    if cut is None:
        return f"{first} No prompt in this run did better with as few tokens."
    return (
        f"{first} Simply cutting the reasoning off at that share of the room solved {pct(cut['accuracy'])} "
        f"with {num(cut['cot_tokens_mean'])} tokens to TokenSkip's {num(arm['cot_tokens_mean'])}."
    )


def _change(original: Arm, arm: Arm) -> str:
    points = 100 * (arm["accuracy"] - original["accuracy"])
    return "the same as" if abs(points) < 0.05 else f"{abs(points):.1f} points {'fewer' if points < 0 else 'more'} than"


def _certainty(original: Arm, arm: Arm) -> str:
    if arm.get("p_value") is None or abs(arm["accuracy"] - original["accuracy"]) < 0.0005:
        return ""
    return f" (a difference that {'is unlikely to be' if arm['p_value'] < 0.05 else 'may well be'} chance)"


def tiles(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value, note) of the figures at the top: TokenSkip near `HEADLINE_RATIO` beside the original."""
    pair = headline(results["arms"])
    if pair is None:
        return []
    original, arm = pair
    shown = [
        ("Reasoning tokens", signed(100 * (arm["achieved_ratio"] - 1), 0) + "%", f"asked for γ = {arm['ratio']}"),
        (
            "Accuracy, points",
            signed(100 * (arm["accuracy"] - original["accuracy"])),
            f"{pct(original['accuracy'])} → {pct(arm['accuracy'])}",
        ),
    ]
    before, after = original.get("latency_s"), arm.get("latency_s")
    if before and after and original.get("latency_batch_size") == arm.get("latency_batch_size"):
        note = f"{num(1000 * before)} → {num(1000 * after)} ms, batch {arm['latency_batch_size']}"
        shown.append(("Time per answer", signed(100 * (after / before - 1), 0) + "%", note))
    if arm.get("tokens_saved_per_1000") is not None:
        shown.append(("Tokens saved", num(arm["tokens_saved_per_1000"]), "per 1,000 requests"))
    return shown


def conditions(results: Mapping[str, Any]) -> str:
    """What the times were measured on, and how long answers could get: a sentence or two for under the table."""
    said = []
    timed = [arm for arm in results["arms"] if arm.get("latency_s") is not None]
    if timed:
        device = " and ".join(dict.fromkeys(arm["latency_device"] or "a server" for arm in timed))
        warm = all(arm.get("latency_warm") for arm in timed)
        said.append(
            f"Times are of the {results.get('backend') or 'configured'} backend on {device}, a sample's share of its "
            f"batch, {'warm-up left out' if warm else 'warm-up included where there was one batch only'}."
        )
    caps = {arm["token_cap"] for arm in results["arms"] if arm["length"] == "full"}
    if len(caps) == 1:
        shortened = dict.fromkeys(arm["arm"] for arm in results["arms"] if arm["length"] == "paper")
        less = f"; that of {', '.join(shortened)} shrinks with the ratio" if shortened else ""
        said.append(f"The token cap is {caps.pop():,}{less}.")
    return " ".join(said)


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


def terminal_table(results: Mapping[str, Any]) -> Any:
    """The main columns as a rich table that fits 80 columns; an arm's name stands once, above its ratios."""
    from rich.table import Table

    size = next((arm.get("n_problems") or arm["n"] for arm in results["arms"]), 0)
    table = Table(title=f"{results['run']}: {num(size)} problems", box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True, max_width=20)
    for title in ("γ", "right", "95% interval", "vs original", "CoT tokens", "achieved", "ms"):
        table.add_column(title, justify="right")
    previous = None
    for arm in results["arms"]:
        interval = f"{num(_hundred(arm['accuracy_low']), 1)}–{num(_hundred(arm['accuracy_high']), 1)}"
        sure = arm.get("p_value") is not None and arm["p_value"] < 0.05
        table.add_row(
            _plain("" if arm["arm"] == previous else arm["arm"]),
            f"{arm['ratio']}" if takes_ratio(arm["arm"], arm["ratio"]) else "–",
            pct(arm["accuracy"]),
            interval,
            signed(_hundred(arm.get("difference"))) + ("*" if sure else " "),
            num(arm["cot_tokens_mean"], 1),
            num(arm["achieved_ratio"], 2),
            "–" if arm.get("latency_s") is None else num(1000 * arm["latency_s"]),
        )
        previous = arm["arm"]
    table.caption = "* p < 0.05 against the original (exact McNemar); ms a sample at the largest batch"
    table.caption_justify = "left"
    return table


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # brackets in a name are no markup


def markdown_table(results: Mapping[str, Any]) -> str:
    """`table_rows` as a Markdown table."""
    lines = [TABLE_HEADER, ("---", "--:", "--:", "--:", "--:", "--:"), *table_rows(results)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
