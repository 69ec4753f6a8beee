"""The default backend: a transformers model in this process, decoded as `_decode` does it.

The same prompts in the same call give the same batches, so a repeated call gives the same bytes. A sampled row has
random numbers of its own, so which prompts go together changes nothing. Models with another cache (sliding windows,
recurrent layers) are left to transformers' `generate`, in batches sorted by length and padded on the left.

Of the model's generation settings only the end and padding tokens count: some folders bring a repetition penalty,
and greedy would mean something else here than on a server.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenskip.types import Completion, Finish, Prompt, Sampling

_GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


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
        model.generation_config = type(model.generation_config)(**self._ends())

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`. A prompt that does not fit the context with its cap becomes an error record."""
        from tokenskip.backends._decode import can_decode

        completions: dict[int, Completion] = {}
        caps = [prompt.max_new_tokens or sampling.max_new_tokens for prompt in prompts]
        for i, prompt in enumerate(prompts):
            if refused := self._refused(prompt, caps[i]):
                completions[i] = refused
        fitting = [i for i in range(len(prompts)) if i not in completions]
        if can_decode(self.model):
            completions |= self._decode({i: prompts[i] for i in fitting}, caps, sampling)
        else:
            for batch in self._batches(prompts, fitting, caps):
                done = self._complete({i: prompts[i] for i in batch}, caps[batch[0]], sampling)
                completions |= zip(batch, done, strict=True)
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

    def _decode(self, prompts: Mapping[int, Prompt], caps: Sequence[int], sampling: Sampling) -> dict[int, Completion]:
        """The completions of these prompts, by their indices."""
        from tokenskip.backends._decode import Decoder, Request, row_bytes

        requests = []
        for i, prompt in prompts.items():
            numbers = _uniforms(prompt, i, caps[i], sampling) if sampling.temperature > 0 else None
            requests.append(Request(index=i, prompt=prompt.token_ids, cap=caps[i], uniforms=numbers))
        columns = max((len(request.prompt) + request.cap for request in requests), default=1)
        decoder = Decoder(
            self.model,
            eos_ids=self.eos_ids,
            pad_id=self.tokenizer.pad_token_id,
            rows=max(1, min(self.batch_size, free_memory(self.model.device) // 2 // row_bytes(self.model, columns))),
            sampling=sampling,
        )
        return {request.index: self._completion(request.made) for request in decoder.run(requests)}

    def _batches(self, prompts: Sequence[Prompt], indices: Sequence[int], caps: Sequence[int]) -> Iterator[list[int]]:
        """Indices of prompts with one cap, shortest first."""
        by_cap: dict[int, list[int]] = {}
        for i in indices:
            by_cap.setdefault(caps[i], []).append(i)
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

    def _complete(self, prompts: Mapping[int, Prompt], cap: int, sampling: Sampling) -> list[Completion]:
        import torch

        width = max(len(prompt.token_ids) for prompt in prompts.values())
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts.values()):
            ids[row, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
            mask[row, width - len(prompt.token_ids) :] = 1
        options = _GREEDY
        if sampling.temperature > 0:
            numbers = [_uniforms(prompt, i, cap, sampling) for i, prompt in prompts.items()]
            options = {**_GREEDY, "logits_processor": [_row_sampler(torch.stack(numbers, 1), sampling)]}
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


def _uniforms(prompt: Prompt, place: int, n: int, sampling: Sampling) -> Any:
    """`n` random numbers in [0, 1), by the prompt's own seed; one without gets others at every place of a call."""
    import torch

    seed = zlib.crc32(repr((sampling.seed, place, *prompt.token_ids)).encode()) if prompt.seed is None else prompt.seed
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def _row_sampler(uniforms: Any, sampling: Sampling) -> Any:
    """A logits processor that leaves each row the token that its numbers draw; `uniforms` are (steps, rows)."""
    import torch
    from transformers import LogitsProcessor

    from tokenskip.backends._decode import draw

    steps = iter(uniforms)

    class RowSampler(LogitsProcessor):  # type: ignore[misc]
        """(rows, vocabulary) logits -> minus infinity but for the token drawn."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            drawn = draw(scores.float(), next(steps), sampling)
            return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)

    return RowSampler()


def free_memory(device: Any) -> int:
    """Bytes that can still be allocated on a device."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
