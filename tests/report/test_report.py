"""The page from synthetic results: everything escaped, nothing fetched, and (with a browser) everything clickable."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from synthetic_results import arm_result, results_of

from tokenskip.arms import ARMS, Arm
from tokenskip.errors import DataError, RunError
from tokenskip.evaluation.metrics import summarise_arm
from tokenskip.evaluation.schema import ArmResult, Results, Sample
from tokenskip.evaluation.word_importance import word_key, word_levels
from tokenskip.report import page as report
from tokenskip.report import pictures, tables, text
from tokenskip.report.highlight import sample_view
from tokenskip.types import Grade, Scores, Span, Trajectory

EVIL = '</script><script>document.title="pwned"</script><img src=x onerror="document.title=1">'
COT = (
    "First, let me see what happened.\nStep 1: Tom starts with 12 apples, so he has 12.\n"
    "Step 2: He gives away 5, which means that 12 - 5 = 7 are left.\nStep 3: He buys 3 more, so 7 + 3 = 10."
)
REJECTED = "rejected by the equation check or for its ratio"
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def rows(accuracy: float, share: float, n: int = 400) -> list[Trajectory]:
    """`n` graded completions; the last ones are wrong."""
    return [
        Trajectory(
            id=f"p{i}",
            question="q",
            gold="10",
            level=str(2 + i % 4),
            output=COT,
            n_cot_tokens=round((100 + i % 60) * share),
            n_tokens=round((100 + i % 60) * share) + 8,
            grade=Grade(correct=i < accuracy * n, reason=""),
        )
        for i in range(n)
    ]


OWN = Arm(name="my_own_arm", weights="random", per_ratio=True, marker=True)


def make_arms() -> list[ArmResult]:
    original = rows(0.97, 1.0)
    timings = [{"arm": "tokenskip", "ratio": 0.6, "batch_size": 64, "n": 400, "seconds": 8.0}]
    arms: list[tuple[Arm, float | None, float, float]] = [
        (ARMS["original"], None, 0.97, 1.0),
        (ARMS["prompt_be_concise"], None, 0.95, 0.94),
    ]
    arms += [(ARMS["tokenskip"], ratio, 0.92 + 0.05 * ratio, ratio + 0.01 * (1 - ratio)) for ratio in RATIOS]
    arms += [(ARMS["marker_only"], 0.6, 0.90, 1.02), (OWN, 0.6, 0.5, 0.7)]
    arms += [(ARMS["truncation"], ratio, max(0.0, 2.2 * ratio - 1.3), ratio) for ratio in RATIOS[:-1]]
    arms += [(ARMS["truncation_forced"], ratio, ratio - 0.1, ratio) for ratio in RATIOS[:-1]]
    arms += [(ARMS["random"], ratio, 0.4 + 0.5 * ratio, ratio) for ratio in RATIOS[:-1]]
    return [summarise_arm(arm, ratio, rows(right, share), original, timings) for arm, ratio, right, share in arms]


def make_sample(question: str) -> Sample:
    words = [(match.start(), match.end()) for match in re.finditer(r"\S+\s*", COT)]
    importance = [(start, end, 1.0 + (7 * start) % 11 + 0.25) for start, end in words]
    ranked = sorted(importance, key=lambda span: -span[2])
    kept = {str(r): tuple(sorted(span[:2] for span in ranked[: round(r * len(words))])) for r in RATIOS}
    return Sample(
        id="a",
        question=question,
        gold="10",
        cot=COT,
        n_chars_left_out=0,
        kept_by_ratio=kept,
        importance=tuple(importance),
    )


def make_results(arms: Sequence[ArmResult] | None = None, **values: Any) -> Results:
    problems = []
    for i in range(30):
        both = {
            "original": {"correct": i % 7 != 0, "n_cot_tokens": 120 + i, "output": f"{COT} number {i}"},
            "tokenskip 0.6": {"correct": i % 5 != 0, "n_cot_tokens": 70, "output": f"Step 2: 12 - 5 = 7 leaves {EVIL}"},
        }
        problem = {"id": "../../x" if i == 3 else f"p{i}", "question": f"Problem {i}: {EVIL}", "gold": "10"}
        problems.append(problem | {"level": None, "arms": both})
    counts = (
        (4000, "generated"),
        (130, "incorrect"),
        (12, "ungradable: no answer"),
        (3, REJECTED),
    )
    filled: dict[str, Any] = {
        "run": "embedded",
        "created": "2026-01-02 03:04 UTC",
        "hardware": {"cpu": "2 cores", "torch": "2.9.0"},
        "config": {"name": "embedded", "model": {"path": EVIL}, "prune": {"ratios": list(RATIOS)}},
        "funnel": tuple({"reason": reason, "count": count} for count, reason in (*counts, (3855, "trained rows"))),
        "samples": (
            make_sample("Tom has 12 apples, gives away 5 and buys 3. How many now?"),
            make_sample("Another " + EVIL),
        ),
        "problems": tuple(problems),
        "word_levels": {"apples": 4, "0": 3, "first": 0, EVIL: 2},
        "warnings": (f"planted {EVIL}",),
    }
    return results_of(make_arms() if arms is None else arms, **filled | values)


def with_arm(name: str, ratio: float | None = None, **change: Any) -> list[ArmResult]:
    """The arms, one of them changed."""
    return [arm.model_copy(update=change) if (arm.arm, arm.ratio) == (name, ratio) else arm for arm in make_arms()]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "results.json").write_text(make_results().to_json(), encoding="utf-8")
    assert report.write_report(folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """What a browser would load and run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.loads += [
            f"link {value}" for value in found.values() if tag in ("link", "iframe", "object", "img") and value
        ]
        self.handlers += [name for name in found if name.startswith("on")]
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.open.append(tag)
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_loads_nothing_and_runs_only_its_own_script(run_dir: Path) -> None:
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.loads == []
    assert page.handlers == []
    assert [attributes.get("type") for attributes, _ in page.scripts] == ["application/json", None]
    assert len(page.ids) == len(set(page.ids))
    assert re.findall(r"https?://[^\s\"')<]+", html) == ["http://www.w3.org/2000/svg"], "the SVG namespace, a name only"
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_data_is_escaped_and_loads(run_dir: Path) -> None:
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "<script>document" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    data = json.loads(Page(html).scripts[0][1])
    assert data["problems"][0]["question"] == f"Problem 0: {EVIL}"
    assert len(data["arms"]) == len(make_arms())
    assert {arm["label"] for arm in data["arms"]} >= {"original", "tokenskip 0.6", "prompt_be_concise"}


