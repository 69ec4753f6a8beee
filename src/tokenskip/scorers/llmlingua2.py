"""`llmlingua2`: the probability that a token classifier keeps a word (LLMLingua-2, Pan et al. 2024, arXiv 2403.12968).

    importance(word) = mean over its tokens of p(keep | text) = softmax(logits)[1]             (their section 4.2)

TokenSkip's own scorer, on any XLM-RoBERTa or BERT checkpoint with two labels; `tokenskip distill` writes such
checkpoints. This is our cutting rule: words are spans over the *original* text, found by the tokenizer's offsets, so no
newline, symbol or fraction is lost, and the target's own tokens are the budget. For what the `llmlingua` package would
return, decision for decision, see `llmlingua_rule`. Deviations from the package:

- `framing="trained"` puts the tokenizer's own begin and end tokens around a text, as the checkpoints were trained;
  `framing="upstream"` does what the package does: `[CLS]` and `[SEP]` always, which XLM-R reads as unknown tokens.
- A word is a run of letters, a run of digits, or one other sign; a token over two words counts for both.
- A text longer than the model is cut into pieces after the last full stop or newline that fits (anywhere, if there is
  none), at most `max_length - 2` tokens each; every token is scored exactly once.

    tokenskip prune FILE.jsonl --scorer llmlingua2 --model MODEL --ratio 0.6 -o OUT.jsonl
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenskip.errors import ModelError
from tokenskip.scorers._causal import check_choice
from tokenskip.scorers._classifier import Classifier
from tokenskip.types import Scores, Span, Trajectory

_WORD = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_")
FRAMINGS = ("trained", "upstream")


@dataclass(eq=False, repr=False, kw_only=True)
class LLMLingua2(Classifier):
    """p(keep) per word."""

    name = "llmlingua2"

    framing: Literal["trained", "upstream"] = "trained"

    def __post_init__(self) -> None:
        check_choice("framing", self.framing, FRAMINGS)
        super().__post_init__()
        tokens = self.tokenizer
        if not getattr(tokens, "is_fast", False):
            raise ModelError(f"{type(tokens).__name__} gives no character offsets: scoring needs a fast tokenizer")
        if self.framing == "upstream":
            self.frame = tuple(tokens.convert_tokens_to_ids(["[CLS]", "[SEP]"]))
        else:
            self.frame = (tokens.cls_token_id, tokens.sep_token_id)

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order."""
        texts = [trajectory.cot for trajectory in trajectories]
        rows, places, offsets = [], [], []
        for index, text in enumerate(texts):
            encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            offsets.append(encoding["offset_mapping"])
            for start, end in chunk(text, offsets[-1], self.max_length - 2):
                rows.append([self.frame[0], *encoding["input_ids"][start:end], self.frame[1]])
                places.append((index, start))
        values = [[0.0] * len(token_offsets) for token_offsets in offsets]
        for row, keep in self.keep_probabilities(rows):
            index, start = places[row]
            values[index][start : start + len(keep) - 2] = keep[1:-1].tolist()
        return [
            Scores(scorer=self.name, spans=word_spans(text, token_offsets, value))
            for text, token_offsets, value in zip(texts, offsets, values, strict=True)
        ]


def chunk(text: str, offsets: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Token ranges of at most `size` tokens that cover the text, each ending after a full stop or newline if any."""
    ranges, start = [], 0
    while len(offsets) - start > size:
        end = start + size
        for cut in range(end, start, -1):
            # up to the next token's first character, so that a newline between two tokens is seen
            if set(text[offsets[cut - 1][0] : offsets[cut][0]].rstrip(" ")[-1:]) & {".", "\n"}:
                end = cut
                break
        ranges.append((start, end))
        start = end
    if start < len(offsets):
        ranges.append((start, len(offsets)))
    return ranges


def word_spans(text: str, offsets: Sequence[tuple[int, int]], values: Sequence[float]) -> tuple[Span, ...]:
    """The mean value of the tokens that share characters with each word; words that no token covers are left out."""
    spans, first = [], 0
    for word in _WORD.finditer(text):
        start, end = word.span()
        while first < len(offsets) and offsets[first][1] <= start:
            first += 1
        at, covering = first, []
        while at < len(offsets) and offsets[at][0] < end:
            if offsets[at][1] > max(start, offsets[at][0]):
                covering.append(values[at])
            at += 1
        if covering:
            spans.append(Span(start, end, sum(covering) / len(covering)))
    return tuple(spans)
