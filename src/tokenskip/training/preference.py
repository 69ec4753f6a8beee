"""The adapter of the arm `preference`: the model's own short right answers preferred to its own long ones, no ratio.

A one-shot shortener in minutes, without a ratio (LCPO, arXiv 2508.10164, reports half the tokens after 50 steps on 800
pairs). The pairs are LCPO's: of a question whose chains are all right, the shortest right answer that the untouched
model gave (its samples, or candidates of the sources that ask it) against its longest chain. The loss is SimPO's
(2405.14734) without a margin, by TRL's CPOTrainer:

    L = -log sigmoid( beta (log p(short) / |short| - log p(long) / |long|) )

LCPO weighs the two terms otherwise; its exact loss is not reproduced here. Writes `control-preference/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

from tokenskip import plugins, tracking
from tokenskip.candidates.collect import file_of
from tokenskip.candidates.pool import Part, Question, questions
from tokenskip.candidates.settings import ON_POLICY, PRUNE
from tokenskip.config import RunConfig
from tokenskip.errors import StageError
from tokenskip.models.loading import load_model, pick_device
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, Row, RunFolder, write_rows
from tokenskip.training.check import checkpointing_key
from tokenskip.training.rounds import without_rounds
from tokenskip.training.train import disk_errors, placed, progress_bar, save, scheduler_kwargs, uses_bf16, with_adapter

PAIRS = "pairs.jsonl"
STEPS, BATCH, MOST_PAIRS, BETA = 50, 16, 800, 2.0
SHORTER = 0.8
"""A short answer has at most this share of the long chain's tokens: below it, the pair says nothing about length."""


def train_preference(run: Run) -> None:
    """The adapter, at once where it is there already.

    Raises:
        StageError: no question has both a short and a long right answer of the model's own.
    """
    run.free()
    with run.sub_folder("preference", candidates=without_rounds(run)) as folder:
        if folder.file(ADAPTER).exists():
            return
        pairs = list(islice(_pairs(run), MOST_PAIRS))
        if not pairs:
            raise StageError(
                "the arm preference needs questions with a short and a long right answer of the model's own: add the "
                "sources sample or prompt to candidates.sources, or set generate.samples above 1"
            )
        write_rows(folder.file(PAIRS), pairs)
        with disk_errors(folder.path):
            _fit(run, folder, pairs)


def _pairs(run: Run) -> Iterator[Row]:
    """Prompt, short and long completion of every question that has such."""
    names = [name for name in run.config.candidates.pool if name != PRUNE and _is_own(run.config, name)]
    parts: list[Part] = [(name, run.folder) for name in names if run.folder.file(file_of(name)).exists()]
    for question in questions(run.folder, parts, logprobs=False) if parts else _plain(run):
        if pair := pair_of(question):
            short, long = pair
            prompt = run.prompts.text(run.prompts.messages(question.chains[0].question))
            yield {"id": question.chains[0].id, "prompt": prompt, "chosen": short, "rejected": long}


def _is_own(config: RunConfig, source: str) -> bool:
    """Whether what a source has is the untouched model's own."""
    return source != ON_POLICY and plugins.asks(source) and plugins.SERVER not in config.candidates.sources[source]


def _plain(run: Run) -> Iterator[Question]:
    return (Question(list(chains), ()) for _, chains in groupby(run.folder.trajectories(), lambda chain: chain.id))


def pair_of(question: Question) -> tuple[str, str] | None:
    """(shortest right answer, longest chain) of a question whose chains are all right; None where lengths are alike."""
    if any(chain.dropped for chain in question.chains):
        return None
    texts = [*question.chains, *(one.text for one in question.candidates if not one.text.dropped)]
    short = min(texts, key=lambda text: text.n_cot_tokens)
    long = max(question.chains, key=lambda text: text.n_cot_tokens)
    return (short.output, long.output) if short.n_cot_tokens <= SHORTER * long.n_cot_tokens else None


def _fit(run: Run, folder: RunFolder, pairs: list[Row]) -> None:
    tracking.switch_telemetry_off()  # before TRL is imported
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    config = run.config
    on_cpu = pick_device(config.model.device) == "cpu"
    steps = STEPS if len(pairs) >= BATCH else 2
    options: dict[str, Any] = {
        "output_dir": str(folder.file("checkpoints")),
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "learning_rate": config.train.learning_rate,
        "lr_scheduler_type": config.train.scheduler,
        "lr_scheduler_kwargs": scheduler_kwargs(config, steps),
        "warmup_steps": config.train.warmup,
        "loss_type": "simpo",
        "simpo_gamma": 0.0,
        "cpo_alpha": 0.0,
        "beta": BETA,
        "max_length": config.train.max_length,
        "save_strategy": "no",
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
        "use_cpu": on_cpu,
        "bf16": uses_bf16(config.model),
        checkpointing_key(CPOConfig): not on_cpu,
        "dataloader_pin_memory": not on_cpu,
    }
    model = with_adapter(load_model(placed(config)), config)
    rows = Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in pairs])
    with run.progress.stage("preference", None) as advance:
        bar = progress_bar(advance)
        trainer = CPOTrainer(
            model=model, args=CPOConfig(**options), train_dataset=rows, processing_class=run.prompts.tokenizer
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(bar)
        trainer.train()
        if bar.stopped:
            raise KeyboardInterrupt
    save(trainer, run.prompts, config.prune.ratios, folder.file(ADAPTER))
