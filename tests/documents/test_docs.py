"""The documents say what is there: every relative link leads to a file, and docs/cli.md is what `--help` prints."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ablations_page
import families_page
import headline
import loop
import paper_page
import pytest
import quantised
import scorers_page
import scoring_page
import seeds
import smollm2_page
import thinking
from pages import RESULTS, fill

from tokenskip.config import TaskConfig, load_recipe
from tokenskip.errors import RunError
from tokenskip.evaluation.schema import load_results
from tokenskip.types import Sampling, Trajectory

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r'<img[^>]+src="([^"]+)"')


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def relative_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = LINK.findall(text) + IMAGE.findall(text)
    return [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    missing = [link for link in relative_links(page) if not (page.parent / link).exists()]
    assert not missing, f"{name} points to files that are not there: {missing}"


def test_the_readme_shows_its_pictures() -> None:
    links = relative_links(ROOT / "README.md")
    assert {"docs/images/curve.png", "docs/images/example.png"} <= set(links)


def test_cli_page_is_current() -> None:
    make_cli = load(ROOT / "docs" / "make_cli.py")
    assert make_cli.TARGET.read_text(encoding="utf-8") == make_cli.document(), "run: python docs/make_cli.py"


def test_the_readme_takes_the_headline_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = "<!-- results:begin -->\n", "<!-- results:end -->\n"
    assert text.count(begin) == text.count(end) == 1
    filled = fill(text, "results", "new\n")
    assert filled == text.partition(begin)[0] + begin + "new\n" + end + text.partition(end)[2]
    with pytest.raises(RunError, match="results:begin"):
        fill("no markers", "results", "section")


@pytest.mark.parametrize(
    "page",
    [
        paper_page,
        ablations_page,
        scorers_page,
        scoring_page,
        loop,
        quantised,
        seeds,
        families_page,
        thinking,
        smollm2_page,
    ],
    ids=lambda page: str(page.__name__),
)
def test_a_page_of_results_is_what_its_script_makes_of_the_numbers(page: ModuleType) -> None:
    name = page.__name__.removesuffix("_page")
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == page.page(results)


def test_the_headline_page_and_the_readme_are_what_the_headline_run_measured() -> None:
    file = RESULTS / "embedded.json"
    results = load_results(file)
    found = [headline.Target(**target) for target in json.loads(file.read_text(encoding="utf-8"))["targets"]]
    assert (RESULTS / "embedded.md").read_text(encoding="utf-8").startswith(headline.page(results, found))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert headline.readme_section(results, found) in readme
    assert seeds.readme_table(json.loads((RESULTS / "seeds.json").read_text(encoding="utf-8"))["rows"]) in readme


def test_the_examples_of_contributing_work() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    made: dict[str, Any] = {"__name__": "examples"}
    for block in blocks:
        assert len(block.splitlines()) < (30 if "Scores" in block else 40)
        exec(block, made)
    problem = next(iter(made["Sums"](TaskConfig()).problems("train", 1)))
    assert made["Sums"](TaskConfig()).grade(problem.gold, problem.gold).correct
    one = Trajectory(id="a", question="", gold="", cot="a longer word")
    [scores] = made["LongWords"](power=2.0).score([one])
    assert [(one.cot[span.start : span.end], span.value) for span in scores.spans] == [
        ("a", 1.0), ("longer", 36.0), ("word", 16.0),
    ]  # fmt: skip
    assert made["OneByOne"](None, None).generate([], Sampling()) == []
    asked: list[Any] = []
    source = made["InNotes"](lambda requests: asked.extend(requests) or [[] for _ in requests], words=9)
    assert source.candidates([one, one]) == [[], []]
    assert [request.instruction for [request] in asked] == ["In notes of at most 9 words, please."] * 2


def test_the_recipe_of_the_readme_is_valid(tmp_path: Path) -> None:
    [recipe] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(recipe, encoding="utf-8")
    config = load_recipe(tmp_path / "mine.yaml", [])
    assert config.task.fields == {"gold": "answer"}
    assert config.prompt.template.endswith("\\boxed{}.\n{question}")


def test_the_lock_has_the_versions_of_the_constraints_and_hashes_of_all() -> None:
    """`make constraints` writes both; torch has other files for the CPU and for each CUDA."""
    constraints = set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^([^#\s]\S*==\S+?)( ; [^\\]+)?((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", lock)
    assert len(entries) == len(re.findall(r"(?m)^[^#\s]", lock))
    versions = {version.lower().replace("_", "-") for version, _, _ in entries}
    expected = {one.lower().replace("_", "-") for one in constraints if not one.startswith("torch==")}
    assert versions == expected
