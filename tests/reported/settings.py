"""Settings and prompts: what is refused before anything runs, and prompts that are the same everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from .common import TESTS, Case, copy, model_with_template, not_one_line, read_rows, tokenskip


def train_settings(folder: Path, work: Path) -> list[str]:
    """Each wrong setting ends both a dry run and a run at once."""
    wrong = [
        ("train.scheduler=cosinee", "cosine"),
        ("train.target_modules=[foo]", "foo"),
        ("train.target_modules=q_proj", "[q_proj]"),
        ("train.target_modules=['.*q_proj']", "no module"),
        ("train.target_modules=[q_proj,lm_head]", "head"),
        ("train.trainer={max_seq_length: 512}", "train.max_length"),
        ("train.trainer={max_step: 3}", "max_steps"),
        ("train.trainer={optim: nonsense}", "nonsense"),
        ("train.trainer={packing: true}", "packing"),
        ("train.trainer={eval_strategy: steps}", "eval_strategy"),
    ]
    faults = []
    for k, (setting, word) in enumerate(wrong):
        commands = (["run", folder / "l.yaml", "--dry-run"], ["generate", "base", "--recipe", folder / "l.yaml"])
        command = commands[k % 2]  # both ask the same function: every second one halves the time
        faults += not_one_line(tokenskip(work, *command, "--set", setting), word)
    return faults + ["a run folder was made"] * (work / "base").exists()


def tied_embeddings(folder: Path, work: Path) -> list[str]:
    """An adapter on embeddings that are tied to the head is refused before anything runs."""
    settings = ("train.method=lora", "train.optimizer=adamw", "train.target_modules=[embed_tokens]")
    chosen = [part for setting in settings for part in ("--set", setting)]
    return not_one_line(tokenskip(work, "generate", "run", "--recipe", "embedded", *chosen), "tied to its head")


def template_kwargs(folder: Path, work: Path) -> list[str]:
    """A server, the training rows and our own prompts get the same template arguments."""
    copy(folder, work)
    model_with_template(folder / "chat_template.jinja", work / "m")
    server = subprocess.Popen([sys.executable, str(folder / "server.py")], cwd=work)
    try:
        time.sleep(2)
        faults = not_one_line(tokenskip(work, "generate", "run", "--recipe", "r.yaml"), "prompt.template_kwargs")
        settings = [
            "generate.options={url: 'http://127.0.0.1:8977', served: m}",
            "prompt.template_kwargs={enable_thinking: false}",
        ]
        chosen = [part for setting in settings for part in ("--set", setting)]
        for stage in ("generate", "grade", "score", "prune"):
            first = ["--recipe", "r.yaml", *chosen] if stage == "generate" else []
            done = tokenskip(work, stage, "run", *first)
            if done.returncode:
                return [*faults, f"{stage}: {done.stderr.strip()[-300:]}"]
    finally:
        server.terminate()
        server.wait()
    sent = [body["chat_template_kwargs"] for body in read_rows(work / "bodies.jsonl")]
    trained = [row["chat_template_kwargs"] for row in read_rows(work / "run" / "train.jsonl")]
    if not sent or any(kwargs != {"enable_thinking": False} for kwargs in sent):
        faults.append(f"sent: {sent}")
    if not trained or any(kwargs.get("enable_thinking") is not False for kwargs in trained):
        faults.append(f"trained on: {trained}")
    return faults


def dated_template(folder: Path, work: Path) -> list[str]:
    """A run that is continued on another day, and its saved template, show the day it was started."""
    from transformers import AutoTokenizer

    from tokenskip.config import check_config
    from tokenskip.models.loading import load_tokenizer
    from tokenskip.prompting.prompts import Prompts

    copy(folder, work)
    model_with_template(folder / "chat_template.jinja", work / "md")
    limits = ["--set", "task.train_limit=2", "--set", "score.scorer=random"]
    tokenskip(work, "generate", "run", "--recipe", "d.yaml", *limits, day="2024-07-05")
    later = tokenskip(work, "run", "d.yaml", *limits, "-o", "run", "--dry-run")
    again = tokenskip(work, "grade", "run", day="2024-08-09")
    manifest = json.loads((work / "run" / "config.json").read_text())
    config = check_config({**manifest["config"], "model": {"path": str(work / "md")}}, "case 33")
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    prompts.save_tokenizer(work / "saved", config.prune.ratios)
    saved = AutoTokenizer.from_pretrained(work / "saved")
    served = saved.apply_chat_template(list(prompts.messages("How many?")), tokenize=False)
    held = {
        "the run's date is that of its start": manifest["config"]["prompt"]["date"] == "2024-07-05",
        "it can be continued": again.returncode == 0,
        "a dry run says that the template shows the date": "shows the date" in later.stdout,
        "the saved template shows the run's date": "Today Date: 05 Jul 2024 00:00:00" in served,
    }
    return [f"not so: {claim}" for claim, holds in held.items() if not holds]


def declared_ranges(path: Path, work: Path) -> list[str]:
    """transformers 5.2 is the first with `train_sampling_strategy`, which two recipes set."""
    text = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    lows = re.findall(r'transformers[^"]*>=([\d.]+)', text)
    return [f"transformers>={low}" for low in lows if tuple(map(int, low.split("."))) < (5, 2)] or ["none"] * (not lows)


def decoding_alike(path: Path, work: Path) -> list[str]:
    """The thinking recipes decode alike in both stages, and a dry run warns of one that does not."""
    from tokenskip.config import load_recipe
    from tokenskip.recipes import find_recipe

    configs = [load_recipe(find_recipe(name)) for name in ("qwen3-8b-thinking", "r1-distill-qwen-7b")]
    faults = [
        f"{config.name}: generate and evaluate decode differently"
        for config in configs
        if (config.generate.temperature, config.generate.top_p) != (config.evaluate.temperature, config.evaluate.top_p)
    ]
    shown = tokenskip(work, "run", "demo", "--dry-run", "--set", "generate.temperature=0.6").stdout
    return faults + ["a dry run does not warn"] * ("decodes greedily" not in shown)


def preview_row(path: Path, work: Path) -> list[str]:
    """The ending of a previewed row is that of a row that is trained on."""
    shown = tokenskip(work, "run", "demo", "--dry-run", "--set", "prompt.answer=boxed", "--limit", 5).stdout
    flat = "".join(line.strip("│ ") for line in shown.splitlines())
    good = re.search(r"\\boxed\{\d+\}\.?<", flat) and "\\boxed{ " not in flat
    return [] if good else [flat[-400:]]


def plain_progress(path: Path, work: Path) -> list[str]:
    """A stage without a terminal writes a line at regular times, and one at its end."""
    from tokenskip.progress import Lines

    lines: list[str] = []
    with Lines(lines.append, every_s=0.05).stage("score", 4) as advance:
        time.sleep(0.3)
        advance(4)
    good = len(lines) >= 3 and lines[0].startswith("score: 0 of 4") and lines[-1].startswith("score: done, 4 in")
    return [] if good else [repr(lines)]


def untrained_ratio(path: Path, work: Path) -> list[str]:
    """The saved template prompts an untrained ratio as the nearest trained one, or refuses it."""
    from tokenskip.config import ModelConfig, PromptConfig
    from tokenskip.errors import ModelError
    from tokenskip.models.loading import load_tokenizer
    from tokenskip.prompting.prompts import Prompts

    endings: dict[str, str] = {}
    delimiter = ""
    for untrained in ("nearest", "refuse"):
        prompts = Prompts(load_tokenizer(ModelConfig()), PromptConfig(untrained=untrained))
        prompts.save_tokenizer(work / untrained, (0.6, 0.8, 1.0))
        served, delimiter = prompts.served_by(work / untrained), prompts.delimiter
        try:
            endings[untrained] = served.text(served.messages("How many?"), 0.5)
        except ModelError as error:
            endings[untrained] = str(error)
    good = f"{delimiter}0.6{delimiter}" in endings["nearest"] and "ask for one of 0.6, 0.8, 1.0" in endings["refuse"]
    return [] if good else [repr(endings)]


def arms_that_cannot_be(path: Path, work: Path) -> list[str]:
    """Arms without the original they are compared with, or calibrated in a run that never calibrates."""
    faults = []
    for arms in ("[tokenskip]", "[original, tokenskip_calibrated]"):
        faults += not_one_line(tokenskip(work, "run", "demo", "--dry-run", "--set", f"evaluate.arms={arms}"))
    return faults


CASES: dict[str, Case] = {
    "26": train_settings,
    "27": tied_embeddings,
    "32": template_kwargs,
    "33": dated_template,
    "R8": arms_that_cannot_be,
    "R13": declared_ranges,
    "R16": decoding_alike,
    "R17": preview_row,
    "R18": plain_progress,
    "R20": untrained_ratio,
}
