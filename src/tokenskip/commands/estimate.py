"""What a run costs before it is run: tokens, GPU-hours and dollars. Arithmetic; reads only sizes of weights.

Every stage's arithmetic is 2 FLOP per parameter and token of a forward pass (training: 3 or 4 of them), over what a GPU
really reaches of its peak. `Rates` names each assumption; none of the GPU figures is measured here. What runs on CPU
cores (grade, prune) is measured by `benchmarks/scale.py`.

    python -m tokenskip.commands.estimate        # the table of docs/scale.md
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Assumptions about one GPU, and the measured rate of one CPU core."""

    peak_flops: float = 989e12
    """Dense BF16 of an H100 SXM, as its vendor states it."""
    decode_share: float = 0.12
    """Of the peak, while decoding in large batches with an engine such as vLLM. Assumed: of prompts of 100 and
    completions of 250 tokens an 8B model then writes 5,300 tokens a second. Red Hat's entry to MLPerf Inference v5.1
    (vLLM 0.10, Llama-3.1-8B in FP8, one H100, offline) has 5,777, with longer prompts."""
    forward_share: float = 0.40
    """Of the peak, while scoring (one forward pass over whole texts). Assumed."""
    train_share: float = 0.35
    """Of the peak, while training. Assumed."""
    dollars_per_gpu_hour: float = 2.5
    """Assumed; what an H100 rents for differs by more than twice between providers."""
    cpu_rows_per_s: float = 552.0
    """Trajectories through grade, score (random) and prune a second and core: measured at 1,000,000 rows."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The size of a run: `n_train` problems, tokens of a prompt and of a completion, and what is evaluated."""

    n_train: int
    n_parameters: float = 8e9
    prompt_tokens: int = 100
    completion_tokens: int = 250
    samples: int = 1
    share_correct: float = 0.8
    rows_per_chain: float = 1.0
    kept: float = 0.75
    epochs: float = 3.0
    train_passes: float = 3.0
    """Forward passes' worth of work a token of training: forward, forward again (activations are not kept), and the
    gradients of activations; 4 where all weights are trained, for these need theirs."""
    n_test: int = 1000
    n_arms: int = 12


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens and GPU-hours by stage; CPU-core hours of what needs no GPU."""

    tokens: dict[str, float]
    gpu_hours: dict[str, float]
    cpu_hours: float
    dollars: float

    def wall_hours(self, gpus: int, cores_per_gpu: int = 8) -> float:
        """Hours on so many GPUs, if work divides evenly and each brings `cores_per_gpu` CPU cores."""
        return sum(self.gpu_hours.values()) / gpus + self.cpu_hours / (gpus * cores_per_gpu)


def estimate(workload: Workload, rates: Rates | None = None) -> Cost:
    """The cost of a run on GPUs like `rates`, whatever their number."""
    rates = rates or Rates()
    chains = workload.n_train * workload.samples
    correct = chains * workload.share_correct
    whole = workload.prompt_tokens + workload.completion_tokens
    tokens = {
        "generate": chains * float(whole),
        "score": correct * whole,
        "train": correct
        * workload.rows_per_chain
        * workload.epochs
        * (workload.prompt_tokens + workload.kept * workload.completion_tokens),
        "evaluate": float(workload.n_test * workload.n_arms * whole),
    }
    shares = {
        "generate": rates.decode_share,
        "score": rates.forward_share,
        "train": rates.train_share / workload.train_passes,
        "evaluate": rates.decode_share,
    }
    flops = 2 * workload.n_parameters
    hours = {stage: tokens[stage] * flops / (rates.peak_flops * shares[stage]) / 3600 for stage in tokens}
    dollars = sum(hours.values()) * rates.dollars_per_gpu_hour
    return Cost(tokens=tokens, gpu_hours=hours, cpu_hours=chains / rates.cpu_rows_per_s / 3600, dollars=dollars)


def count_parameters(folder: Path) -> int:
    """Parameters of the safetensors files in a model folder, by their headers; 0 when there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as weights:
            header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
        total += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return total


def line(workload: Workload) -> str:
    """One line for a dry run."""
    cost = estimate(workload)
    hours = ", ".join(f"{stage} {_short(spent)}" for stage, spent in cost.gpu_hours.items())
    return (
        f"estimate for {_short(workload.n_parameters)} parameters: {_short(sum(cost.tokens.values()))} tokens; "
        f"GPU-hours of an H100 ({hours}); about ${_short(cost.dollars)} (assumed rates, see docs/scale.md)"
    )


def table() -> str:
    """The cost model's table: 7k, 1M and 1B trajectories of an 8B model on 1, 8 and 512 GPUs."""
    head = "| trajectories | tokens | generate | score | train | evaluate | GPU-hours | CPU-core hours | dollars | "
    lines = [head + "days on 1 GPU | on 8 | on 512 |", "| " + " --: |" * 12]
    for n in (7_000, 1_000_000, 1_000_000_000):
        cost = estimate(Workload(n_train=n))
        cells = [_short(n), _short(sum(cost.tokens.values())), *map(_short, cost.gpu_hours.values())]
        cells += [_short(sum(cost.gpu_hours.values())), _short(cost.cpu_hours), _short(cost.dollars)]
        cells += [_short(cost.wall_hours(gpus) / 24) for gpus in (1, 8, 512)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    """Two significant digits followed by k, M, B or T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g}{unit}"
    return f"{float(f'{value:.2g}'):g}"


if __name__ == "__main__":
    print(table(), end="")
