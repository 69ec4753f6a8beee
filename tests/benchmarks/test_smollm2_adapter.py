"""Two adapters as one: the stacked adapter adds both, and the first comes back out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import smollm2_adapter
import torch
from safetensors.torch import load_file, save_file

NAMES = ("base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight")


def adapter(folder: Path, rank: int, alpha: int, seed: int) -> Path:
    folder.mkdir()
    draw = torch.Generator().manual_seed(seed)
    shapes = ((rank, 8), (6, rank))
    save_file(
        {n: torch.randn(s, generator=draw) for n, s in zip(NAMES, shapes, strict=True)},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha}))
    (folder / "tokenizer.json").write_text(str(seed))
    return folder


def change(folder: Path) -> torch.Tensor:
    """What an adapter adds to the weights."""
    tensors, settings = (
        load_file(folder / "adapter_model.safetensors"),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    a, b = (tensors[name].float() for name in NAMES)
    return settings["lora_alpha"] / settings["r"] * b @ a


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    return adapter(tmp_path / "one", 4, 16, 1), adapter(tmp_path / "two", 2, 6, 2)


def test_stacked_adds_both_and_names_the_base(both: tuple[Path, Path], tmp_path: Path) -> None:
    assert smollm2_adapter.main(["stack", *map(str, both), "-o", str(tmp_path / "out")]) == 0
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (6, 6, "smollm2")
    assert torch.allclose(change(tmp_path / "out"), change(both[0]) + change(both[1]), atol=0.3, rtol=0.02)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "2"


def test_the_first_comes_back(both: tuple[Path, Path], tmp_path: Path) -> None:
    smollm2_adapter.stack(*both, tmp_path / "out")
    assert smollm2_adapter.main(["first", str(tmp_path / "out"), "-o", str(tmp_path / "back")]) == 0
    assert torch.allclose(change(tmp_path / "back"), change(both[0]), atol=0.2, rtol=0.02)


def test_what_is_there_is_not_overwritten(both: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert smollm2_adapter.main(["stack", *map(str, both), "-o", str(both[0])]) == 2
    assert capsys.readouterr().err.count("\n") == 1
