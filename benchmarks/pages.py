"""What the pages of benchmarks have in common: where they are, of which adapter, tables, a section between markers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenskip.embedded import adapter_path
from tokenskip.errors import RunError
from tokenskip.storage.store import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def shipped() -> str:
    """Eight characters that tell the shipped adapter from others: what was measured of another says nothing now."""
    return hashlib.sha256((adapter_path() / "model.safetensors").read_bytes()).hexdigest()[:8]


def table(header: Sequence[object], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Markdown; the first `left` columns are text, the others numbers."""
    marks = ["---"] * left + ["--:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, marks, *rows)) + "\n"


def fill(text: str, name: str, section: str) -> str:
    """`text` with `section` between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises:
        RunError: the markers are not there, in order.
    """
    first, last = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise RunError(f"the page has no {first.strip()} … {last.strip()} to write between")
    return f"{before}{first}{section}{last}{after}"


def fill_file(file: Path, name: str, section: str) -> None:
    """`fill` on a file."""
    write_atomically(file, fill(file.read_text(encoding="utf-8"), name, section))


def met_or_not(met: bool) -> str:
    """How a page says whether a target was met."""
    return "met" if met else "**not met**"
