"""Trains the embedded reasoner from scratch on generated documents.

Reads nothing but a checkpoint of its own (`OUT/checkpoint.pt`, to go on after a stop); writes the model, its
tokenizer and `log.jsonl` into OUT.

    PYTHONPATH=tools python -m embedded_model.pretrain --out build/embedded --size s --tokens 8000000
"""

import argparse
import json
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from embedded_model import tokenizer as own_tokenizer
from embedded_model.batches import Batch, Stream
from embedded_model.measure import accuracy
from tokenskip.training.muon import Muon

SIZES: Final[dict[str, dict[str, int]]] = {
    "xs": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 1, "intermediate_size": 88},
    "s": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 176},
    "b": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 352},
}
BATCH_TOKENS: Final = 4096
LEARNING_RATE: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run does. `curriculum_from` > 0 skips that share of the curriculum (drills, light filler)."""

    size: str = "s"
    tokens: int = 8_000_000
    seed: int = 0
    init: Path | None = None
    entity_weight: float = 1.0
    curriculum_from: float = 0.0
    lr_scale: float = 1.0


@dataclass
class State:
    """Where a run stands."""

    step: int = 0
    tokens: int = 0
    chunk: int = 0
    seconds: float = 0.0


def build_model(size: str, tokenizer: Any) -> Any:
    """A randomly initialised stock Llama of one of `SIZES`."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=True,
        num_key_value_heads=shape["num_attention_heads"], bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, rms_norm_eps=1e-5, initializer_range=0.03, **shape,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=400
    )
    return model


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Weighted mean cross entropy of the completion's tokens."""
    logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1]
    labels, weights = batch.labels[:, 1:], batch.weights[:, 1:]
    at = labels >= 0
    each = functional.cross_entropy(logits[at].float(), labels[at], reduction="none")
    return (each * weights[at]).sum() / weights[at].sum()


def rate(progress: float, step: int) -> float:
    """Learning-rate factor: a short warm-up, a plateau, then linear to zero."""
    return min(1.0, (step + 1) / 100) * min(1.0, (1 - min(progress, 1.0)) / 0.6)


class Run:
    """One training run with exact resume."""

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self.out, self.recipe, self.state = out, recipe, State()
        torch.manual_seed(recipe.seed)
        out.mkdir(parents=True, exist_ok=True)
        if recipe.init and not (out / "tokenizer.json").exists():
            # another tokenizer would give the ids of loaded weights other meanings
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copyfile(recipe.init / name, out / name)
        self.tokenizer = own_tokenizer.load_or_build(out)
        self.model = build_model(recipe.size, self.tokenizer)
        if recipe.init:
            self.model = type(self.model).from_pretrained(recipe.init, dtype=torch.float32)
        self.stream = Stream(self.tokenizer, BATCH_TOKENS, recipe.seed, recipe.entity_weight)
        self.optimizer = Muon(self.model, LEARNING_RATE)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        if (out / "checkpoint.pt").exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = State(**saved["state"])

    def save(self) -> None:
        """Writes the checkpoint and the model folder."""
        saved = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "state": vars(self.state)}
        part = self.out / "checkpoint.part"
        torch.save(saved, part)
        part.replace(self.out / "checkpoint.pt")
        self.model.save_pretrained(self.out)

    @property
    def progress(self) -> float:
        """Share of the token budget that is used up."""
        return self.state.tokens / self.recipe.tokens

    def step(self, batch: Batch) -> float:
        """One update; returns the loss."""
        factor = self.recipe.lr_scale * rate(self.progress, self.state.step)
        for group, lr in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = lr * factor
        loss = loss_of(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.tokens += batch.n_tokens
        return float(loss.detach())

    def log(self, **record: object) -> None:
        """Appends one line to log.jsonl and prints it."""
        line = json.dumps({**vars(self.state), **record})
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def train(self, eval_every: int, eval_n: int) -> None:
        """Trains to the end of the token budget; checkpoints at every evaluation, on a chunk's border."""
        next_eval = (self.state.tokens // eval_every + 1) * eval_every
        while self.state.tokens < self.recipe.tokens:
            began = time.perf_counter()
            batches = self.stream.batches(self.state.chunk, max(self.recipe.curriculum_from, self.progress))
            losses = [self.step(batch) for batch in batches]
            took = time.perf_counter() - began
            self.state.chunk += 1
            self.state.seconds += took
            if self.state.chunk % 20 == 0:
                speed = sum(batch.n_tokens for batch in batches) / took
                self.log(loss=round(sum(losses) / len(losses), 4), tok_s=round(speed))
            if self.state.tokens >= min(next_eval, self.recipe.tokens):
                next_eval += eval_every
                self.save()
                self.model.eval()
                self.log(dev_accuracy=accuracy(self.model, self.tokenizer, "dev", eval_n))
                self.model.train()


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the embedded reasoner from scratch.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="s")
    parser.add_argument("--tokens", type=int, default=8_000_000, help="token budget, padding included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eval-every", type=int, default=2_000_000)
    parser.add_argument("--eval-n", type=int, default=200)
    parser.add_argument("--init", type=Path, help="go on from this model's weights (use another seed)")
    parser.add_argument("--entity-weight", type=float, default=1.0, help="weight of names and things in the loss")
    parser.add_argument("--curriculum-from", type=float, default=0.0, help="skip this share of the curriculum")
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on both learning rates")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    Run(args.out, recipe).train(args.eval_every, args.eval_n)


if __name__ == "__main__":
    main()
