"""Pruning: no equation, letter, code or table is torn, and no row is trained under a ratio that it does not have."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
from pathlib import Path

import regex

from .common import Case, copy, not_one_line, read_rows, tokenskip


def pruned(folder: Path, work: Path, *ratios: float) -> list[dict[str, object]]:
    """The rows of `tokenskip prune c.jsonl`, cut by random scores."""
    copy(folder, work)
    chosen = [part for ratio in ratios for part in ("--ratio", ratio)]
    options = ["--scorer", "random", "--tokenizer", "embedded", *chosen, "-o", "p.jsonl"]
    done = tokenskip(work, "prune", "c.jsonl", *options)
    assert done.returncode == 0, done.stderr.strip()[-300:]
    return read_rows(work / "p.jsonl")


def false_equations(folder: Path, work: Path) -> list[str]:
    """The folder's own script finds no text that lost its operator and passed."""
    pruned(folder, work, 0.4, 0.6)
    with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path("chk.py")
    lines = printed.getvalue().splitlines()
    assert lines
    return [line for line in lines if "lost and passed: 0," not in line]


def torn_letters(folder: Path, work: Path) -> list[str]:
    """What is kept begins and ends between letters: no mark without its letter, no half flag."""
    faults = []
    chains = {row["id"]: row["cot"] for row in read_rows(folder / "c.jsonl")}
    for row in pruned(folder, work, 0.4, 0.6, 0.8):
        letters = {match.start() for match in regex.finditer(r"\X", chains[row["id"]])} | {len(chains[row["id"]])}
        torn = [edge for span in row["kept"] for edge in span if edge not in letters]  # type: ignore[attr-defined]
        if torn:
            faults.append(f"{row['id']} at {row['ratio']}: torn at {torn}: {row['pruned']}")
    return faults


def whole_blocks(folder: Path, work: Path) -> list[str]:
    """Code and tables are kept or dropped whole, and tags are not torn."""
    blocks = {
        row["id"]: re.findall(
            r"```.*?```|(?:^\|.*\|$\n?)+|(?:^ {4,}.*$\n?)+|</?\w+/?>",
            row["cot"],
            re.DOTALL if "```" in row["cot"] else re.M,
        )
        for row in read_rows(folder / "c.jsonl")
    }
    faults = []
    for row in pruned(folder, work, 0.3, 0.5, 0.7):
        rest = str(row["pruned"])
        for block in blocks[row["id"]]:
            rest = rest.replace(block.strip(), "", 1)
        if re.search(r"[|`<>]|\bdef |for i in|return s|print\(", re.sub(r"`x = 3`", "", rest)):
            faults.append(f"{row['id']} at {row['ratio']}: {row['pruned']!r}")
    return faults


def spoken_equations(path: Path, work: Path) -> list[str]:
    """A phrase in front of an equation is part of it: the bare rest is a new, false equation."""
    from tokenskip.pruning.equations import check_pruned

    torn = [
        ("half of 48 = 24", "48 = 24"), ("25% of 80 = 20", "of 80 = 20"), ("the sum of 3 and 4 = 7", "4 = 7"),
        ("√16 = 4", "16 = 4"), ("twice 6 = 12", "6 = 12"),
    ]  # fmt: skip
    return [
        f"{said!r} -> {rest!r}: whole: {check_pruned(said, said)}, torn: {check_pruned(said, rest)}"
        for said, rest in torn
        if check_pruned(said, said) is not None or check_pruned(said, rest) is None
    ]


def unknowns(path: Path, work: Path) -> list[str]:
    """An x beside a number is an unknown and no sign: nothing is said about the equation's truth."""
    from tokenskip.pruning.equations import equations

    stated = [str(found) for found in equations("2x + 3 = 11") if found.holds is False]
    return [f"taken for false: {text}" for text in stated]


def line_breaks_end_steps(path: Path, work: Path) -> list[str]:
    """`unit: step` cuts at every line break; abbreviations end no step and no sentence of a tail."""
    from tokenskip.config import PromptConfig
    from tokenskip.generation.split import split_completion
    from tokenskip.pruning.atoms import split_units

    faults = []
    for line_break in "\u2028\x0b\x0c":
        text = f"One. Two{line_break}three"
        steps = [text[a:b].strip() for a, b in split_units(text, "step", True)]
        if [step for step in steps if step] != ["One. Two", "three"]:
            faults.append(f"steps {steps}")
    sentences = (
        "So for Mr. Smith and Mrs. Hilt the final answer is 12.", "In St. Louis at 9 a.m. the final answer is 12.",
        "As J. R. Ray says in vol. 3, the final answer is 12.", "With approx. 3.5 kg each, the final answer is 12.",
    )  # fmt: skip
    splits = [split_completion(f"9 + 3 = 12. {sentence}", "stop", PromptConfig()) for sentence in sentences]
    return faults + [f"tail {split.tail!r}" for split in splits if split.cot != "9 + 3 = 12."]


def ratios_that_hold(path: Path, work: Path) -> list[str]:
    """A chain of one unit is not trained under a ratio; a ratio given twice is refused; loops in Chinese are found."""
    from tokenskip.evaluation.loops import has_loop

    (work / "one.jsonl").write_text(json.dumps({"id": "a", "cot": "$x^2 + 3 = 12$"}) + "\n", encoding="utf-8")
    options = ["--scorer", "random", "--tokenizer", "embedded", "--ratio", 0.5, "-o", "p.jsonl"]
    tokenskip(work, "prune", "one.jsonl", *options)
    faults = [f"trained under a ratio: {row}" for row in read_rows(work / "p.jsonl") if not row["rejected"]]
    twice = tokenskip(work, "run", "demo", "--dry-run", "--set", "prune.ratios=[0.5, 0.5]")
    faults += not_one_line(twice, "0.5")
    if not has_loop("首先我们有三个苹果。" + "所以我们再算一次这个结果。" * 20):
        faults.append("a loop in Chinese is not seen")
    return faults


CASES: dict[str, Case] = {
    "28": false_equations,
    "29": torn_letters,
    "30": whole_blocks,
    "R1": spoken_equations,
    "R2": unknowns,
    "R11": line_breaks_end_steps,
    "R12": ratios_that_hold,
}
