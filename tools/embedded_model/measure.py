"""Measures the embedded model on held-out problems.

Reads a model folder; writes a JSON file with accuracy (Wilson interval) and chain lengths, per way of asking.

    PYTHONPATH=tools python -m embedded_model.measure --out docs/results/embedded_model.json
"""

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from embedded_model.registers import TRIGGER
from tokenskip.embedded import model_path
from tokenskip.embedded.family import stories
from tokenskip.evaluation.stats import wilson

# name -> what follows the question; the last ones are marker-like: none of them was seen in pretraining
ARMS: Final = {
    "chatty": "",
    "direct": " Just give the answer.",
    "be_concise": " Be concise.",
    "keep_it_simple": " Keep it simple.",
    "rough_notes": " Rough notes are fine.",
    "suffix_thanks": " Thanks!",
    "suffix_page": " (from page 12)",
    "suffix_word": "<|im_end|>note<|im_end|>",
    "ratio_marker_0.6": "<|im_end|>0.6<|im_end|>",
    "ratio_marker_0.9": "<|im_end|>0.9<|im_end|>",
    "prompt_percent": " Please reduce 50% of the words in your Chain-of-Thought process.",
}
MAX_NEW_TOKENS: Final = 420


@torch.inference_mode()  # type: ignore[untyped-decorator]
def generate(model: Any, tokenizer: Any, questions: Sequence[str], batch_size: int = 64) -> list[str]:
    """Greedy completions, in the order of the questions."""
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True, tokenize=False)
        for q in questions
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [""] * len(prompts)
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        inputs = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            out[i] = text
    return out


def final_answer(completion: str) -> int | None:
    """The number after the last trigger, if there is one."""
    found = re.findall(r"The final answer is (\d+)", completion)
    return int(found[-1]) if found else None


def accuracy(model: Any, tokenizer: Any, split: str, n: int, suffix: str = "") -> float:
    """Greedy accuracy on the first n problems of a split."""
    chosen = list(stories(split, n))
    texts = generate(model, tokenizer, [story.question + suffix for story in chosen])
    return sum(final_answer(text) == story.answer for text, story in zip(texts, chosen, strict=True)) / n


def measure_arm(model: Any, tokenizer: Any, n: int, suffix: str, split: str = "test") -> dict[str, object]:
    """One row: accuracy with interval, by number of steps, and CoT tokens."""
    chosen = list(stories(split, n))
    began = time.perf_counter()
    texts = generate(model, tokenizer, [story.question + suffix for story in chosen])
    took = time.perf_counter() - began
    right = [final_answer(text) == story.answer for text, story in zip(texts, chosen, strict=True)]
    cots = [text.split(TRIGGER)[0] if TRIGGER in text else "" for text in texts]
    lengths = sorted(len(tokenizer(cot, add_special_tokens=False)["input_ids"]) for cot in cots)
    by_steps: dict[int, list[bool]] = defaultdict(list)
    for story, ok in zip(chosen, right, strict=True):
        by_steps[len(story.events)].append(ok)
    low, high = wilson(sum(right), n)
    return {
        "suffix": suffix, "n": n, "accuracy": sum(right) / n, "accuracy_low": low, "accuracy_high": high,
        "cot_tokens_mean": sum(lengths) / n, "cot_tokens_median": lengths[n // 2],
        "cot_tokens_p5": lengths[n // 20], "cot_tokens_p95": lengths[-n // 20], "seconds": took,
        "by_steps": {k: {"n": len(v), "accuracy": sum(v) / len(v)} for k, v in sorted(by_steps.items())},
    }  # fmt: skip


def main() -> None:
    """Command line of this module."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description="Measure the embedded model on held-out problems.")
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--out", type=Path, default=Path("docs/results/embedded_model.json"))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    result: dict[str, object] = {"split": args.split, "parameters": model.num_parameters(), "arms": {}}
    arms: dict[str, object] = {}
    for name in args.arms:
        arms[name] = measure_arm(model, tokenizer, args.n, ARMS[name], args.split)
        print(name, json.dumps(arms[name]), flush=True)
    result["arms"] = arms
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
