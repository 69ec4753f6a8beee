"""What a person opens: `report.html` and three pictures, all drawn from the `results.json` of a run folder.

`tokenskip report RUN` reads `RUN/results.json` and writes `report.html` (one file, opens offline, loads nothing),
`curve.png`, `ratio.png` and `example.png`. Text from data is escaped everywhere, control characters are written out,
and numbers that are missing show as "–".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenskip.errors import RunError
from tokenskip.evaluation.comparisons import by_arm, headline, main_arm
from tokenskip.evaluation.schema import ArmResult, Results, load_results
from tokenskip.report.highlight import sample_view
from tokenskip.report.pictures import colours, draw_curve, draw_example, draw_ratio
from tokenskip.report.text import conditions, num, p_value_text, pct, points, signed, summary, tiles
from tokenskip.storage.disk import write_atomically
from tokenskip.terminal import printable

TEMPLATES = Path(__file__).parent / "templates"
MAX_LEVELS = 20
"""Columns of the table of difficulties; data whose levels are no levels would fill the page."""
ON_CHARTS = frozenset(
    (
        "arm",
        "role",
        "ratio",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "cot_tokens_mean",
        "cot_tokens_median",
        "achieved_ratio",
        "achieved_ratio_problem_p10",
        "achieved_ratio_problem_p90",
    )
)
"""The fields of an arm that the charts read."""


def write_report(run_dir: Path) -> Path:
    """The path of the `report.html` just written into `run_dir`, beside its pictures.

    Raises:
        RunError: no `results.json` yet, or a folder that cannot be written.
        DataError: a `results.json` that is not one.
    """
    results = load_results(run_dir)
    target = run_dir / "report.html"
    try:
        draw_curve(results, run_dir / "curve.png")
        draw_ratio(results, run_dir / "ratio.png")
        draw_example(results, run_dir / "example.png")
        write_atomically(target, render_html(results).encode("utf-8", errors="replace"))
    except OSError as error:
        raise RunError(f"{run_dir} cannot be written: {error.strerror or error}") from None
    return target


def render_html(results: Results) -> str:
    """The whole page as one string."""
    import yaml

    names = list(by_arm(results.arms))
    of_method = {arm.arm for arm in results.arms if arm.role == "method"}
    page: str = (
        environment()
        .get_template("report.html")
        .render(
            r=results,
            css=read_templates("report.css"),
            js=read_templates("charts.js", "report.js"),
            data=page_data(results),
            colours=[(index, *pair) for index, pair in enumerate(colours(results.arms).values())],
            names=names,
            summary=summary(results),
            tiles=tiles(results),
            monotone={name: holds for name, holds in results.monotone.items() if name in of_method},
            conditions=conditions(results),
            levels=list(dict.fromkeys(level for arm in results.arms for level in arm.by_level))[:MAX_LEVELS],
            widest=max((step.count for step in results.funnel), default=0) or 1,
            samples=[sample_view(sample) for sample in results.samples],
            config=yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True),
        )
    )
    return page


def environment() -> Any:
    """The templates, with everything escaped that is not marked as markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_without_controls
    )
    found.filters |= {"pct": pct, "num": num, "signed": signed, "points": points, "p_value": p_value_text}
    return found


def _without_controls(value: Any) -> Any:
    """A text from data with its control characters written out; markup and numbers as they are."""
    return printable(value) if type(value) is str else value


def read_templates(*names: str) -> Any:
    """Style sheets or scripts of ours, one after the other, as markup."""
    from markupsafe import Markup

    return Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def page_data(results: Results) -> Any:
    """The JSON that the page's script reads."""
    main, pair = main_arm(results.arms), headline(results.arms)
    return embed(
        {
            "headline": pair[1].label if pair else None,
            "arms": [on_charts(arm, main) for arm in results.arms],
            "problems": [problem.model_dump() for problem in results.problems],
            "words": results.word_levels,
        }
    )


def on_charts(arm: ArmResult, main: str | None) -> dict[str, Any]:
    """What the charts need of an arm; `main` is the name of the one that the page is about."""
    return {**arm.model_dump(include=set(ON_CHARTS)), "label": arm.label, "is_main": arm.arm == main}


def embed(value: Any) -> Any:
    """`value` as JSON that cannot end the `<script>` it is in (no `<`, `>` or `&`), without NaN."""
    from markupsafe import Markup

    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain(value: Any) -> Any:
    """`value` with control characters written out, and None for NaN and infinities, which JSON does not know."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) else value
