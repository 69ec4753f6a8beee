"""The pages of docs/ and the README do what they show.

Python blocks are executed, `tokenskip … --dry-run` lines are called, every other `tokenskip` line is read by the
command line's own parser, and YAML recipes are checked as recipes.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from chat_server import ChatServer, serving
from conftest import make_tokenizer
from scripted_runs import write_jsonl

from tokenskip import cli
from tokenskip.config import RunConfig, check_config
from tokenskip.embedded import adapter_path
from tokenskip.prompting.chat_template import add_ratio_control

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = ROOT / "mkdocs.yml"
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
TEXTS = {page: (DOCS / page).read_text(encoding="utf-8") for page in PAGES} | {
    "README.md": (ROOT / "README.md").read_text(encoding="utf-8")
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.partition(" & ")[0] for line in lines if line.startswith("tokenskip ")]


def pages_of(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in pages_of(value)]


LINES = [(page, line) for page in TEXTS for line in commands(page)]
DRY_RUNS = [(page, line) for page, line in LINES if line.rstrip().endswith("--dry-run") and line.split()[1] == "run"]
RECIPES = [
    (page, block)
    for page in TEXTS
    for block in blocks(page, "yaml")
    if set(yaml.safe_load(block)) <= set(RunConfig.model_fields)
]


def test_every_page_is_in_the_site_and_there() -> None:
    assert sorted(pages_of(yaml.safe_load(SITE.read_text(encoding="utf-8"))["nav"])) == PAGES


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "Trajectory" in page, "the docstrings are not in it"


@pytest.mark.parametrize("page", [page for page in TEXTS if blocks(page, "python")])
def test_python_blocks_run(page: str) -> None:
    """The blocks of a page one after the other; a real server and the shipped adapter stand for the user's."""
    made: dict[str, Any] = {"__name__": f"docs.{page}"}
    with serving(ChatServer(add_ratio_control(make_tokenizer()), lambda _: "Yes.", "tokenskip")) as server:
        stands_for = {"http://localhost:8000": server.url, "runs/mine/adapter": str(adapter_path())}
        stands_for["runs/mine/results.json"] = str(ROOT / "docs/results/embedded.json")
        for block in blocks(page, "python"):
            for shown, real in stands_for.items():
                block = block.replace(shown, real)
            exec(compile(block, page, "exec"), made)
    kwargs = [body["chat_template_kwargs"] for body in server.bodies if "reasoning_effort" not in body]
    assert kwargs == [{"compression_ratio": "0.6"}] * ("extra_body" in TEXTS[page])
    words = [body["reasoning_effort"] for body in server.bodies if "reasoning_effort" in body]
    assert words == ["low"] * ('reasoning_effort="low"' in TEXTS[page])


@pytest.mark.parametrize(("page", "line"), DRY_RUNS)
def test_dry_run_lines_work(page: str, line: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(8)]
    for name in ("train.jsonl", "test.jsonl"):
        write_jsonl(tmp_path / name, rows)
    for block in blocks(page, "yaml"):
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    cli.main()
    assert "training problems" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "line"), LINES)
def test_command_lines_can_be_parsed(page: str, line: str) -> None:
    """Unknown commands and options, and missing arguments, raise a usage error."""
    group: Any = typer.main.get_command(cli.app)
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "…"]
    group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize(("page", "block"), RECIPES)
def test_recipes_are_valid(page: str, block: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "runs" / "other" / "adapter").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "adapter" / "adapter_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    check_config(yaml.safe_load(block), page)


def test_there_are_lines_to_try() -> None:
    assert len(DRY_RUNS) >= 7
    assert len(LINES) >= 35
    assert len(RECIPES) >= 4


def test_every_module_of_the_paper_page_and_every_name_of_the_api_page_exists() -> None:
    import importlib.util

    for module in set(re.findall(r"`(tokenskip\.[\w.]+)`", TEXTS["paper.md"])):
        assert importlib.util.find_spec(module) is not None or module == "tokenskip.recipes", module
    for name in re.findall(r"^::: (\S+)$", TEXTS["api.md"], re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        assert name == "tokenskip.errors" or hasattr(importlib.import_module(module), attribute), name
