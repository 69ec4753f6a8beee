"""Public fault cases of settings and prompts, each tried on the product: `NAME -> function(folder) -> bool`.

python tests/faults_settings.py FAULTS       # the folder of cases; without one, those that need none
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def tokenskip(*arguments: object, cwd: Path, clock: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command; with `clock` on that day."""
    start = f"import datetime, tokenskip.run as r; r.today = lambda: datetime.date.fromisoformat({clock!r}); "
    code = (start if clock else "") + "from tokenskip.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Whether a command was refused with one line that has all of `words`."""
    line = done.stderr.strip()
    return done.returncode == 2 and "\n" not in line and all(word in line for word in words)


def copied_model(template: Path | str, folder: Path) -> Path:
    """The embedded model with another chat template."""
    from tokenskip.embedded import model_path

    shutil.copytree(model_path(), folder)
    (folder / "chat_template.jinja").write_text(template if isinstance(template, str) else template.read_text())
    return folder


def train_settings(folder: Path) -> bool:
    """Case 26: each wrong setting ends both a dry run and a run at once."""
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
    with tempfile.TemporaryDirectory() as scratch:
        for setting, word in wrong:
            for command in (
                ["run", folder / "l.yaml", "--dry-run"],
                ["generate", "base", "--recipe", folder / "l.yaml"],
            ):
                if not one_line(tokenskip(*command, "--set", setting, cwd=Path(scratch)), word):
                    return False
        return not (Path(scratch) / "base").exists()


def tied_embeddings(folder: Path) -> bool:
    """Case 27: an adapter on embeddings that are tied to the head is refused before anything runs."""
    settings = ("train.method=lora", "train.optimizer=adamw", "train.target_modules=[embed_tokens]")
    chosen = [part for setting in settings for part in ("--set", setting)]
    with tempfile.TemporaryDirectory() as scratch:
        done = tokenskip("generate", "run", "--recipe", "embedded", *chosen, cwd=Path(scratch))
    return one_line(done, "tied to its head")


def template_kwargs(folder: Path) -> bool:
    """Case 32: a server, the training rows and our own prompts get the same template arguments."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        for name in ("q.jsonl", "r.yaml"):
            shutil.copyfile(folder / name, here / name)
        copied_model(folder / "chat_template.jinja", here / "m")
        server = subprocess.Popen([sys.executable, str(folder / "server.py")], cwd=here)
        try:
            time.sleep(2)
            to_server_alone = tokenskip("generate", "run", "--recipe", "r.yaml", cwd=here)
            settings = [
                "generate.options={url: 'http://127.0.0.1:8977', served: m}",
                "prompt.template_kwargs={enable_thinking: false}",
            ]
            chosen = [part for setting in settings for part in ("--set", setting)]
            for stage in ("generate", "grade", "score", "prune"):
                first = ["--recipe", "r.yaml", *chosen] if stage == "generate" else []
                done = tokenskip(stage, "run", *first, cwd=here)
                if done.returncode:
                    print(done.stderr)
                    return False
        finally:
            server.terminate()
            server.wait()
        bodies = [json.loads(line) for line in (here / "bodies.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in (here / "run" / "train.jsonl").read_text().splitlines()]
        sent = [body["chat_template_kwargs"] for body in bodies]
        trained = [row["chat_template_kwargs"] for row in rows]
        return (
            one_line(to_server_alone, "prompt.template_kwargs")
            and bool(rows)
            and sent == [{"enable_thinking": False}] * len(bodies)
            and all(kwargs.get("enable_thinking") is False for kwargs in trained)
        )


def dated_template(folder: Path) -> bool:
    """Case 33: a run that is continued on another day, and its saved template, show the day it was started."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        copied_model(folder / "chat_template.jinja", here / "md")
        shutil.copyfile(folder / "d.yaml", here / "d.yaml")
        limits = ["--set", "task.train_limit=2", "--set", "score.scorer=random"]
        tokenskip("generate", "run", "--recipe", "d.yaml", *limits, cwd=here, clock="2024-07-05")
        later = tokenskip("run", "d.yaml", *limits, "-o", "run", "--dry-run", cwd=here)
        manifest = json.loads((here / "run" / "config.json").read_text())
        again = tokenskip("grade", "run", cwd=here, clock="2024-08-09")
        from tokenskip.config import check_config
        from tokenskip.models.loading import load_tokenizer
        from tokenskip.prompting.prompts import Prompts

        config = check_config({**manifest["config"], "model": {"path": str(here / "md")}}, "case 33")
        prompts = Prompts(load_tokenizer(config.model), config.prompt)
        prompts.save_tokenizer(here / "saved", config.prune.ratios)
        served = AutoTokenizer.from_pretrained(here / "saved").apply_chat_template(
            list(prompts.messages("How many?")), tokenize=False
        )
        return (
            manifest["config"]["prompt"]["date"] == "2024-07-05"
            and again.returncode == 0
            and "shows the date" in later.stdout
            and "Today Date: 05 Jul 2024 00:00:00" in served
        )