def test_everything_promised_is_on_the_page(run_dir: Path) -> None:
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    for words in (
        "rejected by the equation check",
        "3,855",
        "right → wrong",
        "importance ",
        "tokenskip run embedded.yaml",
    ):
        assert words in html
    assert "At equal length" in html
    assert "By difficulty" in html
    assert "tokenskip never writes less when more is asked for" in html
    for title in ("Off by", "Middle 80%", "p95 tokens", "One by one", "Per second", "Loops", "Token cap"):
        assert f'<button type="button">{title}</button>' in html
    front = [row for row in make_results().matched if row.on_front]
    assert html.count('title="on the Pareto front"') == len(front) > 0


def test_the_conditions_of_the_measurement_are_said() -> None:
    assert text.conditions(make_results()) == (
        "Times are of the hf backend on a server, a sample's share of its batch, warm-up included where there was one "
        "batch only."
    )
    arms = []
    for arm in make_arms():
        shrinks = arm.arm == "truncation"
        length = {"length": "paper", "token_cap": 1024} if shrinks else {"length": "full", "token_cap": 2048}
        arms.append(arm.model_copy(update=length | {"latency_device": "cpu", "latency_warm": True}))
    assert text.conditions(make_results(arms)) == (
        "Times are of the hf backend on cpu, a sample's share of its batch, warm-up left out. "
        "The token cap is 2,048; that of truncation shrinks with the ratio."
    )
    assert text.conditions(make_results([])) == ""


