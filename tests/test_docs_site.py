"""The pages of docs/ do what they show: Python blocks are executed, `tokenskip … --dry-run` lines are called."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_runs import write_jsonl

from tokenskip import cli

DOCS = Path(__file__).resolve().parent.parent / "docs"
SITE = DOCS.parent / "mkdocs.yml"
PAGES = ("index.md", "own-model.md", "own-data.md", "export.md", "method.md", "paper.md", "extend.md", "harnesses.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def dry_runs(page: str) -> list[str]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("tokenskip ") and line.rstrip().endswith("--dry-run")]


def pages_of(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in pages_of(value)]


def test_every_page_is_in_the_site_and_there() -> None:
    nav = pages_of(yaml.safe_load(SITE.read_text(encoding="utf-8"))["nav"])
    assert [page for page in nav if not (DOCS / page).exists()] == []
    assert set(PAGES) < set(nav)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(page: str) -> None:
    made: dict[str, Any] = {"__name__": f"docs.{page}"}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), made)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in dry_runs(page)])
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


def test_there_are_lines_to_try() -> None:
    assert sum(len(dry_runs(page)) for page in PAGES) >= 6


def test_every_module_of_the_paper_page_and_every_name_of_the_api_page_exists() -> None:
    import importlib.util

    for module in set(re.findall(r"`(tokenskip\.[\w.]+)`", (DOCS / "paper.md").read_text(encoding="utf-8"))):
        assert importlib.util.find_spec(module) is not None or module == "tokenskip.recipes", module
    api = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: (\S+)$", api, re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        assert name == "tokenskip.errors" or hasattr(importlib.import_module(module), attribute), name