def declared_ranges(folder: Path) -> bool:
    """R13: transformers 5.2 is the first with `train_sampling_strategy`, which two recipes set."""
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    return all(tuple(map(int, low.split("."))) >= (5, 2) for low in re.findall(r'transformers[^"]*>=([\d.]+)', text))


def decoding_alike(folder: Path) -> bool:
    """R16: the thinking recipes decode alike in both stages, and a dry run warns of one that does not."""
    from tokenskip.config import load_recipe
    from tokenskip.recipes import find_recipe

    for name in ("qwen3-8b-thinking", "r1-distill-qwen-7b"):
        config = load_recipe(find_recipe(name))
        if (config.generate.temperature, config.generate.top_p) != (config.evaluate.temperature, config.evaluate.top_p):
            return False
    setting = "generate.temperature=0.6"
    return "decodes greedily" in tokenskip("run", "demo", "--dry-run", "--set", setting, cwd=HERE).stdout


def preview_row(folder: Path) -> bool:
    """R17: the ending of a previewed row is that of a row that is trained on."""
    shown = tokenskip("run", "demo", "--dry-run", "--set", "prompt.answer=boxed", "--limit", 5, cwd=HERE).stdout
    flat = "".join(line.strip("│ ") for line in shown.splitlines())
    return bool(re.search(r"\\boxed\{\d+\}\.?<", flat)) and "\\boxed{ " not in flat


def plain_progress(folder: Path) -> bool:
    """R18: a stage without a terminal writes a line at regular times, and one at its end."""
    from tokenskip.progress import Lines

    lines: list[str] = []
    with Lines(lines.append, every_s=0.05).stage("score", 4) as advance:
        time.sleep(0.3)
        advance(4)
    return len(lines) >= 3 and lines[0].startswith("score: 0 of 4") and lines[-1].startswith("score: done, 4 in")


def untrained_ratio(folder: Path) -> bool:
    """R20: the saved template prompts an untrained ratio as the nearest trained one, or refuses it."""
    from tokenskip.config import ModelConfig, PromptConfig
    from tokenskip.errors import ModelError
    from tokenskip.models.loading import load_tokenizer
    from tokenskip.prompting.prompts import Prompts

    with tempfile.TemporaryDirectory() as scratch:
        endings: list[Any] = []
        for untrained in ("nearest", "refuse"):
            prompts = Prompts(load_tokenizer(ModelConfig()), PromptConfig(untrained=untrained))
            prompts.save_tokenizer(Path(scratch) / untrained, (0.6, 0.8, 1.0))
            served = prompts.served_by(Path(scratch) / untrained)
            try:
                endings.append(served.text(served.messages("How many?"), 0.5))
            except ModelError as error:
                endings.append(str(error))
    return f"{prompts.delimiter}0.6{prompts.delimiter}" in endings[0] and "ask for one of 0.6, 0.8, 1.0" in endings[1]


CASES: dict[str, Callable[[Path], bool]] = {
    "26-train-settings-tracebacks": train_settings,
    "27-tied-embeddings-folded": tied_embeddings,
    "32-template-kwargs": template_kwargs,
    "33-dated-template": dated_template,
    "R13": declared_ranges,
    "R16": decoding_alike,
    "R17": preview_row,
    "R18": plain_progress,
    "R20": untrained_ratio,
}


def main() -> int:
    """Try every case; 1 when one is not as wanted."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    failed = 0
    for name, case in CASES.items():
        if root is None and not name.startswith("R"):
            print(f"{name}: needs the folder of cases")
            continue
        as_wanted = case(root / name if root else HERE)
        failed += not as_wanted
        print(f"{name}: {'as wanted' if as_wanted else 'NOT as wanted'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