def test_a_ratio_that_turns_back_is_flagged_on_the_page() -> None:
    results = make_results(with_arm("tokenskip", 0.6, achieved_ratio=0.95))
    assert "tokenskip is not monotone: it writes less at some higher ratio" in report.render_html(results)


@pytest.mark.parametrize("name", ["curve.png", "ratio.png", "example.png"])
def test_pictures(run_dir: Path, name: str) -> None:
    from matplotlib.image import imread

    pixels = imread(run_dir / name)
    assert pixels.shape[1] > 600
    assert pixels.min() < 0.5 < pixels.max(), "not blank"


def test_no_results_and_broken_results(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="tokenskip evaluate"):
        report.write_report(tmp_path)
    for damaged in ("{", "[]", '{"arms": {}}'):
        (tmp_path / "results.json").write_text(damaged)
        with pytest.raises(DataError, match=r"results\.json is not a results file"):
            report.write_report(tmp_path)


def test_the_smallest_results(tmp_path: Path) -> None:
    """One arm without rows: a page, not a crash."""
    (tmp_path / "results.json").write_text(results_of([arm_result("original", None)]).to_json())
    page = report.write_report(tmp_path).read_text(encoding="utf-8")
    assert json.loads(Page(page).scripts[0][1])["problems"] == []
    assert "nothing can be compared" in page


def test_nothing_that_is_not_json_reaches_the_script() -> None:
    nan, infinite = float("nan"), float("inf")
    assert json.loads(report.embed({"a": [nan, infinite, 1.5], "b": "</script>"})) == {
        "a": [None, None, 1.5],
        "b": "</script>",
    }


def test_segments_are_the_cot() -> None:
    view = sample_view(make_results().samples[0])
    assert "".join(segment.text for segment in view.segments) == COT
    assert view.ratios[view.shown] == "0.6"
    bit = view.ratios.index("1.0")
    assert all(segment.mask >> bit & 1 for segment in view.segments)
    assert {segment.level for segment in view.segments} == {0, 1, 2, 3, 4}


def test_wrapping_keeps_every_character() -> None:
    placed, _ = pictures._wrap([(COT, True), ("x" * 200, False)], 40, 0)
    assert "".join(text for _, _, text, _ in placed) == COT.replace("\n", "") + "x" * 200
    assert all(column + len(text.rstrip()) <= 40 for _, column, text, _ in placed)


def test_the_table() -> None:
    arms = make_arms()
    lines = tables.table_rows(arms)
    assert len(lines) == len(arms)
    assert all(len(line) == len(tables.TABLE_HEADER) for line in lines)
    assert lines[0] == ("original", "–", "97.0% [94.8%, 98.3%]", "128.5 / 128", "1.000", "–")
    tokenskip = next(line for line in lines if line[:2] == ("tokenskip", "0.6"))
    assert tokenskip[5] == "20 ms (batch 64)"
    assert tables.markdown_table(arms).count("\n") == len(lines) + 2


def test_the_summary_tells_the_truth() -> None:
    said = text.summary(make_results())
    assert "points fewer than the 97.0%" in said
    assert "Simply cutting" in said
    prompt = make_results(with_arm("prompt_be_concise", cot_tokens_mean=40.0))
    assert "needs no training does better" in text.summary(prompt)
    same = make_results(with_arm("tokenskip", 0.6, accuracy=0.96, p_value=0.4))
    assert "may well be chance" in text.summary(same)


