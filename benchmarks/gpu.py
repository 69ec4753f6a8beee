"""Rates on one card: tokens a second of generate, score and train, within eight minutes and from the repository alone.

Random weights of a 1.5B and a 7B shape (Qwen2.5's), bf16: generate (greedy, prompts of 100 tokens, 256 new ones), score
(the surprisal of completions), train with LoRA and, on the smaller shape, with all weights (float32 masters, bf16
products). With `--model` real weights are measured as well. `--minutes` is shared out: what does not fit any more is
left out and named under `skipped`.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --tiny --device cpu
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pages import table
from speed import bpe_tokenizer, load_questions, machine, random_model, write

from tokenskip.backends.hf import HfBackend
from tokenskip.config import check_config
from tokenskip.models.loading import load_model, pick_device
from tokenskip.types import Prompt, Sampling

PROMPT, NEW, ROW = 100, 256, 300
"""Tokens of a prompt, of its completion, and of a training row."""


def settle(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def random_ids(rows: int, width: int, vocabulary: int) -> list[list[int]]:
    """The same random tokens every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, vocabulary, (rows, width), generator=generator).tolist()


def rate(work: Callable[[], int], device: str) -> float:
    """Tokens a second of `work`, which says how many it took."""
    settle(device)
    start = time.perf_counter()
    n = work()
    settle(device)
    return n / (time.perf_counter() - start)


def generate_rate(model: Any, tokenizer: Any, device: str, rows: int, new: int) -> float:
    """New tokens a second of the hf backend; no token ends a completion."""
    backend = HfBackend(model, tokenizer, batch_size=rows)
    backend.eos_ids = set()
    prompts = [Prompt(messages=(), token_ids=tuple(ids)) for ids in random_ids(rows, PROMPT, model.config.vocab_size)]
    backend.generate(prompts[:2], Sampling(max_new_tokens=4))
    sampling = Sampling(max_new_tokens=new)
    return rate(lambda: sum(one.n_tokens for one in backend.generate(prompts, sampling)), device)


def score_rate(model: Any, device: str, rows: int, batches: int) -> float:
    """Tokens a second whose surprisal is taken."""
    ids = torch.tensor(random_ids(rows, ROW, model.config.vocab_size), device=device)

    def work() -> int:
        with torch.inference_mode():
            for _ in range(batches):
                logits = model(ids).logits[:, :-1]
                for some, wanted in zip(logits, ids[:, 1:], strict=True):  # a row's float32 logits at a time
                    torch.nn.functional.cross_entropy(some.float(), wanted, reduction="none")
        return ids.numel() * batches

    work()
    return rate(work, device)


def train_rate(model: Any, tokenizer: Any, device: str, method: str, batch: int, steps: int) -> float:
    """Tokens a second of `tokenskip train`'s trainer."""
    from transformers import TrainerCallback

    from tokenskip.training.train import make_trainer, training_arguments

    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes the time after every step."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            settle(device)
            marks.append(time.perf_counter())

    options = {"max_steps": steps + 1, "save_strategy": "no"}
    values = {
        "model": {"dtype": "bfloat16", "device": device},
        "train": {"method": method, "batch_size": batch, "trainer": options},
    }
    config = check_config(values, "benchmark")
    ids = random_ids(batch * (steps + 1), ROW, model.config.vocab_size)
    rows = [{"input_ids": row, "labels": [-100] * PROMPT + row[PROMPT:]} for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(config, Path(folder))
        make_trainer(model.train(), rows, config, arguments, tokenizer, Clock()).train()
    return batch * ROW * steps / (marks[-1] - marks[0])


def measure(
    models: dict[str, Callable[[str], Any]], device: str, minutes: float, *, tiny: bool = False
) -> dict[str, Any]:
    """The rates of every model. `models` name -> what makes it in a dtype."""
    until = time.monotonic() + 60 * minutes
    tokenizer = bpe_tokenizer(load_questions(None, 20), 400)
    rows, new, steps = (4, 8, 2) if tiny else (64, NEW, 6)
    rates: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}

    def one(name: str, kind: str, dtype: str, work: Callable[[Any], float]) -> None:
        if time.monotonic() > until - (0 if tiny else 45):
            skipped[f"{name} {kind}"] = "no time left"
            return
        try:
            model = models[name](dtype)
            rates.setdefault(name, {})[kind] = work(model)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "memory" not in str(error).lower():
                raise
            skipped[f"{name} {kind}"] = "out of memory"
        finally:
            model = None
            gc.collect()
            if device.startswith("cuda"):
                torch.cuda.empty_cache()

    for name in models:
        one(name, "generate", "bfloat16", lambda model: generate_rate(model, tokenizer, device, rows, new))
        one(name, "score", "bfloat16", lambda model: score_rate(model, device, 8 if not tiny else 2, steps))
        base = "bfloat16" if device != "cpu" else "float32"
        one(name, "train_lora", base, lambda model: train_rate(model, tokenizer, device, "lora", 8, steps))
        if "7b" not in name.lower():  # float32 masters and AdamW's two moments: 16 bytes a parameter
            one(name, "train_full", "float32", lambda model: train_rate(model, tokenizer, device, "full", 8, steps))
    return {"rates": rates, "skipped": skipped, "machine": machine(), "tokens": {"prompt": PROMPT, "new": new}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape only: does the script run?")
    parser.add_argument("--model", help="a folder or hub id with real weights, measured too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--publish", action="store_true", help="into docs/results/speed.json")
    given = parser.parse_args(arguments)
    device = pick_device(given.device)
    models: dict[str, Callable[[str], Any]] = {
        shape: lambda dtype, shape=shape: random_model(shape, dtype, device)
        for shape in (["tiny"] if given.tiny else ["qwen2.5-1.5b", "qwen2.5-7b"])
    }
    if given.model:

        def real(dtype: str) -> Any:
            values = {"model": {"path": given.model, "device": device, "dtype": dtype}}
            return load_model(check_config(values, "--model").model)

        models = {given.model: real, **models}
    result = measure(models, device, given.minutes, tiny=given.tiny)
    write("gpu", result, given.json, publish=given.publish)
    kinds = ("generate", "score", "train_lora", "train_full")
    found = [
        [name, *(f"{one[kind]:,.0f}" if kind in one else "–" for kind in kinds)]
        for name, one in result["rates"].items()
    ]
    print(table(["tokens/s", *kinds], found))


if __name__ == "__main__":
    main()
