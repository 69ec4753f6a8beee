"""Our training step is TRL's: the same loss and gradients, whatever the parts, threads and lengths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import TEMPLATES, family_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tokenskip.training import loss, trainer
from tokenskip.training.average import Average
from tokenskip.training.loss import has_plain_head, summed_loss
from tokenskip.training.trainer import Chains, split_batch


def batch_of(lengths: list[int], vocabulary: int, prompt: int = 3) -> dict[str, torch.Tensor]:
    """Random rows padded on the right, the first `prompt` tokens without a loss."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    labels = ids.where(mask.bool(), -100)
    labels[:, :prompt] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("family", TEMPLATES)
def test_loss_and_gradients_are_those_of_the_models_logits(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", 7)
    model = AutoModelForCausalLM.from_pretrained(family_model(family, tmp_path)).eval()
    batch = batch_of([9, 30, 14, 5], model.config.vocab_size)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    expected = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum", ignore_index=-100)
    weights = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, weights)
    assert has_plain_head(model) == (family != "gemma")  # its logits are capped
    for largest in (1, 40, 10_000):
        parts = split_batch(batch, largest)
        losses = [summed_loss(model, part, plain=has_plain_head(model)) for part in parts]
        torch.testing.assert_close(sum(losses), expected, rtol=1e-5, atol=1e-4)
        for p, gradient in zip(wanted, torch.autograd.grad(sum(losses), weights), strict=True):
            torch.testing.assert_close(gradient, p, rtol=1e-4, atol=1e-4)


def test_parts_hold_every_row_once_with_little_padding() -> None:
    lengths = [int(n) for n in torch.randint(20, 300, (24,), generator=torch.Generator().manual_seed(2))]
    batch = batch_of(lengths, 50)
    parts = split_batch(batch, 900)
    rows = sorted(tuple(row[row != 0].tolist()) for part in parts for row in part["input_ids"])
    assert rows == sorted(tuple(row[row != 0].tolist()) for row in batch["input_ids"])
    assert all(part["input_ids"].numel() <= 900 for part in parts)
    assert sum(part["input_ids"].numel() for part in parts) < 1.15 * sum(lengths) < 0.8 * batch["input_ids"].numel()
    assert len(split_batch(batch, 10**6)) == 2  # a part for each of two cores
    assert len(split_batch(batch_of([40], 50), 10)) == 1


def chains_of(sizes: list[int]) -> list[str]:
    return [f"chain {i}" for i, size in enumerate(sizes) for _ in range(size)]


def epoch(chains: list[str], batch_size: int, seed: int, number: int = 0) -> list[int]:
    sampler = Chains(chains, batch_size, seed)
    sampler.set_epoch(number)
    return list(sampler)


@pytest.mark.parametrize("sizes", [[6] * 40, [6, 5, 6, 3, 1, 6, 2, 6] * 20, [7] * 9, [1] * 30, [30, 2, 30]])
def test_every_row_once_and_chains_whole(sizes: list[int]) -> None:
    chains = chains_of(sizes)
    order = epoch(chains, 24, 0)
    assert sorted(order) == list(range(len(chains)))
    batches = [order[at : at + 24] for at in range(0, len(order), 24)]
    split = sum(len({at for at, batch in enumerate(batches) if {chains[row] for row in batch} & {name}}) > 1
                for name in set(chains))  # fmt: skip
    assert split <= {6: 0, 7: 3, 1: 0, 30: 3}.get(sizes[0], 0) if len(set(sizes)) < 3 else split <= 4