def test_the_terminal_table_fits_80_columns() -> None:
    from rich.console import Console

    arms = make_arms()
    arms[3] = arms[3].model_copy(update={"arm": "an_arm_of_the_users_own_with_[bold]a name", "difference": None})
    arms[4] = arms[4].model_copy(update={"accuracy_high": 1.0})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.terminal_table(make_results(arms)))
    lines = console.export_text().splitlines()
    rows_shown = [line for line in lines if "–" in line]
    assert len(rows_shown) == len(arms), "one line an arm: nothing folds"
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines if "an_arm" not in line), "no figure is cut short"
    assert re.search(
        r"original +– +97\.0% +94\.8–98\.3 +– +128\.5 +1\.00", console.export_text(clear=False) or "\n".join(lines)
    )


def test_the_figures_at_the_top() -> None:
    shown = {what: (value, note) for what, value, note in text.tiles(make_results())}
    assert shown["Reasoning tokens"] == ("−40%", "asked for γ = 0.6")
    assert shown["Accuracy, points"] == ("−2.0", "97.0% → 95.0%")
    assert "Time per answer" not in shown, "the original was not timed"
    timed = with_arm("original", latency_s=0.04, latency_batch_size=64)
    assert ("Time per answer", "−50%", "40 → 20 ms, batch 64") in text.tiles(make_results(timed))
    assert text.tiles(make_results(timed[1:])) == []


def test_words_have_the_mean_rank_of_their_places() -> None:
    spans = (Span(0, 4, 0.1), Span(5, 7, 9.0), Span(8, 11, 5.0))
    one = Trajectory(id="a", question="", gold="", cot="well 12 are", scores=Scores(scorer="s", spans=spans))
    other = Trajectory(
        id="b", question="", gold="", cot="Well, 7", scores=Scores(scorer="s", spans=(Span(0, 5, 1.0), Span(6, 7, 2.0)))
    )
    levels = word_levels([one, other], ["WELL (345) are unknown", "="])
    assert list(levels) == ["0", "are", "well"], "numbers are one word; unknown words and bare marks have no level"
    assert levels["well"] < levels["are"] < levels["0"]
    assert word_key("(+12.50,") == "0.0"
    assert word_levels([], ["a"]) == {}


CONTROLS = "\x1b[2J\x1b]0;owned\x07 \u202e gnp \x9b31m \r over"


def test_control_characters_are_written_out() -> None:
    """In the page, in what its script reads and in a terminal's table."""
    from rich.console import Console

    problem = {"id": CONTROLS, "question": CONTROLS, "gold": "1", "level": None, "arms": {}}
    results = make_results(problems=(problem,), warnings=(CONTROLS,), run=f"run {CONTROLS}")
    html = report.render_html(results)
    console = Console(width=80, file=io.StringIO())
    console.print(tables.terminal_table(results))
    assert isinstance(console.file, io.StringIO)
    for shown in (html, console.file.getvalue()):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    assert r"\x1b[2J" in html
    assert json.loads(Page(html).scripts[0][1])["problems"][0]["question"].startswith(r"\x1b[2J\x1b]0;owned\x07 \u202e")


def test_no_install_line_that_nobody_can_run(run_dir: Path) -> None:
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "pip install" not in html
    assert "tokenskip run embedded.yaml --out runs/embedded" in html


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, run_dir: Path) -> Iterator[Browser]:
    """The report in a browser; whatever a test does to it, nothing may go wrong in its console."""
    browser.errors.clear()
    browser.open((run_dir / "report.html").as_uri())
    yield browser
    assert browser.errors == []


CLICK = """(title) => [...document.querySelectorAll("#arms thead button")]
  .find((one) => one.textContent === title).click()"""
COLUMN = """(title) => {
  const at = [...document.querySelectorAll("#arms thead button")].findIndex((one) => one.textContent === title);
  return [...document.querySelectorAll("#arms tbody tr")].map((row) => row.cells[at].dataset.v);
}"""
SET = """(id, value) => {
  const node = document.getElementById(id); node.value = value;
  for (const kind of ["input", "change"]) node.dispatchEvent(new Event(kind, { bubbles: true }));
}"""
FOUND = "document.getElementById('found').textContent"


