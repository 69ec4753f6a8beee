"""The shape that ARCHITECTURE.md describes, read from the imports: layers, no cycles, small files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tokenskip"
LAYERS = (
    ("errors", "types", "progress", "distributed", "terminal"),
    ("arms", "config", "ratio", "tokens", "jsonl"),
    ("evaluation.schema", "evaluation.stats"),
    ("evaluation.loops", "evaluation.comparisons", "evaluation.spread"),
    ("prompts", "generation.math_verify", "generation.math_verify_worker", "generation.answers"),
    (
        "pruning.equations",
        "pruning.atoms",
        "pruning.chain",
        "pruning.corpus",
        "evaluation.metrics",
        "evaluation.warnings",
        "training.muon",
    ),
    ("client", "embedded", "models", "store", "tracking"),
    ("plugins", "engine"),
    ("backends", "scorers", "tasks"),
    ("run",),
    ("generation", "pruning", "training.train", "training.dataset", "training.distill"),
    ("evaluation", "training", "serving.merge"),
    ("report",),
    ("pipeline", "serving"),
    ("commands", "api", "serving.playground_page"),
    ("cli", "__init__"),
    ("__main__",),
)
"""From the bottom up. A module imports from its own layer and from those below, never from above.

A chapter stands where its stages stand; a part of it that plug-ins or other chapters use stands lower, by its own name.
"""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PLUGINS = ("backends", "scorers", "tasks")
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted(ROOT.rglob("*.py"))
}


def rank(module: str) -> int:
    """The layer of a module: its own, or that of the folder it stands in."""
    return RANK[module if module in RANK else module.split(".")[0]]


def imports(module: str, *, lazy: bool = True) -> Iterator[str]:
    """What a module imports of this package, without the package's name; with `lazy` also inside functions."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "tokenskip":
                path = str(child.module).partition(".")[2]
                for alias in child.names:
                    inner = f"{path}.{alias.name}" if path else alias.name
                    yield inner if inner in MODULES else path
            elif isinstance(child, ast.Import):
                assert not any(alias.name.startswith("tokenskip") for alias in child.names), module
            elif lazy or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from visit(child)

    return visit(MODULES[module])


def test_every_module_has_a_layer() -> None:
    assert {name for name in RANK if name not in MODULES and f"{name}.__init__" not in MODULES} == set()
    assert all(rank(module) >= 0 for module in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = module.split(".")[0]
    for imported in imports(module):
        other = imported.split(".")[0]
        assert rank(imported) <= rank(module), f"{module} imports {imported}, which is above it"
        if own in PLUGINS and other in PLUGINS:
            private_sibling = own == other and imported.split(".")[1].startswith("_")
            assert private_sibling, f"{module} imports {imported}: plug-ins stand alone"


def test_there_is_no_cycle() -> None:
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in sorted(set(imports(module, lazy=False)) & MODULES.keys()):
                walk(imported, (*path, module))
            done.add(module)

    for module in MODULES:
        if module != "__init__":
            walk(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_small_and_documented(module: str) -> None:
    tree = MODULES[module]
    file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            assert node.end_lineno is not None
            assert node.end_lineno - body[0].lineno < 60, f"{module}.{node.name} is longer than 60 lines"


def test_no_model_text_is_ever_executed() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id in ("eval", "exec")), module


def test_light_modules_import_without_torch() -> None:
    light = [
        module for module in MODULES if rank(module) <= RANK["plugins"] and module != "training.muon"
    ]  # an optimiser
    names = [f"tokenskip.{module}".removesuffix(".__init__") for module in light]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
