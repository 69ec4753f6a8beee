"""The shape of the package, measured from its sources: layers, circles, sizes, shares.
python tools/house.py            # prints the measures; exits 1 where a limit is broken
python tools/house.py --write    # and puts the limits into ARCHITECTURE.md
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "tokenskip"
PAGE = REPOSITORY / "ARCHITECTURE.md"

LAYERS = (
    ("errors", "types", "progress", "distributed", "models.hardware", "terminal", "prompting.bounded", "sentences"),
    ("storage.disk",),
    (
        *("arms", "config", "ratio", "recipes", "prompting.arguments", "prompting.effort", "prompting.terse", "tokens"),
        *("storage.jsonl", "trust", "candidates.settings", "training.settings"),
    ),
    ("prompting", "prompting.chat_template", "prompting.prompts", "evaluation.stats"),
    ("answers",),
    (
        *("pruning.arithmetic", "pruning.vocabulary", "pruning.notation", "pruning.equations", "pruning.lexemes"),
        *("pruning.expressions", "pruning.statements", "pruning.atoms", "pruning.chain", "pruning.corpus"),
        *("evaluation.schema", "training.muon"),
    ),
    ("evaluation.comparisons", "evaluation.loops", "evaluation.spread"),
    ("evaluation.metrics", "evaluation.warnings"),
    ("storage", "storage.layout"),
    ("client", "embedded", "models", "models.loading", "storage.store", "tracking", "models.weights"),
    ("plugins", "engine", "training.check", "storage.outputs"),
    ("backends", "scorers", "sources", "tasks"),
    ("run",),
    (
        "generation",
        "pruning",
        "training.train",
        "training.trainer",
        "training.average",
        "training.loss",
        "training.lora",
        "training.dataset",
        "training.distill",
    ),
    ("candidates",),
    ("evaluation", "training", "serving.merge"),
    ("report",),
    ("pipeline", "serving"),
    ("commands", "api", "serving.playground_page"),
    ("baselines",),
    ("cli", "__init__"),
    ("__main__",),
)
"""From the bottom up. A module imports from its own layer and from those below, never from above.

A chapter is listed where its stages are; a part of it that plug-ins or other chapters use is listed lower, by its name.
"""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PLUGINS = ("backends", "scorers", "sources", "tasks")
MAX_TOP_MODULES = 25
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Module:
    """One source file: its name without the package's, its text and its syntax tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def chapter(self) -> str:
        """The folder that the module stands in; `(top)` for the package's own."""
        return self.name.split(".")[0] if "." in self.name else "(top)"

    @property
    def rank(self) -> int:
        """The layer of the module: its own entry, or that of its folder."""
        return rank_of(self.name)

    def lines(self) -> int:
        """Lines of the file, blank ones included."""
        return len(self.text.splitlines())


def rank_of(name: str) -> int:
    """The layer of a module or of a package.

    Raises:
        KeyError: no layer names it.
    """
    return RANK[name if name in RANK else name.split(".")[0]]


@cache
def modules() -> dict[str, Module]:
    """Name -> module, of every source file of the package."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        text = file.read_text(encoding="utf-8")
        found[name] = Module(name, text, ast.parse(text))
    return found


def imports(module: Module, *, lazy: bool = True) -> Iterator[str]:
    """What a module imports of the package, without the package's name; with `lazy` also inside functions."""
    known = modules()

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "tokenskip":
                path = str(child.module).partition(".")[2]
                for alias in child.names:
                    inner = f"{path}.{alias.name}" if path else alias.name
                    package = f"{path}.__init__" if path else "__init__"
                    yield inner if inner in known else path if path in known else package
            elif lazy or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from visit(child)

    return visit(module.tree)


def upward_imports() -> list[str]:
    """Every import from a layer above, and every plug-in that imports another."""
    found = []
    for module in modules().values():
        for imported in imports(module):
            if module.name == "__init__" or imported == "__init__":  # the public names, imported when asked for
                continue
            if rank_of(imported) > module.rank:
                found.append(f"{module.name} imports {imported}, which is above it")
            own, other = module.chapter, imported.split(".")[0]
            private_sibling = own == other and imported.split(".")[-1].startswith("_")
            if own in PLUGINS and other in PLUGINS and not private_sibling:
                found.append(f"{module.name} imports {imported}: plug-ins are independent of each other")
    return found


def circles() -> list[str]:
    """Every circle of imports, those inside functions included, as `a -> b -> a`; each once."""
    graph = {
        module.name: sorted(set(imports(module)) & modules().keys() - {"__init__"}) for module in modules().values()
    }
    found: dict[frozenset[str], str] = {}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = path[path.index(name) :]
            found.setdefault(frozenset(circle), " -> ".join((*circle, name)))
            return
        if name in done:
            return
        for imported in graph[name]:
            walk(imported, (*path, name))
        done.add(name)

    for name in graph:
        if name != "__init__":  # its lazy table names the public parts, which import nothing of it
            walk(name, ())
    return list(found.values())


