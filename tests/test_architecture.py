"""The shape that ARCHITECTURE.md describes, as tools/house.py measures it; and what the sources must never do."""

from __future__ import annotations

import ast
import subprocess
import sys

import house
import pytest

MODULES = house.modules()


def test_every_module_has_a_layer() -> None:
    packages = {module.chapter for module in MODULES.values()}
    assert not [name for name in house.RANK if name not in MODULES and name not in packages], "layers of no module"
    assert all(module.rank >= 0 for module in MODULES.values())


def test_no_limit_of_the_house_is_broken() -> None:
    assert house.broken_limits() == []


def test_the_page_quotes_the_table_of_today() -> None:
    page = house.PAGE.read_text(encoding="utf-8")
    assert page == house.quoted(page), "run: python tools/house.py --write"


def test_upward_imports_and_circles_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, text: str) -> house.Module:
        return house.Module(name, text, ast.parse(text))

    sources = {
        "errors": module("errors", "def f():\n    from tokenskip.config import x\n"),
        "config": module("config", "from tokenskip.errors import y\n"),
        "scorers.a": module("scorers.a", "from tokenskip.scorers.b import z\n"),
        "scorers.b": module("scorers.b", ""),
    }
    monkeypatch.setattr(house, "modules", lambda: sources)
    assert house.circles() == ["errors -> config -> errors"]
    assert len(house.upward_imports()) == 2


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(MODULES[name].tree)


def test_no_model_text_is_ever_executed() -> None:
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id in ("eval", "exec")), module.name


def test_light_modules_import_without_torch() -> None:
    limit = house.RANK["plugins"]
    light = [module.name for module in MODULES.values() if module.rank <= limit]
    light.remove("training.muon")  # an optimiser is a class of torch's
    names = [f"tokenskip.{name}".removesuffix(".__init__") for name in light]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
