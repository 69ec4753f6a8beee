"""The page from synthetic results: everything escaped, nothing fetched, and (with a browser) everything clickable."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tokenskip import metrics, report
from tokenskip.errors import DataError, RunError
from tokenskip.types import Grade, Trajectory

EVIL = '<script>document.title="pwned"</script><img src=x onerror="document.title=1">'
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
            "tokenskip 0.6": {"correct": i % 5 != 0, "n_cot_tokens": 70, "output": "short"},
        }
        problems.append({"id": f"p{i}", "question": f"Problem {i}: {EVIL}", "gold": "10", "level": None, "arms": both})
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
    sample = report.sample_view(make_results()["samples"][0])
    assert "".join(segment.text for segment in sample["segments"]) == COT
    assert sample["ratios"][sample["shown"]] == "0.6"
    bit = sample["ratios"].index("1.0")
    assert all(segment.mask >> bit & 1 for segment in sample["segments"])
    assert {segment.level for segment in sample["segments"]} == {0, 1, 2, 3, 4}


def test_wrapping_keeps_every_character() -> None:
    placed, _ = report._wrap([(COT, True), ("x" * 200, False)], 40, 0)
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


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Drives the page as a person would and leaves what it saw behind in the document.
PROBE = """
<script>
const seen = { errors: window.planted, title: document.title };
const heads = [...document.querySelectorAll("#arms thead button")];
const click = (title) => heads.find((button) => button.textContent === title).click();
const column = (k) => [...document.querySelectorAll("#arms tbody tr")].map((row) => row.cells[k].dataset.v);
click("Accuracy"); seen.ascending = column(2).map(Number);
click("Accuracy"); seen.descending = column(2).map(Number);
click("p"); seen.missing = column(4);
const found = () => document.getElementById("found").textContent;
const set = (id, value, event) => {
  const node = document.getElementById(id); node.value = value; node.dispatchEvent(new Event(event, { bubbles: true }));
};
seen.all = found();
set("flip", "lost", "change"); seen.lost = found();
set("search", "number 5", "input"); seen.search = found();
set("flip", "all", "change"); set("search", "", "input");
document.querySelector("#problems details").open = true;
seen.dots = document.querySelectorAll("#curve .dot").length;
document.querySelector('#legend input[value="truncation"]').click();
seen.fewer = document.querySelectorAll("#curve .dot").length;
const keptPieces = () => document.querySelectorAll(".sample .cot .k").length;
seen.kept = keptPieces(); document.querySelector('.sample input[type="radio"]').click(); seen.keptAtHalf = keptPieces();
seen.radios = document.querySelectorAll('.sample:first-of-type input[type="radio"]:checked').length;
document.querySelector("#curve .dot").dispatchEvent(new Event("focus"));
seen.tip = document.getElementById("tip").textContent;
seen.wide = document.documentElement.scrollWidth > innerWidth;
setTimeout(() => {
  seen.sideBySide = document.querySelectorAll("#problems details[open] article").length;
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify(seen);
  document.body.append(out);
}, 50);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(run_dir: Path, tmp_path: Path, width: int) -> None:
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    listener = "<script>window.planted=[];addEventListener('error',e=>planted.push(e.message));</script>"
    driven = text.replace("<style>", listener + "<style>", 1).replace("</body>", PROBE + "</body>")
    page = tmp_path / "driven.html"
    page.write_text(driven, encoding="utf-8")
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-sync",
        "--enable-logging=stderr",
        "--v=0",
        *quiet,
    ]
    place = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=3000"]
    command = [str(BROWSER), *options, *place, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, "the script on the page stopped early"
    seen = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["errors"] == []
    assert seen["title"] == "embedded – TokenSkip report", "text from data has not run"
    assert seen["ascending"] == sorted(seen["ascending"])
    assert seen["descending"] == seen["ascending"][::-1] or seen["descending"] == sorted(seen["ascending"])[::-1]
    assert seen["missing"][-1] == "", "the original has no p-value and stays last"
    assert seen["all"] == "30 of 30 problems"
    assert seen["lost"] == "5 of 30 problems"
    assert seen["search"] == "1 of 30 problems"
    assert seen["fewer"] == seen["dots"] - 5
    assert seen["keptAtHalf"] < seen["kept"]
    assert seen["radios"] == 1
    assert seen["tip"]
    assert seen["sideBySide"] == 2
    assert not seen["wide"], "no sideways scrolling"
