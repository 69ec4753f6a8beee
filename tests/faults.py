"""Runs every case of a folder of reported faults and says of each whether it comes out as wanted.

    python tests/faults.py ../shared/faults [CASE ...]

A case is a function in the `CASES` of a module of `reported`, by the beginning of its folder's name (`07`), of a
security script (`S01`) or of a row of the folder's README (`R11`). It is given the case's folder and an empty folder to
work in, and returns what is not as wanted, one line each; none: all is. Cases that grade rows (`input.jsonl`,
`want.json`) need no function of their own. Two run at a time. Exits 1 when any case is not as wanted, or has neither
function nor rows.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes that follow

from reported import answers, measuring, pruning, security, settings

CASES = answers.CASES | settings.CASES | pruning.CASES | measuring.CASES | security.CASES
"""The cases that have a function of their own; see the module's text for the names."""
SLOW = security.CASES.keys() | {"22", "24", "26", "27", "28", "29", "30", "32", "33", "R8", "R12", "R16", "R17"}
"""Cases that take some seconds to two minutes each."""


def cases(root: Path) -> dict[str, Path]:
    """Every case's name and folder or script."""
    folders = sorted(path for path in root.iterdir() if re.match(r"\d\d-", path.name) and path.is_dir())
    scripts = sorted(root.glob("security/[0-9][0-9]-*.sh"))
    rows = re.findall(r"^\| (R\d+) \|", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return (
        {path.name[:2]: path for path in folders}
        | {f"S{path.name[:2]}": path for path in scripts}
        | dict.fromkeys(rows, root / "README.md")
    )


def run_case(name: str, path: Path) -> list[str] | None:
    """What is not as wanted; None where the case can only be looked at."""
    function = CASES.get(name) or (answers.graded_rows if (path / "want.json").is_file() else None)
    if function is None:
        return None
    with tempfile.TemporaryDirectory() as work:
        try:
            return function(path, Path(work))
        except Exception as error:  # a case that breaks off is not as wanted, and the others are still tried
            return [f"{type(error).__name__}: {error}"]


def run_all(chosen: dict[str, Path]) -> Iterator[tuple[str, list[str] | None]]:
    """(name, what is not as wanted) of each case as it ends; those that share ports one after the other."""
    if chosen.keys() & security.CASES.keys():
        security.finished_run()
    groups = [[name] for name in chosen if name not in security.SERVED]
    groups[:0] = [[name for name in chosen if name in security.SERVED]]
    with ProcessPoolExecutor(2) as pool:
        running = [pool.submit(run_group, [(name, chosen[name]) for name in group]) for group in groups if group]
        for done in as_completed(running):
            yield from done.result()


def run_group(group: list[tuple[str, Path]]) -> list[tuple[str, list[str] | None]]:
    """`run_case` of each, in order."""
    return [(name, run_case(name, path)) for name, path in group]


def main(root: Path, only: list[str]) -> int:
    """A line a case on stdout; 1 when one is not as wanted."""
    found = {name: path for name, path in cases(root).items() if not only or name in only}
    if unknown := set(only) - found.keys():
        print(f"no such case: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = 0
    for name, faults in run_all(found):
        verdict = "no check yet" if faults is None else "not as wanted" if faults else "as wanted"
        failed += faults is None or bool(faults)
        print(f"{name:>4}  {verdict:14} {'' if name.startswith('R') else found[name].name}", flush=True)
        for fault in faults or ():
            print(f"        {fault}", flush=True)
    print(f"{len(found) - failed} of {len(found)} cases are as wanted")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
