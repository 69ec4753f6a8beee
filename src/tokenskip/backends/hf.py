"""The default backend: transformers' own `generate`, batches sorted by length and padded on the left.

Padding costs nothing then, and rows of one batch stop at about the same time. The same prompts in the same call give
the same batches, so a repeated call gives the same bytes. A sampled row has random numbers of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tokenskip.types import Completion, Finish, Prompt, Sampling

_GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _row_sampler(prompts: Sequence[Prompt], cap: int, sampling: Sampling) -> Any:
    """A logits processor that leaves one token a row: drawn by the seed of the row, whatever the batch holds besides.

    Inverse transform sampling at `temperature` from the smallest set of tokens with a probability of `top_p` together.
    """
    import torch
    from transformers import LogitsProcessor

    def seed_of(row: int, prompt: Prompt) -> int:
        if prompt.seed is not None:
            return prompt.seed
        return sampling.seed ^ zlib.crc32(repr((row, prompt.token_ids)).encode())

    def draws_of(seed: int) -> Any:
        return torch.rand(cap, generator=torch.Generator().manual_seed(seed))

    draws = torch.stack([draws_of(seed_of(row, prompt)) for row, prompt in enumerate(prompts)])

    class RowSampler(LogitsProcessor):  # type: ignore[misc]
        """(batch, vocabulary) logits -> minus infinity but for the token drawn."""

        step = 0

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            likely, tokens = (scores.float() / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
            below = likely.cumsum(-1) - likely
            inside = below < sampling.top_p
            drawn = draws[:, self.step, None].to(scores.device) * (likely * inside).sum(-1, keepdim=True)
            place = torch.searchsorted(below, drawn, right=True).minimum(inside.sum(-1, keepdim=True)) - 1
            self.step += 1
            return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, place), 0.0)

    return RowSampler()


class HfBackend:
    """Completes prompts with a loaded causal LM and its tokenizer, `batch_size` at a time."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 64) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.context = getattr(model.config, "max_position_embeddings", None)
        eos = model.generation_config.eos_token_id
        eos = tokenizer.eos_token_id if eos is None else eos
        self.eos_ids = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`. A prompt that does not fit the context with its cap becomes an error record."""
        completions: dict[int, Completion] = {}
        for batch in self._batches(prompts, sampling, completions):
            cap = prompts[batch[0]].max_new_tokens or sampling.max_new_tokens
            completions |= zip(batch, self._complete([prompts[i] for i in batch], cap, sampling), strict=True)
        return [completions[i] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, cap: int, *, step: int = 6) -> Iterator[Completion]:
        """The greedy completion of one prompt as it grows, `step` tokens at a time; the last is what `generate` gives.

        Nothing is computed between two items, so whoever asks for the next one can time it.
        """
        import torch

        if refused := self._refused(prompt, cap):
            yield refused
            return
        ids, cache, more = torch.tensor([prompt.token_ids], device=self.model.device), None, True
        while more:
            made = ids.shape[1] - len(prompt.token_ids)
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    past_key_values=cache,
                    max_new_tokens=min(step, cap - made),
                    return_dict_in_generate=True,
                    **self._ends(),
                    **_GREEDY,
                )
            ids, cache = out.sequences, out.past_key_values
            done = self._completion(ids[0, len(prompt.token_ids) :].tolist())
            yield done
            more = done.finish == "length" and done.n_tokens < cap

    def close(self) -> None:
        """Free the model."""
        self.model = None

    def _batches(
        self, prompts: Sequence[Prompt], sampling: Sampling, failed: dict[int, Completion]
    ) -> Iterator[list[int]]:
        """Indices of prompts with one cap, shortest first; what cannot be completed goes to `failed`."""
        by_cap: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            cap = prompt.max_new_tokens or sampling.max_new_tokens
            if refused := self._refused(prompt, cap):
                failed[i] = refused
            else:
                by_cap.setdefault(cap, []).append(i)
        for cap in sorted(by_cap):
            order = sorted(by_cap[cap], key=lambda i: (len(prompts[i].token_ids), i))
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size]

    def _refused(self, prompt: Prompt, cap: int) -> Completion | None:
        """The error record of a prompt that does not fit the context with its cap."""
        if not self.context or len(prompt.token_ids) + cap <= self.context:
            return None
        error = f"prompt of {len(prompt.token_ids)} tokens + cap {cap} exceed the context of {self.context}"
        return Completion(text="", n_tokens=0, finish="error", error=error)

    def _complete(self, prompts: Sequence[Prompt], cap: int, sampling: Sampling) -> list[Completion]:
        import torch

        width = max(len(prompt.token_ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
            mask[row, width - len(prompt.token_ids) :] = 1
        options = _GREEDY
        if sampling.temperature > 0:
            options = {**_GREEDY, "logits_processor": [_row_sampler(prompts, cap, sampling)]}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=cap,
                **self._ends(),
                **options,
            )
        return [self._completion(row) for row in out[:, width:].tolist()]

    def _ends(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": sorted(self.eos_ids)}

    def _completion(self, ids: list[int]) -> Completion:
        end = next((at for at, token in enumerate(ids) if token in self.eos_ids), None)
        kept = ids if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        finish: Finish = "length" if end is None else "stop"
        return Completion(text=text, n_tokens=len(kept), finish=finish, token_ids=tuple(kept))
