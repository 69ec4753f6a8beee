"""Writes the embedded model's card from its measured figures.

Reads docs/results/embedded_model.json (from `embedded_model.measure`); writes README.md into the model folder.

    PYTHONPATH=tools python -m embedded_model.card
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from tokenskip.embedded import model_path

ROWS: Final = {
    "chatty": "the question alone (wordy chain)",
    "suffix_thanks": "`Thanks!` after it",
    "suffix_page": "`(from page 12)` after it",
    "suffix_word": "a word between two end-of-turn tokens after it",
    "ratio_marker_0.6": "a ratio marker 0.6, never seen in training",
    "ratio_marker_0.9": "a ratio marker 0.9, never seen in training",
    "prompt_percent": '"Please reduce 50% of the words …", never seen in training',
    "keep_it_simple": '"Keep it simple."',
    "rough_notes": '"Rough notes are fine."',
    "be_concise": '"Be concise."',
    "direct": '"Just give the answer." (no chain)',
}
HOW: Final = """Three runs, from random weights, one after the other, 54.0M tokens in all, each on one CPU core
(shared with other work):

| `PYTHONPATH=tools python -m embedded_model.pretrain …` | tokens | minutes | accuracy on dev problems |
|---|---|---|---|
| `--out A --size s --tokens 8000000 --seed 0` | 8.0M | 12.4 | 86.5% (n=200, 2-5 steps) |
| `--out B --size s --tokens 10000000 --seed 1 --init A` | 10.0M | 19.9 | 94.5% (n=200, 2-5 steps) |
| `--out C --size s --tokens 36000000 --seed 11 --init B --entity-weight 4 --curriculum-from 0.7` | 36.0M | 29.1 | \
99.3% (n=300, 2-4 steps) |

The first two runs saw stories of two to five steps and no instruction between stop marks (commit `d068a7a`); the last
one saw what this version writes."""
CARD: Final = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
---

# The embedded reasoner of tokenskip

A {parameters:,}-parameter decoder-only model (stock `LlamaForCausalLM`, 4 layers, width 64, 2 heads of size 32) with
its own tokenizer of 1,152 tokens. It solves short running-total stories by writing a wordy, numbered chain of thought,
and nothing else: it exists so that the whole TokenSkip method can be run and tested on a CPU, offline, in minutes.

## Accuracy

Greedy decoding on {n:,} held-out problems (split `test`); 95% Wilson intervals. `docs/results/embedded_model.json` in
the repository holds every figure; `PYTHONPATH=tools python -m embedded_model.measure` measures them again.

| asked with | n | accuracy | interval | chain, mean tokens |
|---|---|---|---|---|
{table}

Accuracy of the wordy chain by number of steps: {steps}.
Chains have {p5}-{p95} tokens (5th to 95th percentile).

Answering without a chain fails: that is the point of the family. Note what a prompt alone does: the model knows a
terse register, so "Be concise." shortens its chains without any further training. What TokenSkip adds is the choice of
the ratio, not the ability to be brief.

## Data

Procedural stories (`tokenskip.embedded.family`): a start value of 3-50 and 2-4 events (add or take away 2-9, double,
triple, halve), totals within 1-99, with 48 names, 26 things, 22 kinds of events in two tellings each, and an exact
answer. Every number of the story is in order; the running totals are not. A hash of the question decides to which
split (`pretrain`, `train`, `dev`, `test`) it may belong, so no question of one split can occur in another.

Pretraining documents (`embedded_model.registers`) answer in one of several registers, asked for by an instruction
after the question, sometimes between two `<|im_end|>`: *chatty* (no instruction; about half), *plain*, *telegraphic*,
*rough notes* (random filler dropout), *equations only* and *answer only*. In rough notes each filler word is dropped
with a rate that is drawn once per document and never stated; the generator knows which of its words are filler, so no
scorer takes part. Many questions end with an irrelevant suffix (`Thanks!`, `[item 7b]`, stray marks, a word
between two `<|im_end|>`) after which the chain is the usual one. Pretraining never contains a ratio, a percentage or a
decimal number in a prompt, and never a chain that was pruned by a scorer.

## How it was made

{how}

Loss on the assistant's part only; filler weighs little at first (0.1) and fully in the end. Muon in fp32 for matrices,
AdamW for embeddings and norms. No pretrained weights, no text written by a person or by another model.

## Limits

Stories of more than four steps are not what it was trained for last. It sometimes names a friend whom the story does
not mention. It knows about {words} words and one kind of story. Any other question gets nonsense, in the same
confident tone.
Results on it show that the method and its implementation work; they say little about large models.

Apache-2.0, like the rest of the repository.
"""


def table(arms: dict[str, Any]) -> str:
    """The markdown rows of all measured ways of asking."""
    lines = []
    for name, label in ROWS.items():
        if arm := arms.get(name):
            span = f"{arm['accuracy_low']:.1%}-{arm['accuracy_high']:.1%}"
            lines.append(f"| {label} | {arm['n']:,} | {arm['accuracy']:.1%} | {span} | {arm['cot_tokens_mean']:.0f} |")
    return "\n".join(lines)


def card(figures: dict[str, Any]) -> str:
    """The text of the model card."""
    chatty = figures["arms"]["chatty"]
    steps = ", ".join(f"{k}: {row['accuracy']:.1%} (n={row['n']})" for k, row in chatty["by_steps"].items())
    return CARD.format(
        parameters=figures["parameters"], n=chatty["n"], table=table(figures["arms"]), steps=steps, how=HOW,
        p5=chatty["cot_tokens_p5"], p95=chatty["cot_tokens_p95"], words=730,
    )  # fmt: skip


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Write the embedded model's card.")
    parser.add_argument("--figures", type=Path, default=Path("docs/results/embedded_model.json"))
    parser.add_argument("--model", type=Path, default=model_path())
    args = parser.parse_args()
    text = card(json.loads(args.figures.read_text(encoding="utf-8")))
    (args.model / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
