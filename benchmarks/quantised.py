"""Does the ratio survive quantisation? The shipped model on llama.cpp as f32, f16, q8_0, q4_0 and q4_k_m.

Each file is served by a real llama.cpp server and asked greedily at each ratio by `chat_template_kwargs`. The achieved
ratio is over the chains of the untouched model in f32, on the same problems. Writes docs/results/quantised.md and
quantised.json; files and answers stay in `--out`, and what is answered is not asked again.

    python benchmarks/quantised.py --libllama FILE     # any build's libllama.so, which quantises as llama-quantize does
    python benchmarks/quantised.py --n 20 --out /tmp/trial
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llamacpp import CONVERTER, N_PARALLEL, llama_server
from pages import RESULTS, shipped, table

from tokenskip.backends.openai import OpenAIBackend
from tokenskip.config import ModelConfig, PromptConfig, load_recipe
from tokenskip.embedded import adapter_path, model_path
from tokenskip.evaluation.stats import bootstrap_mean, wilson
from tokenskip.generation.generate import complete
from tokenskip.generation.grade import grade_trajectory
from tokenskip.models.loading import load_tokenizer
from tokenskip.prompting.prompts import Prompts
from tokenskip.report.text import pct
from tokenskip.serving.local import export_local
from tokenskip.serving.merge import find_adapter
from tokenskip.storage.store import Row, write_atomically
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.tokens import token_counter
from tokenskip.types import Problem, Sampling

RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
CONVERTED = ("f32", "f16", "q8_0")
QUANTISED = {"q4_0": 2, "q4_k_m": 15}
"""Type -> llama.cpp's number of it (`llama_ftype`)."""
MAX_TOKENS = 512


class _QuantizeParams(ctypes.Structure):
    """The head of `llama_model_quantize_params`, and more room than the rest of it needs in any version."""

    _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_char * 1016))


