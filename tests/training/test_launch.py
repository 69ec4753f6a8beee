"""Training in several launched processes: the effective batch stays, the losses agree, one process writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from growing import grow
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import RunConfig, load_recipe
from tokenskip.distributed import alone, batch_split, rank, world
from tokenskip.errors import RunError
from tokenskip.storage.store import RunFolder
from tokenskip.training.train import iter_losses


def launcher_options() -> set[str]:
    """Every option of `accelerate launch`, spelled as in its configuration files."""
    from accelerate.commands.launch import launch_command_parser

    return {action.dest for action in launch_command_parser()._actions}


SHIPPED = Path(pipeline.__file__).parent / "recipes" / "accelerate"


@pytest.mark.parametrize("batch", [1, 6, 8, 24, 256])
@pytest.mark.parametrize("accumulation", [1, 2, 4, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8, 16])
def test_a_step_sees_the_same_number_of_sequences_on_any_number_of_processes(
    batch: int, accumulation: int, processes: int
) -> None:
    split = batch_split(batch, accumulation, processes)
    if batch % processes:
        assert split is None
    else:
        assert split is not None
        assert split[0] * split[1] * processes == batch
        assert split[0] <= max(1, batch // accumulation)  # no process needs more memory than one alone did


def test_one_process_splits_as_the_settings_say() -> None:
    assert batch_split(24, 4, 1) == (6, 4)
    assert batch_split(24, 4, 4) == (6, 1)
    assert batch_split(24, 4, 8) == (3, 1)


def test_only_the_first_process_holds_the_folder_and_other_stages_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (world(), rank()) == (1, 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with RunFolder(tmp_path / "run", RunConfig()) as folder:
        assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RANK", "0")
    with RunFolder(tmp_path / "run", RunConfig()) as folder:
        assert (tmp_path / "run" / "config.json").exists()
        with pytest.raises(RunError, match=r"x\.jsonl: only `tokenskip train` runs in several launched processes"):
            grow(folder, "x.jsonl", [{}], list, 1)
        with alone():
            grow(folder, "x.jsonl", [{}], list, 1)
    assert world() == 2


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configurations_are_what_accelerate_reads(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    config = load_config_from_file(str(file))
    assert config.distributed_type == DistributedType(values["distributed_type"])
    assert config.num_processes == values["num_processes"]
    known = launcher_options()
    for section in ("fsdp_config", "deepspeed_config"):
        assert set(values.get(section, {})) <= known, f"accelerate launch has no such option: {section}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_one(tmp_path: Path, model_folder: Path) -> None:
    """DDP over gloo: the same losses step by step, the same adapter up to rounding, in one folder written once."""
    import torch
    from safetensors.torch import load_file

    arms = {"arms": ["original", "tokenskip", "random"], "ratios": [0.5]}
    train = {"batch_size": 6, "accumulation": 2, "epochs": 2, "trainer": {"logging_steps": 1}}
    recipe_file = recipe(tmp_path, model_folder, evaluate=arms, train=train)
    for name in ("one", "two"):
        with pipeline.Run(tmp_path / name, load_recipe(recipe_file)) as run:
            for stage in ("generate", "grade", "score", "prune"):
                getattr(pipeline, stage)(run)
    with pipeline.Run(tmp_path / "one", load_recipe(recipe_file)) as run:
        pipeline.train(run)
        pipeline.controls(run)
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SHIPPED.parents[2]), tests])}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED / "ddp_cpu.yaml")]
    command += ["--main_process_port", "0", "-m", "tokenskip", "train", str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("train: done") == 1
    for folder in ("adapter", "control-random/adapter"):
        alone_, together = tmp_path / "one" / folder, tmp_path / "two" / folder
        losses = [dict(iter_losses(one)) for one in (alone_, together)]
        assert losses[0].keys() == losses[1].keys()
        assert len(losses[0]) > 8
        full = [step for step in losses[0] if step % 9]  # an epoch's last batch is shorter: DDP fills it up
        assert max(abs(losses[0][step] - losses[1][step]) for step in full) < 0.02
        weights = [load_file(one / "adapter_model.safetensors") for one in (alone_, together)]
        assert weights[0].keys() == weights[1].keys()
        for name, one in weights[0].items():
            assert torch.nn.functional.cosine_similarity(one.flatten(), weights[1][name].flatten(), 0) > 0.95, name
    assert not (tmp_path / "two" / "checkpoints").exists()
