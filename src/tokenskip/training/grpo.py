"""Stage 6d: reinforcement learning with the ratio in the prompt, by TRL's GRPOTrainer. Writes `grpo/`.

It starts from the run's adapter (after its rounds, if there are any). A completion of a question under the ratio γ gets

    1       if its answer is right and its CoT has at most γ × L tokens, L the mean of this question's whole chains
            (Adaptive Effort Control, arXiv 2510.27042)
    less    if it is right and longer: down to 0 at (1 + slack) × γ × L; with `length: near` also if it is shorter,
            since chains end below γ otherwise
    0       if it is wrong, whatever its length: a penalty on that made other methods collapse

Advantages are divided by the standard deviation over the batch, not over the group (DLER, 2510.15110). `grpo/log.jsonl`
has the mean reward, share of right answers, CoT tokens and achieved minus asked ratio of every step. A run whose share
of right answers falls below half of what it was at the start is stopped, and gives no adapter.

    tokenskip grpo runs/NAME --set grpo=200
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from tokenskip import tracking
from tokenskip.candidates.pool import Question
from tokenskip.config import RunConfig
from tokenskip.distributed import world
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.generation.generate import trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.models.loading import load_model, pick_device
from tokenskip.plugins import ratios_below_one
from tokenskip.prompting.prompts import Prompts
from tokenskip.pruning.corpus import draw_ratio
from tokenskip.run import Run
from tokenskip.storage.store import ADAPTER, Row, RunFolder, write_rows
from tokenskip.training.check import checkpointing_key
from tokenskip.training.dataset import trained_ratios
from tokenskip.training.rounds import without_rounds
from tokenskip.training.settings import GrpoConfig
from tokenskip.training.train import disk_errors, last_checkpoint, placed, progress_bar, save, uses_bf16
from tokenskip.types import Completion, Problem

LOG = "log.jsonl"
WINDOW = 10
"""Steps over which the share of right answers is taken before a run counts as collapsed."""


def run(run: Run) -> None:
    """Stage 6d; nothing unless `grpo.steps` is above 0, and at once when it has been done.

    Raises:
        StageError: no adapter to start from, or a run that collapsed. RunError: one of several launched processes.
    """
    if not run.config.grpo.steps:
        return
    if world() > 1:
        raise RunError("grpo runs in one process: start `tokenskip grpo` without a launcher")
    start = run.adapter("tokenskip")
    assert start is not None
    run.free()
    with run.sub_folder("grpo", candidates=without_rounds(run)) as folder:
        if not folder.file(ADAPTER).exists():
            with disk_errors(folder.path):
                _fit(run, folder, start)


def questions(run: Run) -> Iterator[Row]:
    """The rows that GRPO reads: every question with a finished chain, under a ratio drawn for it."""
    ratios = ratios_below_one(run.config)
    for id, chains in groupby(run.folder.trajectories(), lambda chain: chain.id):
        question = Question(list(chains), ())
        if question.n_cot_tokens:
            chain, ratio = question.chains[0], draw_ratio(id, ratios, run.config.seed)
            yield {
                "prompt": run.prompts.text(run.prompts.messages(chain.question), ratio),
                "id": id,
                "question": chain.question,
                "gold": chain.gold,
                "ratio": float(ratio),
                "n_cot_tokens": question.n_cot_tokens,
            }


def worth(correct: bool, n_cot_tokens: int, budget: float, settings: GrpoConfig) -> float:
    """The reward of a completion; `budget` is ratio × tokens of the question's whole chain."""
    if not correct:
        return 0.0
    miss = n_cot_tokens / budget - 1
    if settings.length == "near":
        miss = abs(miss)
    if miss <= 0:
        return 1.0
    return max(0.0, 1 - miss / settings.slack) if settings.slack else 0.0


class Reward:
    """TRL's reward function, which keeps what it saw: one row of means a step."""

    __name__ = "right_and_short"

    def __init__(self, run: Run, log: list[Row]) -> None:
        self.run, self.log = run, log
        self.end: int = run.prompts.tokenizer.eos_token_id

    def __call__(
        self, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], trainer_state: Any, **columns: Any
    ) -> list[float]:
        """One reward a completion."""
        rewards, rights, lengths, misses = [], [], [], []
        rows = zip(*(columns[key] for key in ("id", "question", "gold", "ratio", "n_cot_tokens")), strict=True)
        for text, ids, (id, question, gold, ratio, whole) in zip(completions, completion_ids, rows, strict=True):
            ended = self.end in ids
            completion = Completion(text=text, n_tokens=len(ids), finish="stop" if ended else "length")
            problem = Problem(id=id, question=question, gold=gold)
            written = trajectory_of(problem, ratio, completion, self.run.config.prompt, self.run.count)
            right = grade_trajectory(written, self.run.task).dropped is None
            rewards.append(worth(right, written.n_cot_tokens, ratio * whole, self.run.config.grpo))
            rights.append(right)
            lengths.append(written.n_cot_tokens)
            misses.append(written.n_cot_tokens / whole - ratio)
        self.log.append(
            {
                "step": trainer_state.global_step + 1,
                "reward": round(fmean(rewards), 4),
                "right": round(fmean(rights), 4),
                "cot_tokens": round(fmean(lengths), 2),
                "ratio_error": round(fmean(misses), 4),
            }
        )
        return rewards


