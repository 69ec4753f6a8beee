"""`--rule llmlingua` on a file: the text that the `llmlingua` package returns, in lines like those of our own rule.

Reads chains, yields output lines; the decisions are `scorers.llmlingua_rule`'s. Tokens are counted as everywhere (the
target's, by default the model's own) and once more in cl100k, which is what the package's own rate is a share of.
`rejected` says what our equation check finds in the text: here it is a remark, the line is written all the same.
There is no `kept`: the package puts words together again, so its text is no slice of the chain.

    tokenskip prune FILE.jsonl --rule llmlingua --model MODEL --ratio 0.5 --ratio 0.7 -o OUT.jsonl
    tokenskip prune FILE.jsonl --preset official-llama3 --model MODEL --ratio 0.5 -o OUT.jsonl
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tokenskip.commands.files import file_config, pruned_line
from tokenskip.errors import ConfigError
from tokenskip.models.loading import load_tokenizer, resolve_model
from tokenskip.pruning.equations import check_pruned
from tokenskip.recipes import lay_over
from tokenskip.storage.store import Row
from tokenskip.tokens import token_counter
from tokenskip.types import Pruned, Trajectory

SETTINGS = {"score": {"batch_tokens"}, "prune": {"verify"}, "model": {"device", "dtype"}}
"""What `--set` may set under this rule: every other setting would have no effect."""


class RulePruner:
    """A token classifier with the package's rule. `options` are those of `LLMLinguaRule`: preset, force_tokens, ….

    Raises:
        TokenskipError: a setting without effect, an unknown preset, no cl100k vocabulary, no such model; all said
            before weights are read.
    """

    def __init__(
        self, model: str, *, tokenizer: str | None = None, overrides: Sequence[str] = (), **options: Any
    ) -> None:
        _check_settings(overrides)
        self.config = file_config("llmlingua2", model, tokenizer, overrides)
        from tokenskip.scorers.llmlingua_rule import LLMLinguaRule

        self.rule = LLMLinguaRule(
            model if model == "embedded" else resolve_model(model),
            batch_tokens=self.config.score.batch_tokens,
            device=self.config.model.device,
            dtype=self.config.model.dtype,
            **options,
        )
        self.count = token_counter(load_tokenizer(self.config.model))

    def prepare(self, chains: Callable[[], Iterator[Trajectory]], ratios: Sequence[float]) -> None:
        """Nothing: every chain is cut by itself."""

    def lines(self, window: Sequence[Trajectory], ratios: Sequence[float]) -> Iterator[Row]:
        """See `LinePruner.lines`; the model sees every chain once, whatever the number of ratios."""
        texts = [trajectory.cot for trajectory in window]
        for trajectory, cuts in zip(window, self.rule.compress(texts, ratios), strict=True):
            n_tokens, n_cl100k = self.count(trajectory.cot), self.rule.count(trajectory.cot)
            for ratio, text in zip(ratios, cuts, strict=True):
                line = pruned_line(
                    trajectory.id,
                    Pruned(
                        ratio=ratio,
                        text=text,
                        n_tokens=n_tokens,
                        n_tokens_pruned=self.count(text),
                        rejected=check_pruned(trajectory.cot, text) if self.config.prune.verify else None,
                    ),
                )
                del line["kept"]
                yield {**line, "rule": "llmlingua", "n_cl100k": n_cl100k, "n_cl100k_pruned": self.rule.count(text)}


def _check_settings(overrides: Sequence[str]) -> None:
    values: dict[str, Any] = {}
    for override in overrides:
        lay_over(values, override)
        key = override.partition("=")[0].strip()
        section, _, name = key.partition(".")
        if name not in SETTINGS.get(section, ()):
            allowed = ", ".join(f"{table}.{name}" for table, names in SETTINGS.items() for name in sorted(names))
            raise ConfigError(f"--set {key} has no effect under --rule llmlingua: {allowed} have; see also its options")
