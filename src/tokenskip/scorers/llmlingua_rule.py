"""`rule=llmlingua`: what `llmlingua` 0.2.2 returns, decision for decision, with one model pass for all rates.

    PromptCompressor(name, use_llmlingua2=True).compress_prompt(text, rate=r, ...)["compressed_prompt"]

Reads texts, returns compressed texts; needs neither `llmlingua` nor its dependencies, but cl100k through `tiktoken`,
since upstream weighs a word by its length in OpenAI's tokens. Everything that decides is mirrored, also where it looks
like a slip: `[CLS]`/`[SEP]` framing for XLM-R (unknown tokens there), SentencePiece's word mark counted as characters,
truncating percentiles, a strict threshold per chunk, chunks joined without a space, and, for force tokens of several
pieces, the untrained `[NEWi]` embeddings drawn with seed 42. Newlines and runs of spaces are lost, as they are there;
`llmlingua2` is the scorer for new work. What remains is float32 rounding: two words whose probabilities differ by less
than 1e-6 may change places, as they may between two machines that both run the package. Upstream chooses its rules by
the checkpoint's *name*, we by its model type.

Where upstream raises, we return a result or a clear error:

- a rate of 0 or below: ConfigError (there: ValueError from numpy).
- a chunk of unknown tokens only, or of none: "" (there: IndexError or "").
- "<|endoftext|>" and the like inside a text: counted as ordinary text (there: ValueError).
- a chunk that begins with a continuation piece: the piece begins a word (there: IndexError).

    rule = LLMLinguaRule(path, preset="official-qwen")
    [[at_half, at_seventy]] = rule.compress([text], [0.5, 0.7])
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tokenskip.errors import ConfigError, ModelError
from tokenskip.scorers._causal import check_choice
from tokenskip.scorers._classifier import Classifier

PRESETS: dict[str, dict[str, Any]] = {
    "official-qwen": {},
    "official-llama3": {"force_tokens": ("Step", ":"), "force_reserve_digit": True, "drop_consecutive": True},
}
"""How the official TokenSkip repository calls the package for each model family (its LLMLingua.py)."""

MAX_LENGTH = 512
MAX_FORCE_TOKENS = 100
_CHUNK_ENDS = (".", "\n")
_WINDOW = 256  # texts whose word probabilities are held at once
_Words = tuple[list[str], list[Any]]


@dataclass(eq=False, repr=False, kw_only=True)
class LLMLinguaRule(Classifier):
    """Compresses texts as `llmlingua` 0.2.2 does. `preset` sets the three options as the official repository does."""

    name = "llmlingua"

    force_tokens: Sequence[str] = ()
    force_reserve_digit: bool = False
    drop_consecutive: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            check_choice("preset", self.preset, tuple(PRESETS))
            if self.force_tokens or self.force_reserve_digit or self.drop_consecutive:
                raise ConfigError(
                    f"preset {self.preset} sets force_tokens, force_reserve_digit and drop_consecutive itself: "
                    "give the preset, or these options"
                )
            for option, value in PRESETS[self.preset].items():
                setattr(self, option, value)
        if len(self.force_tokens) > MAX_FORCE_TOKENS:
            raise ConfigError(f"force_tokens: at most {MAX_FORCE_TOKENS}; given: {len(self.force_tokens)}")
        self._count = _counter()
        self._owned = isinstance(self.model, str)
        super().__post_init__()
        if self.max_length < MAX_LENGTH:
            raise ModelError(f"rule=llmlingua needs a model of {MAX_LENGTH} positions, as the package pads to that")
        self._prepare_tokenizer()
        self._new_of = {
            token: self._added[i]
            for i, token in enumerate(self.force_tokens)
            if len(self.tokenizer.tokenize(token)) != 1
        }
        self._new_tokens = set(self._new_of.values())

    def count(self, text: str) -> int:
        """Tokens of a text in cl100k, which the package's own counts and rates are in."""
        return int(self._count.__wrapped__(text))

    def compress(self, texts: Sequence[str], rates: Sequence[float]) -> list[list[str]]:
        """The compressed text of every text (outer) at every rate (inner), in the order given.

        Raises:
            ConfigError: a rate that is not above 0.
        """
        for rate in rates:
            if not rate > 0:
                raise ConfigError(f"a rate is a number above 0, such as 0.6; given: {rate:g}")
        results = []
        for at in range(0, len(texts), _WINDOW):
            results += self._compress_window(texts[at : at + _WINDOW], rates)
        return results

    def _compress_window(self, texts: Sequence[str], rates: Sequence[float]) -> list[list[str]]:
        chunked = [list(self._chunks(text)) for text in texts]
        flat = [chunk for chunks in chunked for chunk in chunks]
        cuts: list[list[str]] = [[] for _ in flat]
        if any(rate < 1 for rate in rates):
            for index, words in self._words(flat):
                cuts[index] = [self._cut(*words, max(0, 1 - rate)) if rate < 1 else "" for rate in rates]
        results, at = [], 0
        for chunks in chunked:
            chunk_cuts = cuts[at : at + len(chunks)]
            whole = "".join(map(self._restore, chunks))
            results.append(["".join(c[i] for c in chunk_cuts) if rate < 1 else whole for i, rate in enumerate(rates)])
            at += len(chunks)
        return results

    def _prepare_tokenizer(self) -> None:
        """Upstream's tokenizer: its pad token, its special tokens, and a hundred added `[NEWi]`."""
        self.tokenizer = copy.deepcopy(self.tokenizer)
        pad = self.model.config.pad_token_id
        self.tokenizer.pad_token_id = pad if pad else self.tokenizer.eos_token_id
        named = self.tokenizer.special_tokens_map
        self._special = {value for key, value in named.items() if key != "additional_special_tokens"}
        self._added = [f"[NEW{i}]" for i in range(MAX_FORCE_TOKENS)]
        self.tokenizer.add_special_tokens({"additional_special_tokens": self._added})

    def _chunks(self, text: str) -> Iterator[str]:
        """Strings of up to 511 tokens, each ending with "." or a newline token if there is one (`__chunk_context`)."""
        for token, new in self._new_of.items():
            text = text.replace(token, new)
        ends = {*_CHUNK_ENDS, *(self._new_of[end] for end in _CHUNK_ENDS if end in self._new_of)}
        tokens = self.tokenizer.tokenize(text)
        size, start = MAX_LENGTH - 2, 0
        while start + size <= len(tokens) - 1:
            end = next((i for i in range(start + size, start, -1) if tokens[i] in ends), start + size)
            yield self.tokenizer.convert_tokens_to_string(tokens[start : end + 1])
            start = end + 1
        if start < len(tokens):
            yield self.tokenizer.convert_tokens_to_string(tokens[start:])

    def _words(self, chunks: Sequence[str]) -> Iterator[tuple[int, _Words]]:
        """(index, words and their probabilities) of every chunk, in the order of the batches."""
        rows, masks = [], []
        for chunk in chunks:
            tokens = ["[CLS]", *self.tokenizer.tokenize(chunk), "[SEP]"][:MAX_LENGTH]
            rows.append(self.tokenizer.convert_tokens_to_ids(tokens))
            masks.append([int(token != "[PAD]") for token in tokens])
        if any(max(row) >= self.model.config.vocab_size for row in rows):
            self._extend_model()
        for index, keep in self.keep_probabilities(rows, masks):
            active = [i for i, seen in enumerate(masks[index]) if seen]
            tokens = self.tokenizer.convert_ids_to_tokens([rows[index][i] for i in active])
            yield index, self._merge(tokens, [keep[i] for i in active])

    def _extend_model(self) -> None:
        """Embeddings for `[NEWi]`, drawn as upstream does; the caller's random state and model stay as they are."""
        model = self.model if self._owned else copy.deepcopy(self.model)
        with torch.random.fork_rng():
            torch.manual_seed(42)
            model.resize_token_embeddings(len(self.tokenizer))
        self.model, self._owned = model, True

    def _merge(self, tokens: Sequence[str], probabilities: Sequence[Any]) -> _Words:
        """Words and mean probabilities (`__merge_token_to_word`, `__token_prob_to_word_prob`)."""
        words: list[str] = []
        pieces: list[list[Any]] = []
        for token, probability in zip(tokens, probabilities, strict=True):
            if token in self._special:
                continue
            forced = self.force_reserve_digit and re.search(r"\d", token) is not None
            pure = token.lstrip("▁") if self.family == "xlm-roberta" else token.lstrip("#")
            if self._begins_word(token, pure) or not words:
                if pure in self.force_tokens or pure in self._new_tokens:
                    probability = 1.0
                word = self._restore(token)
                forced = self.force_reserve_digit and re.search(r"\d", word) is not None
                words.append(word)
                pieces.append([1.0 if forced else probability])
            else:
                words[-1] += pure
                pieces[-1].append(1.0 if forced else probability)
        return words, [sum(p) / len(p) for p in pieces]

    def _begins_word(self, token: str, pure: str) -> bool:
        if self.family == "bert":
            return pure in self.force_tokens or pure in self._new_tokens or not token.startswith("##")
        # a substring of the punctuation string, so "./" begins a word and ")," does not
        named = token in string.punctuation or token in self.force_tokens or token in self._new_tokens
        return named or token.startswith("▁")

    def _restore(self, text: str) -> str:
        for token, new in self._new_of.items():
            text = text.replace(new, token)
        return text

    def _cut(self, words: list[str], probabilities: list[Any], reduce: float) -> str:
        """The words above the percentile, as text (`__compress`)."""
        if not words:
            return ""
        if self.drop_consecutive:
            probabilities = self._drop_consecutive(words, probabilities, reduce)
        weights = [self._count(word) for word in words]
        threshold = np.percentile(np.repeat(np.asarray(probabilities), weights), int(100 * reduce + 1))
        kept: list[str] = []
        for word, probability in zip(words, probabilities, strict=True):
            if probability > threshold or (threshold == 1.0 and probability == threshold):
                twice = self.drop_consecutive and word in self.force_tokens and kept and kept[-1] == word
                if not twice:
                    kept.append(word)
        return str(self.tokenizer.convert_tokens_to_string(kept))

    def _drop_consecutive(self, words: list[str], probabilities: list[Any], reduce: float) -> list[Any]:
        """0 for a force word that follows the same one with no kept word between; unweighted threshold, no +1."""
        probabilities = list(probabilities)
        threshold = np.percentile(probabilities, int(100 * reduce))
        between, previous = False, None
        for i, (word, probability) in enumerate(zip(words, probabilities, strict=True)):
            if word in self.force_tokens:
                if between:
                    between = False
                elif word == previous:
                    probabilities[i] = 0.0
                previous = word
            else:
                between = between or bool(probability > threshold)
        return probabilities


def _counter() -> Any:
    """word -> its number of cl100k tokens, cached.

    Raises:
        ConfigError: tiktoken or its vocabulary is not there.
    """
    try:
        import tiktoken
    except ModuleNotFoundError:
        raise ConfigError("rule=llmlingua counts in OpenAI's tokens: pip install tiktoken") from None
    try:
        encoding = tiktoken.encoding_for_model("gpt-3.5-turbo")
    except Exception as error:  # tiktoken lets its HTTP client's own errors through
        raise ConfigError(
            f"rule=llmlingua needs tiktoken's cl100k_base, which could not be loaded ({type(error).__name__}): "
            "run once with network, or set TIKTOKEN_CACHE_DIR to a folder with "
            "9b5ad71b2ce5302211f9c61530b329a4922fc6a4 (its name in tiktoken's cache; the llama-index-core wheel has it)"
        ) from None

    @lru_cache(maxsize=2**16)
    def count(word: str) -> int:
        return len(encoding.encode(word, disallowed_special=()))

    return count
