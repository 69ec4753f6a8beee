"""One LoRA adapter out of two that were trained one after the other, and the first of them back out of it.

The TokenSkip adapter was trained on a taught model, which is SmolLM2 with another adapter folded in. `stack` puts their
ranks side by side (A over A, B beside B, each B times its own scale), so that SmolLM2 itself is the base; stored in
bf16. The first ranks are the taught model's, and `first` cuts them out again.

    python benchmarks/smollm2_adapter.py stack runs/smollm2/teach/adapter runs/smollm2/stories/adapter -o OUT
    python benchmarks/smollm2_adapter.py first OUT -o taught-adapter
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tokenskip.errors import TokenskipError
from tokenskip.models.gguf import SMOLLM2
from tokenskip.models.weights import read_settings
from tokenskip.storage.outputs import new_folder

CONFIG, WEIGHTS, NOTE = "adapter_config.json", "adapter_model.safetensors", "stacked.json"
Tensors = dict[str, torch.Tensor]


def scaled(folder: Path) -> tuple[Tensors, int]:
    """An adapter's tensors in float32 with its scale folded into every B, and its rank."""
    settings = read_settings(str(folder), CONFIG)
    scale, rank = settings["lora_alpha"] / settings["r"], int(settings["r"])
    tensors = load_file(folder / WEIGHTS)
    return {name: t.float() * (scale if "lora_B" in name else 1) for name, t in tensors.items()}, rank


def write(folder: Path, like: Path, tensors: Tensors, rank: int) -> None:
    """An adapter of SmolLM2 with these tensors, scale 1, and the files of another one beside it."""
    settings: dict[str, Any] = read_settings(str(like), CONFIG)
    settings |= {"r": rank, "lora_alpha": rank, "base_model_name_or_path": SMOLLM2}
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file({name: t.to(torch.bfloat16).contiguous() for name, t in tensors.items()}, folder / WEIGHTS)
    for file in like.iterdir():
        if file.name not in (CONFIG, WEIGHTS, NOTE, "README.md", "training_args.bin", "losses.tsv"):
            (folder / file.name).write_bytes(file.read_bytes())


def stack(first: Path, second: Path, out: Path) -> None:
    """Both adapters as one, with the second's tokenizer."""
    (one, rank), (two, more) = scaled(first), scaled(second)
    side = {name: torch.cat((t, two[name]), dim=1 if "lora_B" in name else 0) for name, t in one.items()}
    with new_folder(out) as draft:
        write(draft, second, side, rank + more)
        (draft / NOTE).write_text(json.dumps({"ranks": [rank, more]}) + "\n", encoding="utf-8")


def first(stacked: Path, out: Path) -> None:
    """The first of two stacked adapters."""
    tensors, _ = scaled(stacked)
    rank = read_settings(str(stacked), NOTE)["ranks"][0]
    cut = {name: t[:, :rank] if "lora_B" in name else t[:rank] for name, t in tensors.items()}
    with new_folder(out) as draft:
        write(draft, stacked, cut, rank)


def main(arguments: Sequence[str] | None = None) -> int:
    """Stack two adapters, or cut the first out; 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stack", "first"))
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        {"stack": stack, "first": first}[args.what](*args.adapters, args.output)
    except TokenskipError as error:
        print(f"smollm2_adapter: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
