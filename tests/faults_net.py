"""Outcomes of the security cases on the network and the terminal: NAME -> function(folder with the cases) -> held.

    python tests/faults_net.py FOLDER        # FOLDER holds security/NN-*.sh; each runs in a scratch folder of its own

A script prints what happened; the function here says whether that is what its first lines expect.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

FINISHED: list[Path] = []
"""The small run that the first case has made, for the others."""


def output(folder: Path, number: str) -> tuple[str, Path]:
    """What the script of a case printed, and the scratch folder it worked in."""
    [script] = (folder / "security").glob(f"{number}-*.sh")
    scratch = Path(tempfile.mkdtemp(prefix=f"case-{number}-"))
    if FINISHED:
        shutil.copytree(FINISHED[0], scratch / "run")
    program = Path(sys.executable).with_name("tokenskip")
    environment = {**os.environ, "T": str(program), "P": sys.executable, "W": str(scratch)}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    if not FINISHED and (scratch / "run" / "report.html").exists():
        FINISHED.append(scratch / "run")
    return done.stdout, scratch


def lines(folder: Path, number: str) -> list[str]:
    return output(folder, number)[0].split("\n")[:-1]


def push_keeps(folder: Path) -> bool:
    return output(folder, "02")[0].strip() == "proj/src/thesis.tex"


def key_stays(folder: Path) -> bool:
    return output(folder, "05")[0].strip() == "0"


def upload_is_listed(folder: Path) -> bool:
    text, scratch = output(folder, "11")
    names = {one.name for one in (scratch / "up" / "upload").iterdir()}
    return "id_rsa" not in text.partition("(left out")[0] and not names & {"id_rsa", ".env", ".git"}


def key_is_in_no_file(folder: Path) -> bool:
    text, scratch = output(folder, "12")
    return not text.strip() and (scratch / "echo" / "completions.jsonl").exists()


def odd_replies(folder: Path) -> bool:
    text = output(folder, "13")[0]
    codes = dict(re.findall(r"^(\w+) rc (\d+)", text, re.MULTILINE))
    return len(codes) == 7 and set(codes.values()) <= {"0", "2"} and "credit" in text.replace("\\x1b", "")


def odd_addresses(folder: Path) -> bool:
    text = output(folder, "14")[0]
    found = re.findall(r" rc (\d+) (.*)", text)
    return len(found) == 7 and all(code == "2" or (code == "1" and said.startswith("no: ")) for code, said in found)


def drip_ends(folder: Path) -> bool:
    match = re.search(r"rc (\d+) after (\d+) s", output(folder, "15")[0])
    return match is not None and match.group(1) == "2" and int(match.group(2)) < 50


def other_pages(folder: Path) -> bool:
    text = output(folder, "16")[0]
    return len(re.findall(r": 4\d\d ", text)) == 2 and "event_id" not in text


def stream_is_linear(folder: Path) -> bool:
    text = output(folder, "17")[0]
    match = re.search(r"'bytes': (\d+)", text)
    return match is not None and int(match.group(1)) < 5_000_000 and "\n0\n" in text


def terminal_is_left_alone(folder: Path) -> bool:
    first, second, third = (int(word) for word in output(folder, "18")[0].split())
    return first == second == 0 and third < 1000


def ray_is_local(folder: Path) -> bool:
    text = output(folder, "22")[0]
    listening = [line.split()[0] for line in text.split("\n") if "users:" in line]
    return all("127.0.0.1" in one for one in listening) and "rc 130" in text


def nothing_is_reported(folder: Path) -> bool:
    text, scratch = output(folder, "23")
    return not text.strip() and (scratch / "tele" / "adapter").exists()


def encodings(folder: Path) -> bool:
    return output(folder, "26")[0].strip() == "rc 0"


def template_bombs(folder: Path) -> bool:
    found = lines(folder, "28")
    return len(found) == 4 and all(re.match(r"rc 2 tokenskip: the chat template fails", line) for line in found)


CASES: dict[str, Callable[[Path], bool]] = {
    "02-push-deletes-folder": push_keeps,
    "05-key-on-redirect": key_stays,
    "11-push-uploads-what-lies-there": upload_is_listed,
    "12-key-in-public-files": key_is_in_no_file,
    "13-odd-replies": odd_replies,
    "14-server-ask": odd_addresses,
    "15-drip": drip_ends,
    "16-playground-other-pages": other_pages,
    "17-playground-stream": stream_is_linear,
    "18-terminal-escapes": terminal_is_left_alone,
    "22-ray": ray_is_local,
    "23-telemetry": nothing_is_reported,
    "26-output-encoding": encodings,
    "28-template-bombs": template_bombs,
}


if __name__ == "__main__":
    chosen = sys.argv[2:] or list(CASES)
    results = []
    for name in chosen:
        results.append(CASES[name](Path(sys.argv[1])))
        print(f"{'ok  ' if results[-1] else 'FAIL'} {name}", flush=True)
    sys.exit(not all(results))