def has_collapsed(log: Sequence[Row]) -> bool:
    """Whether the share of right answers has fallen below half of what it was in the first steps."""
    if len(log) < 2 * WINDOW:
        return False
    first, last = (fmean(row["right"] for row in rows) for rows in (log[:WINDOW], log[-WINDOW:]))
    return last < first / 2


def _fit(run: Run, folder: RunFolder, start: Path) -> None:
    tracking.switch_telemetry_off()  # before TRL is imported
    from datasets import Dataset

    rows = list(questions(run))
    if not rows:
        raise StageError(f"{run.folder.path} has no finished chain: GRPO has no length to compare with")
    checkpoints, log = folder.file("checkpoints"), read_log(folder)
    resumed = last_checkpoint(checkpoints)
    done = int(resumed.rpartition("-")[2]) if resumed else 0
    log[:] = [row for row in log if row["step"] <= done]
    with run.progress.stage("grpo", None) as advance:
        bar = progress_bar(advance)
        trainer = _trainer(run, _startable(run.config, start), Dataset.from_list(rows), checkpoints, Reward(run, log))
        trainer.add_callback(bar)
        trainer.add_callback(_watch(folder, log))
        trainer.train(resume_from_checkpoint=resumed)
    write_rows(folder.file(LOG), log)
    if bar.stopped:
        raise KeyboardInterrupt
    if has_collapsed(log):
        first, last = log[0]["right"], log[-1]["right"]
        raise StageError(
            f"grpo collapsed: {first:.0%} of the answers were right at first and {last:.0%} at step {log[-1]['step']} "
            f"(see {folder.file(LOG)}); lower grpo.learning_rate, and remove {folder.path} to start again"
        )
    save(trainer, run.prompts, trained_ratios(run.folder), folder.file(ADAPTER))
    shutil.rmtree(checkpoints, ignore_errors=True)


def read_log(folder: RunFolder) -> list[Row]:
    """The steps that were logged."""
    from tokenskip.storage.store import read_rows

    return list(read_rows(folder.file(LOG))) if folder.file(LOG).exists() else []


def _startable(config: RunConfig, start: Path) -> Any:
    """The run's adapter with its weights to be trained further, or the whole model where all weights were trained."""
    model = load_model(placed(config), start, fold=False)
    if config.train.method == "full":
        return model.requires_grad_(True)
    for name, weights in model.named_parameters():
        weights.requires_grad_("lora_" in name)
    return model


def _trainer(run: Run, model: Any, rows: Any, checkpoints: Path, reward: Callable[..., list[float]]) -> Any:
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOTrainer

    prompts: Prompts = run.prompts

    class Trainer(GRPOTrainer):  # type: ignore[misc]
        """TRL's own, on the very ids that we render: it would put another start token in front."""

        def _tokenize_prompts(self, prompts_: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [prompts.ids(text) for text in prompts_], None, {}

    trainer = Trainer(
        model=model,
        reward_funcs=reward,
        args=arguments(run.config, checkpoints),
        train_dataset=rows,
        processing_class=prompts.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(config: RunConfig, checkpoints: Path) -> Any:
    """TRL's GRPOConfig: the settings of `grpo`, and over them whatever `grpo.trainer` says.

    Raises:
        ConfigError: a key or value that TRL refuses.
    """
    from trl import GRPOConfig

    settings: GrpoConfig = config.grpo
    on_cpu = pick_device(config.model.device) == "cpu"
    options: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "num_generations": settings.generations,
        "max_completion_length": config.generate.max_new_tokens,
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "scale_rewards": "batch",
        "beta": 0.0,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": on_cpu,
        "bf16": uses_bf16(config.model),
        checkpointing_key(GRPOConfig): not on_cpu,
        "dataloader_pin_memory": not on_cpu,
    }
    try:
        return GRPOConfig(**{**options, **settings.trainer})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"grpo.trainer={settings.trainer}: {' '.join(str(error).split())[:300]}") from None


def _watch(folder: RunFolder, log: list[Row]) -> Any:
    """A callback that writes the log with every checkpoint, and stops a run that has collapsed."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Log and brake."""

        def on_save(self, *_: Any, **__: Any) -> None:
            write_rows(folder.file(LOG), log)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = control.should_training_stop or has_collapsed(log)

    return Watch()
