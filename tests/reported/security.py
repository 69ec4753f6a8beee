"""Security and reliability: the scripts of `security/`, each run in a folder of its own on a finished small run.

A script prints what happened; the check says whether that is what its first lines expect.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from .common import Case

SERVED = frozenset(("S05", "S12", "S13", "S14", "S15", "S16", "S17", "S18"))
"""Cases that open ports of fixed numbers: never two at a time."""
FINISHED = "TOKENSKIP_FINISHED_RUN"
"""The environment variable with the finished small run of the process that started this one."""
MOVED = {
    "tokenskip.atoms": "tokenskip.pruning.atoms",
    "tokenskip.preview": "tokenskip.commands.preview",
    "tokenskip.distill": "tokenskip.training.distill",
}
"""Modules that the scripts import under names that they had."""


@cache
def finished_run() -> Path:
    """A finished run of ten problems, as `env.sh` makes it, made once."""
    if FINISHED in os.environ:
        return Path(os.environ[FINISHED])
    folder = Path(tempfile.mkdtemp(prefix="finished-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [sys.executable, "-m", "tokenskip", "demo", "--limit", "10", "--out", str(folder / "run")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    os.environ[FINISHED] = str(folder / "run")
    return folder / "run"


def output(script: Path, work: Path) -> str:
    """What a script printed, run in `work`, with the modules' present names."""
    scripts = Path(tempfile.mkdtemp(prefix="scripts-"))
    try:
        shutil.copytree(script.parent, scripts, dirs_exist_ok=True)
        text = script.read_text(encoding="utf-8")
        for old, new in MOVED.items():
            text = text.replace(f"from {old} ", f"from {new} ")
        (scripts / script.name).write_text(text, encoding="utf-8")
        shutil.copytree(finished_run(), work / "run")
        program = Path(sys.executable).with_name("tokenskip")
        environment = {**os.environ, "T": str(program), "P": sys.executable, "W": str(work)}
        environment.pop("TOKENSKIP_TRUST", None)
        command = ["bash", str(scripts / script.name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout
    finally:
        shutil.rmtree(scripts)


def prints(pattern: str) -> Case:
    """The check of a script whose whole output, white space at its ends aside, matches `pattern`."""

    def check(script: Path, work: Path) -> list[str]:
        text = output(script, work).strip()
        return [] if re.fullmatch(pattern, text) else [text[-800:] or "it printed nothing"]

    return check


def adapter_is_whole(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    good = "rc 2" in text and "untouched model" not in text
    return [] if good else [text]


def nothing_of_a_recipe_runs(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    return [] if "dry run rc 2" in text and not (work / "pwned").exists() else [text]


def nothing_of_a_run_runs(script: Path, work: Path) -> list[str]:
    output(script, work)
    return ["the foreign run's code ran"] * (work / "pwned2").exists()


def outputs_spare(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    wanted = ("report: d1/report.html", "data.tmp/x", "mm.tmp/x", "\nq.jsonl.tmp\n", '\n{\n "schema')
    kept = (work / "q.jsonl.tmp").read_text(encoding="utf-8") if (work / "q.jsonl.tmp").exists() else ""
    return [f"not there: {word!r}" for word in wanted if word not in text] + ["q.jsonl.tmp is emptied"] * (not kept)


def half_a_run(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    good = "completes them" in text and "30 part/train.jsonl" in text and "differs" not in text
    return [] if good else [text]


def links(script: Path, work: Path) -> list[str]:
    found = re.findall(r"^(\S+): victim has (\d+) bytes", output(script, work), re.MULTILINE)
    assert len(found) == 4
    return [f"written through {name}" for name, size in found if size != "9"]


def upload_is_listed(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    names = {file.name for file in (work / "up" / "upload").iterdir()}
    good = "id_rsa" not in text.partition("(left out")[0] and not names & {"id_rsa", ".env", ".git"}
    return [] if good else [text]


def key_is_in_no_file(script: Path, work: Path) -> list[str]:
    text = output(script, work).strip()
    return [text or "nothing ran"] if text or not (work / "echo" / "completions.jsonl").exists() else []


def odd_replies(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    codes = dict(re.findall(r"^(\w+) rc (\d+)", text, re.MULTILINE))
    last = (work / "o.txt").read_text(encoding="utf-8")  # the whole of what the script cuts at 150 characters
    good = len(codes) == 7 and set(codes.values()) <= {"0", "2"} and "credit" in last
    return [] if good else [text]


def odd_addresses(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    found = re.findall(r" rc (\d+) (.*)", text)
    good = len(found) == 7 and all(code == "2" or (code == "1" and said.startswith("no: ")) for code, said in found)
    return [] if good else [text]


def drip_ends(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    match = re.search(r"rc (\d+) after (\d+) s", text)
    return [] if match and match[1] == "2" and int(match[2]) < 50 else [text]


def other_pages(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    return [] if len(re.findall(r": 4\d\d ", text)) == 2 and "event_id" not in text else [text]


def stream_is_linear(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    match = re.search(r"'bytes': (\d+)", text)
    return [] if match and int(match[1]) < 5_000_000 and "\n0\n" in text else [text]


def terminal_is_left_alone(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    first, second, third = (int(word) for word in text.split())
    return [] if first == second == 0 and third < 1000 else [text]


def damaged_runs(script: Path, work: Path) -> list[str]:
    """Five damages; the format as text instead of a number may be read (0) or refused (2)."""
    text = output(script, work)
    found = re.findall(r"^rc (\d+) (tokenskip|report): ", text, re.MULTILINE)
    return [] if len(found) == 5 and all(code in "02" for code, _ in found) else [text]


def weights_are_cut(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    found = text.strip().splitlines()
    return [] if len(found) == 3 and all(line.startswith("tokenskip: ") for line in found) else [text]


def greedy_is_greedy(script: Path, work: Path) -> list[str]:
    text = output(script, work).strip()
    return [text] if text or not (work / "g2" / "completions.jsonl").exists() else []


def ray_is_local(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    listening = [line.split()[0] for line in text.split("\n") if "users:" in line]
    return [] if all("127.0.0.1" in address for address in listening) and "rc 130" in text else [text]


def nothing_is_reported(script: Path, work: Path) -> list[str]:
    text = output(script, work).strip()
    return [text or "nothing was trained"] if text or not (work / "tele" / "adapter").exists() else []


def text_is_linear(script: Path, work: Path) -> list[str]:
    """Four series of times, for texts that double: quadratic ones would take four times as long each time."""
    text = output(script, work)
    series = [[float(t) for t in re.findall(r", ([\d.]+)\)", line)] for line in text.splitlines()]
    good = len(series) == 4 and all(len(times) == 3 and times[2] < max(0.5, 3 * times[1]) for times in series)
    return [] if good else [text or "it did not end in 170 s"]


def long_names(script: Path, work: Path) -> list[str]:
    text = output(script, work)
    found = re.findall(r"^rc (\d+) tokenskip: ", text, re.MULTILINE)
    return [] if found == ["2"] * 6 else [text]


def pickles_are_refused(script: Path, work: Path) -> list[str]:
    """The folder with pickled weights was made, and was not loaded."""
    text = output(script, work)
    return [] if "loaded" not in text and (work / "enc" / "pytorch_model.bin").exists() else [text or "not tried"]


CASES: dict[str, Case] = {
    "S02": prints("proj/src/thesis.tex"),
    "S03": adapter_is_whole,
    "S04": prints(r"(?s)(tokenskip: .*)?rc 2 .*"),
    "S05": prints("0"),
    "S06": nothing_of_a_recipe_runs,
    "S07": nothing_of_a_run_runs,
    "S08": outputs_spare,
    "S09": half_a_run,
    "S10": links,
    "S11": upload_is_listed,
    "S12": key_is_in_no_file,
    "S13": odd_replies,
    "S14": odd_addresses,
    "S15": drip_ends,
    "S16": other_pages,
    "S17": stream_is_linear,
    "S18": terminal_is_left_alone,
    "S19": damaged_runs,
    "S20": weights_are_cut,
    "S21": greedy_is_greedy,
    "S22": ray_is_local,
    "S23": nothing_is_reported,
    "S24": text_is_linear,
    "S25": long_names,
    "S26": prints("rc 0"),
    "S27": pickles_are_refused,
    "S28": prints(r"(rc 2 tokenskip: the chat template fails.*\n?){4}"),
}
