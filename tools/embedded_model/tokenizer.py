"""The embedded model's own tokenizer: one token per common word, single digits, lossless bytes for all else.

Reads nothing; writes tokenizer.json, tokenizer_config.json and chat_template.jinja into a folder.

    PYTHONPATH=tools python -m embedded_model.tokenizer --out build/tokenizer
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedded_model.registers import REGISTERS, document
from tokenskip.embedded.family import stories

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY: Final = 1152
MERGES: Final = 160
PAD, START, STOP = "<|pad|>", "<|im_start|>", "<|im_end|>"
# a digit is always alone; a word takes the one space in front of it; a line break and a paragraph break are one token
PATTERN: Final = r"\n\n|\n| ?\d|'[a-z]+| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# parts of the prompts of other tasks, so that a stranger's question costs fewer bytes
EXTRA_WORDS: Final = (
    "user", "assistant", "system", "Please", "question", "answer", "problem", "number", "each", "per", "cost", "total",
    "boxed",
)  # fmt: skip


def sample_texts(n: int = 12_000) -> Iterator[str]:
    """Prompts and completions of the pretraining split, from which word counts are taken."""
    for index, story in enumerate(stories("pretrain", n, seed=1)):
        doc = document(story, REGISTERS[index % len(REGISTERS)], random.Random(story.id))
        yield doc.prompt.replace(STOP, " ").replace(START, " ")
        yield doc.completion


def build(texts: list[str], vocabulary: int = VOCABULARY) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer whose vocabulary holds the most frequent whole words.

    A few merges are learned for words outside of the vocabulary; whole words are looked up before any merge
    (`ignore_merges`), so that they need no merge chain of their own.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    tokens: dict[str, int] = {}
    for token in (PAD, START, STOP, *alphabet, *(a + b for a, b in merges)):
        tokens.setdefault(token, len(tokens))
    wanted = [form for word in EXTRA_WORDS for form in (word, "Ġ" + word)]
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for word in wanted + [word for word, _ in ranked]:
        if len(tokens) < vocabulary:
            tokens.setdefault(word, len(tokens))

    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, START, STOP])
    options: dict[str, Any] = {"eos_token": STOP, "pad_token": PAD, "padding_side": "left"}
    options |= {"additional_special_tokens": [START], "model_max_length": 1024}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **options)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def load_or_build(out: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer in a folder; where there is none, it is built and written first."""
    from transformers import PreTrainedTokenizerFast

    if not (out / "tokenizer.json").exists():
        build(list(sample_texts())).save_pretrained(out)
        # the class name of transformers 5 is unknown to engines that still carry an older one
        config = out / "tokenizer_config.json"
        values = json.loads(config.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return PreTrainedTokenizerFast.from_pretrained(out)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Build the embedded model's tokenizer.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = load_or_build(args.out)
    print(f"{len(tokenizer)} tokens in {args.out}")


if __name__ == "__main__":
    main()
