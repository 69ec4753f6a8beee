"""Generation: `backends/hf` against the loop of the official scripts, on the same prompts, in one run.

The official loop is transformers' `generate` on batches of 16 in file order, padded on the left. Random weights of
SmolLM2-135M's shape (or `--model`), greedy, 64 questions (`--data`: a JSONL file with `question`), 128 new tokens:

- `speedup`: ours / official, in tokens a second, both in float32; `speedup_bf16`: ours in bf16 / official in float32;
- `identical`: every text came out the same in float32;
- `cpu_seconds`: of each, which other work on the machine disturbs less than `seconds`.

With `--model` and a copy of it in GGUF, `--llamacpp FILE` times llama.cpp's server as well, with 8 slots (needs
`pip install xllamacpp`).

    python benchmarks/generation.py --data GSM8K.jsonl --json generation.json
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from speed import bpe_tokenizer, load_questions, machine, random_model, write

from tokenskip.backends.hf import HfBackend
from tokenskip.models.hardware import keep_memory
from tokenskip.types import Prompt, Sampling

OFFICIAL_BATCH = 16
Ids = list[tuple[int, ...]]


def official(model: Any, prompts: Sequence[Prompt], pad: int, eos: int, cap: int) -> Ids:
    """What the official scripts do: batches in file order, padded to their longest."""
    done: Ids = []
    for at in range(0, len(prompts), OFFICIAL_BATCH):
        rows = [torch.tensor(prompt.token_ids) for prompt in prompts[at : at + OFFICIAL_BATCH]]
        width = max(map(len, rows))
        ids = torch.stack([torch.cat([row.new_full((width - len(row),), pad), row]) for row in rows])
        mask = torch.stack([torch.arange(width) >= width - len(row) for row in rows]).long()
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=cap,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=eos,
            )
        made = [row.tolist() for row in out[:, width:]]
        done += [tuple(row[: row.index(eos)] if eos in row else row) for row in made]
    return done


def ours(model: Any, tokenizer: Any, prompts: Sequence[Prompt], cap: int) -> Ids:
    """The backend, all prompts at once."""
    backend = HfBackend(model, tokenizer)
    return [one.token_ids for one in backend.generate(prompts, Sampling(max_new_tokens=cap))]


def timed(work: Callable[[], Ids]) -> tuple[Ids, dict[str, float]]:
    """The ids, and tokens a second."""
    wall, cpu = time.perf_counter(), time.process_time()
    ids = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n = sum(map(len, ids))
    return ids, {"tokens": n, "seconds": wall, "cpu_seconds": cpu, "tokens_per_s": n / wall}


def llamacpp(file: Path, questions: Sequence[str], cap: int) -> dict[str, float]:
    """llama.cpp's server, 8 requests at a time."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_parallel, parameters.n_ctx = 8, 8 * 1024
    server = xllamacpp.Server(parameters)

    def ask(question: str) -> int:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": cap, "temperature": 0}
        request = urllib.request.Request(
            f"{server.listening_address}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        n = sum(pool.map(ask, questions))
    seconds = time.perf_counter() - start
    return {"tokens": n, "seconds": seconds, "tokens_per_s": n / seconds}


def measure(
    shape: str, model_path: str | None, data: Path | None, n: int, cap: int, gguf: Path | None = None
) -> dict[str, Any]:
    """Both loops on the same prompts, in float32, and ours in bf16."""
    keep_memory()
    questions = load_questions(data, n)
    if model_path is None:
        model, tokenizer = random_model(shape), bpe_tokenizer(questions)
        texts = questions
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
        turns = [[{"role": "user", "content": question}] for question in questions]
        texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    modulo = model.config.vocab_size  # the tiny shape's vocabulary is smaller than the tokenizer's
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    prompts = [Prompt(messages=(), token_ids=tuple(token % modulo for token in row)) for row in ids]
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    official(model, prompts[:2], pad, eos, 2)  # warm-up
    expected, theirs = timed(lambda: official(model, prompts, pad, eos, cap))
    found, mine = timed(lambda: ours(model, tokenizer, prompts, cap))
    model.to(torch.bfloat16)
    _, half = timed(lambda: ours(model, tokenizer, prompts, cap))
    _, their_half = timed(lambda: official(model, prompts, pad, eos, cap))
    result: dict[str, Any] = {
        "speedup": mine["tokens_per_s"] / theirs["tokens_per_s"],
        "speedup_bf16": half["tokens_per_s"] / theirs["tokens_per_s"],
        "speedup_cpu_seconds": theirs["cpu_seconds"] / mine["cpu_seconds"] * mine["tokens"] / theirs["tokens"],
        "identical": found == expected,
        "same_texts": sum(a == b for a, b in zip(found, expected, strict=True)),
        "official": theirs,
        "official_bf16": their_half,
        "ours": mine,
        "ours_bf16": half,
        "model": model_path or shape,
        "prompts": len(prompts),
        "mean_prompt_tokens": sum(len(prompt.token_ids) for prompt in prompts) / len(prompts),
        "max_new_tokens": cap,
        "machine": machine(),
    }
    return {**result, "llamacpp": llamacpp(gguf, questions, cap)} if gguf else result


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", help="of the random weights")
    parser.add_argument("--model", help="a folder or hub id with real weights instead")
    parser.add_argument("--data", type=Path, help="JSONL file with `question`; default: the embedded family's")
    parser.add_argument("-n", type=int, default=64, help="prompts")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--llamacpp", type=Path, help="GGUF file of the model, for llama.cpp's server")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--publish", action="store_true", help="into docs/results/speed.json")
    given = parser.parse_args(arguments)
    result = measure(given.shape, given.model, given.data, given.n, given.max_new_tokens, given.llamacpp)
    write("generation", result, given.json, publish=given.publish)


if __name__ == "__main__":
    main()