@needs_browser
def test_sorting(page: Browser) -> None:
    before = page.run(f"({COLUMN})('Accuracy')")
    page.run(f"({CLICK})('Accuracy')")
    ascending = [float(value) for value in page.run(f"({COLUMN})('Accuracy')")]
    assert ascending == sorted(map(float, before)) != [float(value) for value in before]
    page.run(f"({CLICK})('Accuracy')")
    assert [float(value) for value in page.run(f"({COLUMN})('Accuracy')")] == ascending[::-1]
    page.run(f"({CLICK})('Verdict')")
    assert page.run(f"({COLUMN})('Verdict')")[-1] == "", "the original has no p-value and stays last"
    page.run(f"({CLICK})('Verdict')")
    assert page.run(f"({COLUMN})('Verdict')")[-1] == ""
    page.run(f"({CLICK})('Arm')")
    names = page.run(f"({COLUMN})('Arm')")
    assert names == sorted(names)
    assert page.run("document.querySelectorAll('th[aria-sort]').length") == 1


@needs_browser
def test_the_problem_browser(page: Browser) -> None:
    assert page.run(FOUND) == "30 of 30 problems"
    count = "document.querySelectorAll('#problems details').length"
    assert page.run(count) == 20
    page.run("document.getElementById('more').click()")
    assert page.run(count) == 30
    assert page.run("document.getElementById('more').hidden")
    page.run(f"({SET})('flip', 'lost')")
    assert page.run(FOUND) == "5 of 30 problems"
    page.run(f"({SET})('search', 'number 5')")
    assert page.run(FOUND) == "1 of 30 problems"
    page.run(f"({SET})('flip', 'all'); ({SET})('search', '../../x')")
    assert page.run(FOUND) == "1 of 30 problems"
    page.run("document.querySelector('#problems details').open = true")
    chains = page.wait_for("[...document.querySelectorAll('#problems .chain')].map((one) => one.textContent)")
    assert chains == [f"{COT} number 3", f"Step 2: 12 - 5 = 7 leaves {EVIL}"], "the texts are whole, and only texts"
    pieces = page.run(
        "[...document.querySelectorAll('#problems .chain span')].map((one) => [one.textContent.trim(), one.className])"
    )
    assert ["12", "k i3"] in pieces, "in both chains, as important as numbers are"
    assert ["apples,", "s"] in pieces, "skipped"
    assert ["leaves", "new"] in pieces, "said anew"
    page.run(f"({SET})('search', 'no such words')")
    assert page.run(FOUND) == "0 of 30 problems"


PROTOTYPE = ("constructor", "toString", "valueOf", "hasOwnProperty", "__proto__")


@needs_browser
def test_words_and_arms_that_every_object_answers_to(browser: Browser, tmp_path: Path) -> None:
    """A chain that says "constructor", in a run that scored that word or not, with an arm of that name."""
    said = f"The constructor said {' '.join(PROTOTYPE)} apples."
    own = Arm(name="constructor", instruction="Build.")
    arms = [*make_arms(), summarise_arm(own, None, rows(0.5, 1.0), rows(0.97, 1.0))]
    outputs = {name: {"correct": None, "n_cot_tokens": 9, "output": said} for name in ("original", "constructor")}
    problem = {"id": "constructor", "question": said, "gold": "10", "level": None, "arms": outputs}
    results = make_results(arms, problems=(problem,), word_levels={"__proto__": 4, "apples": 1})
    (tmp_path / "results.json").write_text(results.to_json(), encoding="utf-8")
    browser.errors.clear()
    browser.open(report.write_report(tmp_path).as_uri())
    assert browser.run("document.getElementById('right').value") == "constructor"
    browser.run("document.querySelector('#problems details').open = true")
    spans = "[...document.querySelectorAll('#problems .chain span')]"
    pieces = f"{spans}.map((one) => [one.textContent.trim(), one.className, one.title])"
    marked = {word: (kind, title) for word, kind, title in browser.wait_for(pieces)}
    assert marked["constructor"] == ("k i2", ""), "not scored: as any unknown word"
    assert marked["__proto__"] == ("k i2", ""), "its key is without the marks around it"
    assert marked["apples."] == ("k i1", "less important")
    assert browser.run("document.querySelectorAll('#problems .bad, #problems .ok').length") > 0
    assert browser.errors == []