def quantise(library: Path, source: Path, target: Path, kind: int) -> None:
    """llama.cpp's own quantisation, in a process of its own: it logs a line a tensor.

    Raises:
        RuntimeError: it fails; with its last words.
    """
    command = [sys.executable, __file__, "--quantise", str(library), str(source), str(target), str(kind)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        raise RuntimeError(done.stderr[-1000:])


def _quantise_here(library: str, source: str, target: str, kind: str) -> int:
    folder = Path(library).parent
    for name in ("libggml-base", "libggml."):
        for file in sorted(folder.glob(f"{name}*.so*")):
            loaded = ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
            if hasattr(loaded, "ggml_backend_load_all_from_path"):
                loaded.ggml_backend_load_all_from_path(str(folder).encode())
    llama = ctypes.CDLL(library)
    llama.llama_model_quantize_default_params.restype = _QuantizeParams
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype = 1, int(kind)
    return int(llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


@dataclass(frozen=True, slots=True)
class Asker:
    """The problems, and how they are asked and graded."""

    problems: Sequence[Problem]
    task: EmbeddedTask
    prompts: Prompts

    def ask(self, url: str, model: Path, ratio: float) -> list[Row]:
        """A row a problem: whether the answer is right, tokens of the chain and of all, how it ended."""
        backend = OpenAIBackend(
            "embedded",
            self.prompts.tokenizer,
            adapter_path(),
            url=url,
            served={"adapter": str(model)},
            concurrency=N_PARALLEL,
        )
        prompts = [self.prompts.prompt(problem.question, ratio) for problem in self.problems]
        count = token_counter(self.prompts.tokenizer)
        sampling = Sampling(max_new_tokens=MAX_TOKENS)
        done = complete(self.problems, prompts, backend, sampling, self.prompts.config, count)
        graded = [grade_trajectory(one, self.task) for one in done]
        return [
            {
                "id": one.id,
                "correct": bool(one.grade and one.grade.correct),
                "cot_tokens": one.n_cot_tokens,
                "finish": one.finish,
            }
            for one in graded
        ]


def files(out: Path, library: Path | None) -> dict[str, Path]:
    """Type -> GGUF file of the shipped model; `original` is the untouched one in f32."""
    trained = find_adapter("embedded")
    made = {}
    for kind in CONVERTED:
        folder = out / kind
        if not folder.exists():
            export_local(trained, "gguf", folder, type_=kind, converter=CONVERTER, name="stories")
        made[kind] = folder / f"stories-{kind}.gguf"
    for kind, number in QUANTISED.items():
        made[kind] = out / f"stories-{kind}.gguf"
        if library and not made[kind].exists():
            quantise(library, made["f32"], made[kind], number)
    made = {kind: file for kind, file in made.items() if file.exists()}
    made["original"] = out / "original-f32.gguf"
    if not made["original"].exists():
        script = Path(__file__).parent.parent / "src" / "tokenskip" / "embedded" / "converter.py"
        command = [sys.executable, str(script), str(CONVERTER), str(model_path())]
        subprocess.run(
            [*command, "--outfile", str(made["original"]), "--outtype", "f32"], check=True, capture_output=True
        )
    return made


def tensors(file: Path) -> tuple[dict[str, float], float]:
    """Share of the weights in each format, and bits a weight of the whole."""
    sys.path.insert(0, str(CONVERTER.parent))
    from gguf import GGUFReader

    shares: Counter[str] = Counter()
    n_bytes = 0
    for tensor in GGUFReader(file).tensors:
        shares[tensor.tensor_type.name.lower()] += int(tensor.n_elements)
        n_bytes += int(tensor.n_bytes)
    total = sum(shares.values())
    return {name: n / total for name, n in shares.most_common()}, 8 * n_bytes / total


def measure(asker: Asker, kinds: dict[str, Path], out: Path) -> dict[str, dict[float, list[Row]]]:
    """Type -> ratio -> rows; what is in `out` already is read."""
    found: dict[str, dict[float, list[Row]]] = {}
    for kind, file in kinds.items():
        pending = {
            ratio: out / f"answers-{kind}-{ratio:g}-{len(asker.problems)}.json"
            for ratio in (RATIOS[:1] if kind == "original" else RATIOS)
        }
        if not all(path.exists() for path in pending.values()):
            with llama_server(file) as url:
                for ratio, path in pending.items():
                    if not path.exists():
                        write_atomically(path, json.dumps(asker.ask(url, file, ratio)))
                        print(f"{kind} at {ratio:g}: {len(asker.problems)} answers", flush=True)
        found[kind] = {ratio: json.loads(path.read_text()) for ratio, path in pending.items()}
    return found


def collect(found: dict[str, dict[float, list[Row]]], kinds: dict[str, Path]) -> dict[str, Any]:
    """What quantised.json holds."""
    original = [row["cot_tokens"] for row in found["original"][1.0]]
    rows = []
    for kind in (name for name in found if name != "original"):
        for ratio, answers in found[kind].items():
            right = sum(row["correct"] for row in answers)
            paired = [
                float(row["correct"]) - float(reference["correct"])
                for row, reference in zip(answers, found["f32"][ratio], strict=True)
            ]
            low, high = wilson(right, len(answers))
            change = bootstrap_mean(np.array(paired))
            rows.append(
                {
                    "type": kind,
                    "ratio": ratio,
                    "n": len(answers),
                    "accuracy": right / len(answers),
                    "accuracy_low": low,
                    "accuracy_high": high,
                    "change": sum(paired) / len(paired),
                    "change_low": change[0],
                    "change_high": change[1],
                    "cot_tokens": sum(row["cot_tokens"] for row in answers) / len(answers),
                    "achieved": sum(row["cot_tokens"] for row in answers) / sum(original),
                    "finished": sum(row["finish"] == "stop" for row in answers) / len(answers),
                }
            )
    formats = {kind: tensors(file) for kind, file in kinds.items() if kind != "original"}
    return {
        "n": len(original),
        "original": {
            "accuracy": sum(row["correct"] for row in found["original"][1.0]) / len(original),
            "cot_tokens": sum(original) / len(original),
        },
        "formats": {kind: {"shares": shares, "bits": bits} for kind, (shares, bits) in formats.items()},
        "rows": rows,
    }


def page(results: dict[str, Any]) -> str:
    """docs/results/quantised.md."""
    kinds = list(results["formats"])
    rows = {(row["type"], row["ratio"]): row for row in results["rows"]}
    ratios = sorted({ratio for _, ratio in rows})
    achieved = [[f"{ratio:g}", *(f"{rows[kind, ratio]['achieved']:.3f}" for kind in kinds)] for ratio in ratios]
    accuracy = [[f"{ratio:g}", *(pct(rows[kind, ratio]["accuracy"]) for kind in kinds)] for ratio in ratios]
    drift = max(
        (abs(rows[kind, ratio]["achieved"] - rows["f32", ratio]["achieved"]), kind, ratio)
        for kind in kinds
        for ratio in ratios
    )
    worst = min(results["rows"], key=lambda row: row["change"])
    formats = [
        [kind, f"{values['bits']:.1f}", ", ".join(f"{share:.0%} {name}" for name, share in values["shares"].items())]
        for kind, values in results["formats"].items()
    ]
    original = results["original"]
    interval = f"[{100 * worst['change_low']:+.1f}, {100 * worst['change_high']:+.1f}]"
    return f"""# Quantised, on llama.cpp

Made by `python benchmarks/quantised.py`: the shipped model as GGUF files, each on a real llama.cpp server, asked
greedily by `chat_template_kwargs`. {results["n"]} test problems; every number: [quantised.json](quantised.json). The
untouched model in f32 solves {pct(original["accuracy"])} with {original["cot_tokens"]:.1f} CoT tokens, which the
achieved ratio is over.

The largest change of the achieved ratio against f32 is {drift[0]:.3f} ({drift[1]} at {drift[2]:g}). The largest loss
of accuracy against f32 on the same problems is {100 * -worst["change"]:.1f} points {interval}, {worst["type"]} at
{worst["ratio"]:g}.

## Achieved ratio

{table(["γ", *kinds], achieved)}
## Accuracy

{table(["γ", *kinds], accuracy)}
## What is in the files

{table(["type", "bits a weight", "weights"], formats, left=1)}
The model has rows of 64 and 176 weights. llama.cpp's K-formats need rows of 256 and its 4-bit blocks rows of 32, so
`q4_k_m` falls back to larger formats here, as llama.cpp itself reports. This page therefore says little about what
4 bits do to a large model.
"""


def main() -> None:
    """Make the files, ask, and write the page."""
    if sys.argv[1:2] == ["--quantise"]:
        sys.exit(_quantise_here(*sys.argv[2:6]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=300, help="test problems")
    parser.add_argument("--libllama", type=Path, help="libllama.so of llama.cpp; without it no 4-bit files")
    parser.add_argument("--out", type=Path, default=Path("runs/quantised"))
    arguments = parser.parse_args()
    out = arguments.out / shipped()
    out.mkdir(parents=True, exist_ok=True)
    task = EmbeddedTask(load_recipe(None, ["task.name=embedded"]).task)
    prompts = Prompts(load_tokenizer(ModelConfig()), PromptConfig())
    kinds = files(out, arguments.libllama)
    asker = Asker(list(task.problems("test", arguments.n)), task, prompts)
    results = collect(measure(asker, kinds, out), kinds)
    target = RESULTS if arguments.out == parser.get_default("out") else arguments.out
    write_atomically(target / "quantised.json", json.dumps(results, indent=1) + "\n")
    write_atomically(target / "quantised.md", page(results))
    print(target / "quantised.md")


if __name__ == "__main__":
    main()
