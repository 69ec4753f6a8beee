"""vLLM in this process: prompts go in as token ids, so that no beginning-of-sequence token doubles.

    pip install 'vllm>=0.10'
    tokenskip run mine.yaml --set generate.backend=vllm --set generate.options.gpu_memory_utilization=0.8

The adapter is a LoRA request beside the base weights (a folder after full fine-tuning is the model itself). The ratio
is in the ids already: vLLM renders nothing here, so its habit of ignoring an adapter's chat template cannot matter.
Options go to `vllm.LLM` as they are, for example `max_model_len` or `tensor_parallel_size`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenskip import tracking
from tokenskip.client import lora_rank
from tokenskip.errors import ModelError
from tokenskip.models.loading import resolve_model
from tokenskip.types import Completion, Finish, Prompt, Sampling

tracking.switch_telemetry_off()  # read when vLLM is imported
import vllm  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402


class VllmBackend:
    """Completes prompts with `vllm.LLM`, which batches by itself.

    Raises:
        ModelError: the model is not there, or vLLM cannot load it.
    """

    def __init__(
        self, path: str, tokenizer: Any, adapter: Path | None = None, *, dtype: str = "auto", seed: int = 0, **llm: Any
    ) -> None:
        whole = adapter is not None and (adapter / "config.json").exists()
        self.tokenizer = tokenizer
        self.adapter = None
        options: dict[str, Any] = {"dtype": dtype, "seed": seed, **llm}
        if adapter is not None and not whole:
            rank = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
            options |= {"enable_lora": True, "max_lora_rank": lora_rank(rank)}
            self.adapter = LoRARequest("tokenskip", 1, str(adapter))
        model = str(adapter) if whole else resolve_model(path)
        try:
            self.llm = vllm.LLM(model=model, **options)
        except (OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: an option that it lacks
            raise ModelError(f"vLLM cannot load {path}: {' '.join(str(error).split())[:300]}") from None
        self.context: int = self.llm.llm_engine.model_config.max_model_len

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`. A prompt that does not fit the context with its cap becomes an error record."""
        done: dict[int, Completion] = {}
        for i, prompt in enumerate(prompts):
            cap = prompt.max_new_tokens or sampling.max_new_tokens
            if len(prompt.token_ids) + cap > self.context:
                error = f"prompt of {len(prompt.token_ids)} tokens + cap {cap} exceed the context of {self.context}"
                done[i] = Completion(text="", n_tokens=0, finish="error", error=error)
        fitting = [i for i in range(len(prompts)) if i not in done]
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompts[i].token_ids)} for i in fitting],
            [self._parameters(prompts[i], sampling, i) for i in fitting],
            lora_request=self.adapter,
            use_tqdm=False,
        )
        done |= {i: self._completion(output.outputs[0]) for i, output in zip(fitting, outputs, strict=True)}
        return [done[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Free the model, and the engine's process with it."""
        self.llm = None
        gc.collect()

    def _parameters(self, prompt: Prompt, sampling: Sampling, i: int) -> Any:
        """Greedy, or sampled with the prompt's own seed: repeated samples of a question differ."""
        cap = prompt.max_new_tokens or sampling.max_new_tokens
        common = {"max_tokens": cap, "skip_special_tokens": False}
        if sampling.temperature == 0:
            return vllm.SamplingParams(temperature=0.0, **common)
        seed = (sampling.seed * 1_000_003 + i) % 2**31 if prompt.seed is None else prompt.seed
        return vllm.SamplingParams(temperature=sampling.temperature, top_p=sampling.top_p, seed=seed, **common)

    def _completion(self, output: Any) -> Completion:
        """Without the token that ended it: `stop` when there is one, whatever ended the rest."""
        ids = list(output.token_ids)
        finish: Finish = "stop" if output.finish_reason == "stop" else "length"
        if finish == "stop" and ids and isinstance(output.stop_reason, (int, type(None))):
            ids = ids[:-1]
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Completion(text=text, n_tokens=len(ids), finish=finish, token_ids=tuple(ids))