@needs_browser
def test_charts_and_samples(page: Browser) -> None:
    dots = "document.querySelectorAll('#curve .dot').length"
    every = page.run(dots)
    assert every == len(make_arms())
    page.run("document.querySelector('#legend input[value=truncation]').click()")
    assert page.run(dots) == every - 5
    page.run("document.querySelector('[data-choose=few]').click()")
    assert page.run(dots) == 1 + len(RATIOS)
    at = page.run(
        "(() => { const dot = document.querySelector('#curve .dot'); dot.scrollIntoView({ block: 'center' });"
        "const b = dot.getBoundingClientRect();"
        "return [b.x + b.width / 2 + 9, b.y + b.height / 2]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    assert "CoT tokens" in page.wait_for(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden")
    kept = "document.querySelectorAll('.sample .cot .k').length"
    before = page.run(kept)
    page.run("document.querySelector('.sample input[type=radio]').click()")
    assert page.run(kept) < before
    assert page.run("document.querySelectorAll('.sample:first-of-type input[type=radio]:checked').length") == 1


@needs_browser
def test_the_keyboard_is_enough(page: Browser) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the results"
    page.run("document.querySelector('#curve .ring').focus()")
    assert "97.0% right" in page.run("document.getElementById('tip').textContent")
    page.run("document.querySelector('#arms thead button').focus()")
    page.press("Tab")
    page.press("Enter")
    assert page.run("document.querySelector('th[aria-sort]').textContent") == "γ"
    page.run("document.querySelector('#problems summary').focus()")
    page.press("Enter")
    assert page.wait_for("document.querySelectorAll('#problems details[open] article').length") == 2
    page.run("document.getElementById('columns').focus()")
    page.press("Space")
    assert page.run("getComputedStyle(document.querySelector('#arms td.more')).display") == "table-cell"


@needs_browser
def test_hostile_text_is_inert(page: Browser) -> None:
    page.run("document.querySelectorAll('#problems details').forEach((one) => { one.open = true; })")
    assert page.wait_for("document.querySelectorAll('#problems article').length") == 40
    assert page.run("document.title") == "embedded – TokenSkip report", "text from data has not run"
    assert page.run("document.querySelectorAll('img, iframe, object, embed, base, link').length") == 0
    assert page.run("document.querySelectorAll('script').length") == 2
    assert EVIL in page.run("document.body.innerText")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_a_phone_and_reads_in_the_dark(
    browser: Browser, run_dir: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.errors.clear()
    browser.open((run_dir / "report.html").as_uri(), width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.wait_for("document.querySelectorAll('#problems article').length")
    assert browser.run("document.documentElement.scrollWidth") == width, "no sideways scrolling"
    assert (
        browser.run("Math.min(...[...document.querySelectorAll('#arms tbody th')].map((one) => one.offsetWidth))") > 90
    )
    assert browser.run(f"({CONTRAST})()") == [], "WCAG AA: 4.5 to 1"
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert browser.errors == []


# [text, ratio] of every piece of text whose contrast with what is painted behind it is below 4.5.
CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const all = "h1, h2, h3, p, li, dt, dd, summary, th button, td, small, .cot span, .chain span, label, pre, .badge";
  for (const node of document.querySelectorAll(all)) {
    if (!node.checkVisibility() || !node.textContent.trim()) continue;
    const below = behind(node), ink = over(parse(getComputedStyle(node).color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([node.textContent.slice(0, 30), node.className, ratio]);
  }
  return found.slice(0, 5);
}"""
