"""What the checks of reported faults share: the command, a finished small run, a copy of the embedded model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = Callable[[Path, Path], list[str]]
"""(the case's folder or file, an empty folder to work in) -> what is not as wanted, a line each."""
TESTS = Path(__file__).resolve().parents[1]


def tokenskip(work: Path, *arguments: object, day: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, run in `work`, which it may import plug-ins from; with `day` (2024-07-05), on that day."""
    clock = f"import datetime, tokenskip.run as r; r.today = lambda: datetime.date.fromisoformat({day!r}); "
    code = (clock if day else "") + "from tokenskip.cli import main; main()"
    paths = [str(work), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENSKIP_TRUST": "my_backend",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)


def not_one_line(done: subprocess.CompletedProcess[str], *words: str) -> list[str]:
    """What is wrong with a refusal, which has to be one line with all of `words`, and exit code 2."""
    line = done.stderr.strip()
    if done.returncode == 2 and "\n" not in line and all(word in line for word in words):
        return []
    return [f"wanted exit 2 and one line with {', '.join(words)}; got exit {done.returncode}: {line[-300:]}"]


def copy(folder: Path, work: Path) -> None:
    """The case's files in a folder that may be written."""
    for file in folder.iterdir():
        if file.is_file():
            (work / file.name).write_bytes(file.read_bytes())


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def model_with_template(template: Path, folder: Path) -> Path:
    """The embedded model in `folder`, with another chat template."""
    from tokenskip.embedded import model_path

    shutil.copytree(model_path(), folder)
    shutil.copyfile(template, folder / "chat_template.jinja")
    return folder


def suite(*tests: str) -> Case:
    """The check of a row that tests of this repository make, by their names below tests/."""

    def run(path: Path, work: Path) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
        return [] if done.returncode == 0 else [done.stdout[-2000:] or done.stderr[-2000:]]

    return run
