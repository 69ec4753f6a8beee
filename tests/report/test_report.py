"""The page from synthetic results: everything escaped, nothing fetched, and (with a browser) everything clickable."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser

from tokenskip.errors import DataError, RunError
from tokenskip.evaluation import metrics
from tokenskip.evaluation.word_importance import word_key, word_levels
from tokenskip.report import page as report
from tokenskip.report import pictures
from tokenskip.report.highlight import sample_view
from tokenskip.types import Grade, Scores, Span, Trajectory

EVIL = '</script><script>document.title="pwned"</script><img src=x onerror="document.title=1">'
COT = (
    "First, let me see what happened.\nStep 1: Tom starts with 12 apples, so he has 12.\n"
    "Step 2: He gives away 5, which means that 12 - 5 = 7 are left.\nStep 3: He buys 3 more, so 7 + 3 = 10."
)
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


def make_arms() -> list[dict[str, Any]]:
    original = rows(0.97, 1.0)
    timings = [{"arm": "tokenskip", "ratio": 0.6, "batch_size": 64, "n": 400, "seconds": 8.0}]
    arms = [("original", 1.0, 0.97, 1.0), ("prompt_be_concise", 1.0, 0.95, 0.94)]
    arms += [("tokenskip", ratio, 0.92 + 0.05 * ratio, ratio + 0.01 * (1 - ratio)) for ratio in RATIOS]
    arms += [("marker_only", 0.6, 0.90, 1.02), ("my_own_arm", 0.6, 0.5, 0.7)]
    arms += [("truncation", ratio, max(0.0, 2.2 * ratio - 1.3), ratio) for ratio in RATIOS[:-1]]
    arms += [("truncation_forced", ratio, ratio - 0.1, ratio) for ratio in RATIOS[:-1]]
    arms += [("random", ratio, 0.4 + 0.5 * ratio, ratio) for ratio in RATIOS[:-1]]
    return [metrics.summarise_arm(n, r, rows(accuracy, share), original, timings) for n, r, accuracy, share in arms]


def make_results() -> dict[str, Any]:
    words = [(match.start(), match.end()) for match in re.finditer(r"\S+\s*", COT)]
    importance = [[start, end, 1.0 + (7 * start) % 11 + 0.25] for start, end in words]
    ranked = sorted(importance, key=lambda span: -span[2])
    kept = {str(r): sorted(span[:2] for span in ranked[: round(r * len(words))]) for r in RATIOS}
    outputs = {
        "original": {"text": COT + " The final answer is 10.", "n_cot_tokens": 64, "correct": True},
        "tokenskip 0.6": {"text": "12 - 5 = 7\n7 + 3 = 10. The final answer is 10." + EVIL, "n_cot_tokens": 38}
        | {"correct": False},
    }
    sample = {"question": "Tom has 12 apples, gives away 5 and buys 3. How many now?", "gold": "10", "cot": COT}
    sample |= {"kept_by_ratio": kept, "importance": importance, "outputs": outputs}
    problems = []
    for i in range(30):
        both = {
            "original": {"correct": i % 7 != 0, "n_cot_tokens": 120 + i, "output": f"{COT} number {i}"},
            "tokenskip 0.6": {"correct": i % 5 != 0, "n_cot_tokens": 70, "output": f"Step 2: 12 - 5 = 7 leaves {EVIL}"},
        }
        problems.append(
            {
                "id": "../../x" if i == 3 else f"p{i}",
                "question": f"Problem {i}: {EVIL}",
                "gold": "10",
                "level": None,
                "arms": both,
            }
        )
    results = {
        "run": "embedded",
        "tokenskip_version": "0.1.0",
        "created": "2026-01-02 03:04 UTC",
        "hardware": {"cpu": "2 cores", "torch": "2.9.0"},
        "config": {"name": "embedded", "model": {"path": EVIL}, "prune": {"ratios": list(RATIOS)}},
        "funnel": [
            {"reason": "generated", "count": 4000},
            {"reason": "incorrect", "count": 130},
            {"reason": "ungradable: no answer", "count": 12},
            {"reason": "rejected by the verifier", "count": 3},
            {"reason": "trained rows", "count": 3855},
        ],
        "arms": make_arms(),
        "samples": [{"id": "a", **sample}, {"id": EVIL, **sample, "question": "Another " + EVIL}],
        "problems": problems,
    }
    results["word_levels"] = {"apples": 4, "0": 3, "first": 0, EVIL: 2}
    return results | {"warnings": [*metrics.warnings(results), f"planted {EVIL}"]}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "results.json").write_text(json.dumps(make_results()), encoding="utf-8")
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
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.loads == []
    assert page.handlers == []
    assert [attributes.get("type") for attributes, _ in page.scripts] == ["application/json", None]
    assert len(page.ids) == len(set(page.ids))
    assert re.findall(r"https?://[^\s\"')<]+", text) == ["http://www.w3.org/2000/svg"], "the SVG namespace, a name only"
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_data_is_escaped_and_the_island_loads(run_dir: Path) -> None:
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "<script>document" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    island = json.loads(Page(text).scripts[0][1])
    assert island["problems"][0]["question"] == f"Problem 0: {EVIL}"
    assert len(island["arms"]) == len(make_arms())
    assert {arm["label"] for arm in island["arms"]} >= {"original", "tokenskip 0.6", "prompt_be_concise"}


def test_everything_promised_is_on_the_page(run_dir: Path) -> None:
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    for words in ("rejected by the verifier", "3,855", "right → wrong", "importance ", "tokenskip run embedded.yaml"):
        assert words in text
    assert "At equal length" in text
    assert "By difficulty" in text
    assert "tokenskip never writes less when more is asked for" in text
    for title in ("Off by", "Middle 80%", "p95 tokens", "One by one", "Per second", "Loops", "Token cap"):
        assert f'<button type="button">{title}</button>' in text
    front = [row for row in metrics.pareto(make_arms()) if row["on_front"]]
    assert text.count('title="on the Pareto front"') == len(front) > 0


def test_the_conditions_of_the_measurement_are_said() -> None:
    results = report.complete(make_results())
    assert report.conditions(results) == (
        "Times are of the configured backend on a server, a sample's share of its batch, warm-up included where there "
        "was one batch only."
    )
    for arm in results["arms"]:
        shrinks = arm["arm"] == "truncation"
        arm |= {"length": "paper" if shrinks else "full", "token_cap": 1024 if shrinks else 2048}
        arm |= {"latency_device": "cpu", "latency_warm": True}
    assert report.conditions(results | {"backend": "hf"}) == (
        "Times are of the hf backend on cpu, a sample's share of its batch, warm-up left out. "
        "The token cap is 2,048; that of truncation shrinks with the ratio."
    )
    assert report.conditions({"arms": []}) == ""


def test_a_dial_that_turns_back_is_flagged_on_the_page() -> None:
    results = report.complete(make_results())
    (six,) = (arm for arm in results["arms"] if arm["arm"] == "tokenskip" and arm["ratio"] == 0.6)
    six["achieved_ratio"] = 0.95
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
    for text in ("{", "[]", '{"arms": [{}]}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(DataError, match=r"results\.json is not a results file"):
            report.write_report(tmp_path)


def test_the_smallest_results(tmp_path: Path) -> None:
    """One arm without rows and no optional key: a page, not a crash. NaN does not break the island."""
    arm = metrics.summarise_arm("original", 1.0, [], []) | {"latency_s": float("nan")}
    (tmp_path / "results.json").write_text(json.dumps({"run": "tiny", "arms": [arm]}))
    text = report.write_report(tmp_path).read_text(encoding="utf-8")
    assert json.loads(Page(text).scripts[0][1])["problems"] == []
    assert "nothing can be compared" in text


def test_segments_are_the_cot() -> None:
    sample = sample_view(make_results()["samples"][0])
    assert "".join(segment.text for segment in sample["segments"]) == COT
    assert sample["ratios"][sample["shown"]] == "0.6"
    bit = sample["ratios"].index("1.0")
    assert all(segment.mask >> bit & 1 for segment in sample["segments"])
    assert {segment.level for segment in sample["segments"]} == {0, 1, 2, 3, 4}


def test_wrapping_keeps_every_character() -> None:
    placed, _ = pictures._wrap([(COT, True), ("x" * 200, False)], 40, 0)
    assert "".join(text for _, _, text, _ in placed) == COT.replace("\n", "") + "x" * 200
    assert all(column + len(text.rstrip()) <= 40 for _, column, text, _ in placed)


def test_the_table() -> None:
    results = make_results()
    lines = report.table_rows(results)
    assert len(lines) == len(results["arms"])
    assert all(len(line) == len(report.TABLE_HEADER) for line in lines)
    assert lines[0] == ("original", "–", "97.0% [94.8%, 98.3%]", "128.5 / 128", "1.000", "–")
    tokenskip = next(line for line in lines if line[:2] == ("tokenskip", "0.6"))
    assert tokenskip[5] == "20 ms (batch 64)"
    assert report.markdown_table(results).count("\n") == len(lines) + 2


def test_the_summary_tells_the_truth() -> None:
    results = make_results()
    assert "points fewer than the 97.0%" in report.summary(results)
    assert "Simply cutting" in report.summary(results)
    prompt = next(arm for arm in results["arms"] if arm["arm"] == "prompt_be_concise")
    prompt |= {"cot_tokens_mean": 40.0}
    assert "needs no training does better" in report.summary(results)
    same = next(arm for arm in results["arms"] if arm["arm"] == "tokenskip" and arm["ratio"] == 0.6)
    same |= {"accuracy": 0.96, "p_value": 0.4}
    assert "may well be chance" in report.summary(results)


def test_the_terminal_table_fits_80_columns() -> None:
    from rich.console import Console

    results = make_results()
    results["arms"][3] |= {"arm": "an_arm_of_the_users_own_with_[bold]a name", "difference": float("nan")}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.terminal_table(results))
    lines = console.export_text().splitlines()
    rows_shown = [line for line in lines if "–" in line]
    assert len(rows_shown) == len(results["arms"]), "one line an arm: nothing folds"
    assert max(map(len, lines)) <= 80
    assert re.search(
        r"original +– +97\.0% +94\.8–98\.3 +– +128\.5 +1\.00", console.export_text(clear=False) or "\n".join(lines)
    )


def test_the_figures_at_the_top() -> None:
    results = make_results()
    shown = {what: (value, note) for what, value, note in report.tiles(results)}
    assert shown["Reasoning tokens"] == ("−40%", "asked for γ = 0.6")
    assert shown["Accuracy, points"] == ("−2.0", "97.0% → 95.0%")
    assert "Time per answer" not in shown, "the original was not timed"
    timed = [
        arm | {"latency_s": 0.04, "latency_batch_size": 64} if arm["arm"] == "original" else arm
        for arm in results["arms"]
    ]
    assert ("Time per answer", "−50%", "40 → 20 ms, batch 64") in report.tiles({"arms": timed})
    assert report.tiles({"arms": timed[1:]}) == []


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
