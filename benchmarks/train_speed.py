"""Training on a CPU: `tokenskip train`'s trainer against TRL's own, as it was used before, in one run.

Random weights of SmolLM2-135M's shape with LoRA (r 8), batches of 8 rows of 270 tokens, 90 of them the prompt; and of
the embedded model's shape with all weights, batches of 24 rows of 110 to 290 tokens. Every measurement is a process of
its own, so that its peak of resident memory is:

- `before`: TRL's trainer in float32, whole batches, glibc as it comes; `before_bf16`: the same on weights in bf16, what
  `model.dtype: bfloat16` was;
- `float32`, `bf16`: ours, without and with autocast.

`bf16_speedup`: tokens a second of `bf16` / `float32`; `speedup`: of `bf16` / `before`; `peak_rss_mib`: of `bf16`;
`rss_share`: of that of `before_bf16`. The embedded shape does not use bf16, which is slower there: `speedup` is of
`float32`.

    python benchmarks/train_speed.py --json train_speed.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speed import bpe_tokenizer, load_questions, machine, random_model, write

MEASURES = ("before", "before_bf16", "float32", "bf16")
BATCHES = {"smollm2-135m": 8, "embedded": 24, "tiny": 4}


def rows_of(shape: str, n: int) -> list[dict[str, list[int]]]:
    """Tokenised training rows of random tokens."""
    import torch

    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(n):
        prompt, length = (90, 270) if shape == "smollm2-135m" else (60, 110 + 60 * (i % 4))
        ids = torch.randint(5, 1000, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def measure(shape: str, name: str, steps: int) -> dict[str, Any]:
    """Tokens a second and the peak of memory of one way to train, in this process."""
    import torch
    from transformers import TrainerCallback

    from tokenskip.config import check_config
    from tokenskip.models.hardware import keep_memory
    from tokenskip.training.train import make_trainer, training_arguments

    batch, lora = BATCHES[shape], shape == "smollm2-135m"
    settings: dict[str, Any] = {"method": "lora"} if lora else {"method": "full", "optimizer": "muon"}
    trainer_options = {"max_steps": steps + 1, "save_strategy": "no", "bf16": name == "bf16"}
    values = {
        "model": {"dtype": "float32", "device": "cpu"},
        "train": {**settings, "batch_size": batch, "trainer": trainer_options},
    }
    config = check_config(values, "benchmark")
    rows, tokenizer = rows_of(shape, batch * (steps + 1)), bpe_tokenizer(load_questions(None, 20), 400)
    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes the time after every step."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(config, Path(folder))
        if name.startswith("before"):
            trainer = _before(random_model(shape, "bfloat16" if name == "before_bf16" else "float32"), rows, config,
                              arguments, tokenizer, Clock())  # fmt: skip
        else:
            keep_memory()
            trainer = make_trainer(random_model(shape), rows, config, arguments, tokenizer, Clock())
        trainer.train()
    wall, cpu = (marks[-1][i] - marks[0][i] for i in (0, 1))
    n_tokens = sum(len(row["input_ids"]) for row in rows) * steps / (steps + 1)
    return {
        "tokens_per_s": n_tokens / wall,
        "tokens_per_cpu_s": n_tokens / cpu,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": trainer.state.log_history[-1].get("train_loss"),
        "threads": torch.get_num_threads(),
    }


def _before(model: Any, rows: Any, config: Any, arguments: Any, tokenizer: Any, clock: Any) -> Any:
    """TRL's trainer, set up as `tokenskip train` did before it had one of its own."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTTrainer

    from tokenskip.training.muon import Muon

    if config.train.method == "lora":
        lora = LoraConfig(
            r=config.train.rank,
            lora_alpha=config.train.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model, optimizer = get_peft_model(model, lora), None
    else:
        optimizer = Muon(model, config.train.learning_rate)
    return SFTTrainer(
        model=model,
        optimizers=(optimizer, None),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def compare(shape: str, steps: int) -> dict[str, Any]:
    """All measurements of a shape, each in a process of its own."""
    found: dict[str, Any] = {}
    for name in MEASURES:
        command = [sys.executable, __file__, "--shape", shape, "--measure", name, "--steps", str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found[name] = json.loads(done.stdout.splitlines()[-1])
    rate = {name: one["tokens_per_s"] for name, one in found.items()}
    used = "bf16" if shape == "smollm2-135m" else "float32"
    return {
        "bf16_speedup": rate["bf16"] / rate["float32"],
        "speedup": rate[used] / rate["before"],
        "peak_rss_mib": found[used]["peak_rss_mib"],
        "rss_share": found[used]["peak_rss_mib"] / found["before_bf16" if used == "bf16" else "before"]["peak_rss_mib"],
        "measures": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=BATCHES, help="only this one")
    parser.add_argument("--measure", choices=MEASURES, help="only this one, in this process")
    parser.add_argument("--steps", type=int, default=4, help="timed, after one that is not")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--publish", action="store_true", help="into docs/results/speed.json")
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measure(given.shape or "smollm2-135m", given.measure, given.steps)))
        return
    shapes = [given.shape] if given.shape else ["smollm2-135m", "embedded"]
    found = {shape: compare(shape, given.steps * (1 if shape == "smollm2-135m" else 10)) for shape in shapes}
    first = found[shapes[0]]
    head = {key: first[key] for key in ("bf16_speedup", "speedup", "peak_rss_mib", "rss_share")}
    result = {**head, "shapes": found, "machine": machine()}
    write("training", result, given.json, publish=given.publish)


if __name__ == "__main__":
    main()