def test_order_follows_the_seed_and_the_epoch() -> None:
    chains = chains_of([3] * 50)
    orders = [epoch(chains, 24, seed, number) for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch(chains, 24, 1, 1) == orders[3]


def test_threads_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same adapter on one core and on three."""
    import hashlib

    from scripted_runs import recipe

    from tokenskip import pipeline
    from tokenskip.config import load_recipe

    file = recipe(tmp_path, family_model("llama", tmp_path / "model"), train={"trainer": {"max_steps": 4}})
    monkeypatch.setattr(trainer, "PART", 64 * 100)
    digests = []
    for n in (1, 3):
        monkeypatch.setattr(trainer, "cores", lambda n=n: n)
        with pipeline.Run(tmp_path / f"run{n}", load_recipe(file)) as job:
            for stage in ("generate", "grade", "score", "prune", "train"):
                getattr(pipeline, stage)(job)
        weights: Any = (tmp_path / f"run{n}" / "adapter" / "adapter_model.safetensors").read_bytes()
        digests.append(hashlib.sha256(weights).hexdigest())
    assert digests[0] == digests[1]


def trained(folder: Path, file: Path, *overrides: str, stop_at: int | None = None) -> str:
    """The digest of the adapter that a recipe trains; `stop_at`: killed there and taken up again."""
    import hashlib
    import shutil

    from tokenskip import pipeline
    from tokenskip.config import load_recipe
    from tokenskip.progress import Silent

    class Interrupting(Silent):
        """Ctrl-C after some steps."""

        def stage(self, title: str, total: int | None) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def bar() -> Any:
                done = 0

                def advance(n: int, **_: Any) -> None:
                    nonlocal done
                    done += n
                    if title == "train" and done == stop_at:
                        raise KeyboardInterrupt

                yield advance

            return bar()

    shutil.copytree(file.parent / "base", folder)
    config = load_recipe(file, overrides)
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt), pipeline.Run(folder, config, Interrupting()) as job:
            pipeline.train(job)
        assert list((folder / "checkpoints").glob("checkpoint-*"))
    with pipeline.Run(folder, config) as job:
        pipeline.train(job)
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("order", ["rows", "chains"])
def test_a_seed_is_a_training(order: str, tmp_path: Path) -> None:
    """One seed gives the same bytes, also where it was interrupted; two seeds give two trainings."""
    from scripted_runs import recipe

    from tokenskip import pipeline
    from tokenskip.config import load_recipe

    train = {"order": order, "dropout": 0.1, "batch_size": 4, "epochs": 2, "save_steps": 1000}
    file = recipe(tmp_path, family_model("llama", tmp_path / "model"), train=train)
    with pipeline.Run(tmp_path / "base", load_recipe(file)) as job:
        for stage in ("generate", "grade", "score", "prune"):
            getattr(pipeline, stage)(job)
    first = trained(tmp_path / "a", file)
    assert first == trained(tmp_path / "b", file, "train.seed=0")
    assert first == trained(tmp_path / "c", file, stop_at=2)
    assert first == trained(tmp_path / "d", file, stop_at=9)  # in the second epoch
    assert first != trained(tmp_path / "e", file, "train.seed=1")
    averaged = trained(tmp_path / "f", file, "train.average=0.5")
    assert averaged == trained(tmp_path / "g", file, "train.average=0.5", stop_at=9)  # after the mean has begun
    assert averaged != first


def test_the_mean_is_that_of_the_last_steps() -> None:
    weight, still = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight, still], lr=0.1)
    state = SimpleNamespace(max_steps=10, global_step=0)
    average, seen = Average(0.3), []
    for step in range(1, 11):
        weight.grad = torch.randn(3, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        state.global_step = step
        average.on_step_end(None, state, None, optimizer=optimizer)
        seen.append(weight.detach().clone())
    average.on_train_end(None, state, None, optimizer=optimizer)
    torch.testing.assert_close(weight.detach(), torch.stack(seen[7:]).mean(0))
    assert still.tolist() == [1, 1]


@pytest.mark.parametrize(("given", "falls_from"), [("", 12), ("lr_scheduler_kwargs: {num_decay_steps: 5}", 15)])
def test_the_rate_stays_and_then_falls_to_zero(given: str, falls_from: int, tmp_path: Path) -> None:
    """`warmup_stable_decay` without a number of steps falls over the last 40% of them."""
    from transformers import AutoTokenizer

    from tokenskip.config import load_recipe
    from tokenskip.training.train import make_trainer, training_arguments

    folder = family_model("llama", tmp_path)
    wanted = ["scheduler=warmup_stable_decay", "warmup=0.1", "epochs=2", "batch_size=4", "learning_rate=0.5"]
    if given:
        wanted.append(f"trainer={{{given}}}")
    config = load_recipe(None, [f"model.path={folder}", *(f"train.{one}" for one in wanted)])
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}] * 40
    arguments = training_arguments(config, tmp_path / "checkpoints")
    model = AutoModelForCausalLM.from_pretrained(folder)
    made = make_trainer(model, rows, config, arguments, AutoTokenizer.from_pretrained(folder))
    made.create_optimizer_and_scheduler(num_training_steps=config.train.steps(len(rows)))
    rates = []
    for _ in range(20):
        rates.append(made.lr_scheduler.get_last_lr()[0])
        made.optimizer.step()
        made.lr_scheduler.step()
    assert rates[:2] == [0, 0.25]
    assert rates[2 : falls_from + 1] == [0.5] * (falls_from - 1)
    assert all(later < earlier for earlier, later in zip(rates[falls_from:], rates[falls_from + 1 :], strict=False))
    assert made.lr_scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("device", "method", "dtype", "weights", "bf16"),
    [
        ("cuda", "full", "auto", "float32", True),
        ("cuda", "full", "bfloat16", "float32", True),
        ("cuda", "full", "float32", "float32", False),
        ("cuda", "lora", "auto", "bfloat16", True),
        ("cuda", "lora", "float32", "float32", False),
        ("cpu", "full", "auto", "float32", False),  # the embedded model is too narrow for bf16 to pay
        ("cpu", "lora", "bfloat16", "float32", True),
        ("cpu", "lora", "float32", "float32", False),
    ],
)
def test_what_is_trained_is_kept_in_float32(
    device: str, method: str, dtype: str, weights: str, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenskip.config import check_config
    from tokenskip.training import train

    monkeypatch.setattr(train, "pick_device", lambda _: device)
    monkeypatch.setattr(train, "has_bf16", lambda _: True)
    config = check_config({"model": {"dtype": dtype}, "train": {"method": method}}, "test")
    assert train.placed(config).dtype == weights
    assert train.uses_bf16(config.model) == bf16
    wide = config.model.model_copy(update={"dtype": "auto"})
    monkeypatch.setattr(train, "model_width", lambda _: 576)
    assert train.uses_bf16(wide)


def test_frozen_matrices_of_a_bf16_training_are_rounded_once(tmp_path: Path) -> None:
    """The loss in bf16 is near that in float32, and the adapter's weights stay in float32."""
    from peft import LoraConfig, get_peft_model

    from tokenskip.training.train import _round_frozen

    model = AutoModelForCausalLM.from_pretrained(family_model("qwen2", tmp_path)).eval()
    batch = batch_of([9, 30], model.config.vocab_size)
    expected = summed_loss(model, batch, plain=True)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    _round_frozen(adapted)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    rounded = [p for p in adapted.parameters() if p.dtype == torch.bfloat16 and p.ndim == 2]
    assert len(rounded) == 14  # seven matrices in each of two layers
    with torch.autocast("cpu", torch.bfloat16):
        assert has_plain_head(adapted.get_base_model())
        found = summed_loss(adapted.get_base_model(), batch, plain=True)
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