def function_lengths() -> list[tuple[int, str]]:
    """(lines without the docstring, name) of every function, shortest first."""
    lengths = []
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                documented = ast.get_docstring(node) and len(node.body) > 1
                first = node.body[1].lineno if documented else node.lineno
                lengths.append(((node.end_lineno or first) - first + 1, f"{module.name}.{node.name}"))
    return sorted(lengths)


def prose_lines(module: Module) -> tuple[int, int, int]:
    """(docstring lines, comment lines, lines that are not blank) of a module.

    A string under a field or a constant counts as its docstring.
    """
    docstrings = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = module.text.splitlines()
    comments = sum(
        token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
    )
    n_docstring = sum(1 for number in docstrings if lines[number - 1].strip())
    return n_docstring, comments, sum(1 for line in lines if line.strip())


def limits() -> list[tuple[str, str]]:
    """(name, value) of what has a limit; ARCHITECTURE.md quotes these, which an ordinary change leaves alone."""
    return [
        ("modules directly in the package", f"{len(top_modules())} (at most {MAX_TOP_MODULES})"),
        (f"files over {MAX_FILE_LINES} lines", f"{sum(m.lines() > MAX_FILE_LINES for m in modules().values())}"),
        (f"functions over {MAX_FUNCTION_LINES} lines", f"{sum(n > MAX_FUNCTION_LINES for n, _ in function_lengths())}"),
        ("import circles, lazy ones included", f"{len(circles())}"),
        ("upward imports", f"{len(upward_imports())}"),
    ]


def sizes() -> list[tuple[str, str]]:
    """(name, value) of what has none: lines of files, functions and chapters, and the share of prose."""
    known = modules().values()
    lengths = [length for length, _ in function_lengths()]
    docstrings, comments, inked = (sum(column) for column in zip(*map(prose_lines, known), strict=True))
    quantiles = statistics.quantiles(lengths, n=10)
    files = [module.lines() for module in known]
    by_chapter: dict[str, list[int]] = {}
    for module in known:
        by_chapter.setdefault(module.chapter, []).append(module.lines())
    return [
        ("modules, lines", f"{len(files)}, {sum(files):,}"),
        ("lines of a file: median, longest", f"{statistics.median(files):.0f}, {max(files)}"),
        ("lines of a function: half, 90%, longest", f"{quantiles[4]:.0f}, {quantiles[8]:.0f}, {lengths[-1]}"),
        ("docstrings, comments", f"{docstrings / inked:.0%}, {comments / inked:.0%} of lines that are not blank"),
        *(
            (f"lines in `{chapter}`", f"{sum(lines):,} in {len(lines)} files")
            for chapter, lines in sorted(by_chapter.items())
        ),
    ]


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of names and values."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def top_modules() -> list[str]:
    """Modules directly in the package."""
    return [module.name for module in modules().values() if "." not in module.name]


def broken_limits() -> list[str]:
    """A line for every limit that the package breaks."""
    found = upward_imports() + [f"import circle: {circle}" for circle in circles()]
    if len(top_modules()) > MAX_TOP_MODULES:
        found.append(f"{len(top_modules())} modules directly in the package, at most {MAX_TOP_MODULES} are allowed")
    found += [
        f"{module.name} has {module.lines()} lines, at most {MAX_FILE_LINES} are allowed"
        for module in modules().values()
        if module.lines() > MAX_FILE_LINES
    ]
    found += [
        f"{name} has {length} lines, at most {MAX_FUNCTION_LINES} are allowed"
        for length, name in function_lengths()
        if length > MAX_FUNCTION_LINES
    ]
    return found


def quoted(page: str) -> str:
    """`page` with the limits between its `house` markers."""
    before, begin, rest = page.partition("<!-- house:begin -->\n")
    _, end, after = rest.partition("<!-- house:end -->")
    return f"{before}{begin}{table(limits())}\n{end}{after}"


def main() -> None:
    """Print the measures; exit with 1 and a line for every broken limit."""
    parser = argparse.ArgumentParser(description="The shape of the package, measured from its sources.")
    parser.add_argument("--write", action="store_true", help="put the limits into ARCHITECTURE.md")
    if parser.parse_args().write:
        PAGE.write_text(quoted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(table([*limits(), *sizes()]))
    broken = broken_limits()
    for line in broken:
        print(line, file=sys.stderr)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
