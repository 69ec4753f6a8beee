"""A scripted model and small recipes: whole runs in seconds, with chains that are right although weights are random.

Recipes name `scripted_runs:ChainBackend`, so this module must be importable; pytest puts this folder on the path, a
subprocess needs it on PYTHONPATH.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tokenskip.types import Completion, Prompt, Sampling

CHAT_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'system' -%}{{ m['content'] + '\\n' }}"
    "{%- elif m['role'] == 'user' -%}"
    "{{ '<user>' }}{%- if m['content'] is string -%}{{ m['content'] }}"
    "{%- else -%}{%- for p in m['content'] -%}{{ p['text'] if p['type'] == 'text' else '[' + p['type'] + ']' }}"
    "{%- endfor -%}{%- endif -%}{{ '\\n' }}"
    "{%- else -%}{{ '<bot>' + m['content'] + eos_token + '\\n' }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<bot>' }}{%- endif -%}"
)
CORPUS = ["Tom has 12 apples. Then he buys 5 more of them, so 12 + 5 = 17.\nThe final answer is 17."] * 4


def question(a: int, b: int) -> str:
    """One of the problems that `ChainBackend` can solve."""
    return f"Tom has {a} apples. He buys {b} more. How many are there?"


def chain(a: int, b: int, answer: int) -> str:
    """A wordy chain with the answer behind it."""
    return (
        f"Step 1: Well, Tom starts with {a} apples in his basket.\n"
        f"Step 2: Then he goes and buys {b} more of them, so {a} + {b} = {a + b}.\n"
        f"So in the end there are {a + b} apples.\n\nThe final answer is {answer}."
    )


class ChainBackend:
    """Reads the two numbers of the question: every fifth answer is wrong, every seventh is cut off.

    `pause` makes a batch take time, so that a test can kill a run in the middle; `wrong` gets every answer wrong.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_size: int = 64, pause: float = 0.0, wrong: bool = False
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.pause, self.wrong = pause, wrong

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`."""
        time.sleep(self.pause)
        return [self._complete(prompt) for prompt in prompts]

    def close(self) -> None:
        """Free the model."""
        self.model = None

    def _complete(self, prompt: Prompt) -> Completion:
        a, b = (int(number) for number in re.findall(r"\d+", prompt.messages[-1]["content"])[:2])
        answer = a + b + (1 if self.wrong or a % 5 == 0 else 0)
        text = f" {answer}." if prompt.prefill else chain(a, b, answer)
        if prompt.ratio < 1:
            text = re.sub(r"Well, |in his basket|goes and ", "", text)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        cut_off = a % 7 == 0 and not prompt.prefill
        if cut_off:
            text, ids = text[: len(text) // 2], ids[: len(ids) // 2]
        finish: Any = "length" if cut_off else "stop"
        return Completion(text=text, n_tokens=len(ids), finish=finish, token_ids=tuple(ids))


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_problems(folder: Path, n_train: int = 24, n_test: int = 10) -> tuple[Path, Path]:
    """Training and test problems as JSONL files."""

    def rows(start: int, n: int) -> list[dict[str, Any]]:
        return [
            {"id": f"p{a}", "question": question(a, a % 9 + 2), "gold": str(a + a % 9 + 2)}
            for a in range(start, start + n)
        ]

    return write_jsonl(folder / "train.jsonl", rows(1, n_train)), write_jsonl(folder / "test.jsonl", rows(100, n_test))


def recipe(folder: Path, model: Path, **sections: dict[str, Any]) -> Path:
    """A YAML recipe of a small run on scripted completions; `sections` are laid over its sections."""
    train, test = write_problems(folder)
    values: dict[str, Any] = {
        "name": "tiny",
        "model": {"path": str(model), "device": "cpu"},
        "task": {"name": "jsonl", "train": str(train), "test": str(test), "options": {"numeric": True}},
        "generate": {"backend": "scripted_runs:ChainBackend", "batch_size": 2, "max_new_tokens": 160},
        "score": {"scorer": "surprisal"},
        "prune": {"ratios": [0.5, 0.8, 1.0], "per_trajectory": "all"},
        "train": {"rank": 2, "alpha": 4, "epochs": 1, "batch_size": 6, "save_steps": 2, "learning_rate": 0.01},
        "evaluate": {"ratios": [0.5, 1.0], "batch_size": 4, "latency_samples": 1},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
