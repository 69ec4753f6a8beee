"""A model folder can hold code and pickles; neither runs. The grader's process cannot take the machine's memory."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenskip.config import ModelConfig
from tokenskip.errors import ModelError
from tokenskip.models.loading import check_context, load_model, load_tokenizer


class Evil:
    """What unpickling it would do: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the tiny model."""
    return shutil.copytree(model_folder, tmp_path / "model")


def test_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(ModelError, match="pickled weights are not read"):
        load_model(ModelConfig(path=str(folder), device="cpu"))
    assert not (tmp_path / "pwned").exists()


def test_a_pickled_adapter_is_refused_unread(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(ModelError, match=r"adapter has no adapter_model\.safetensors"):
        load_model(ModelConfig(path=str(folder), device="cpu"), adapter)
    assert not (tmp_path / "pwned").exists()


def test_code_of_a_model_does_not_run_unless_it_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'pwned')!r}).touch()\nclass A: pass\n"
    (folder / "evil.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.A", "AutoTokenizer": ["evil.A", "evil.A"]}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto_map}))
    for load in (load_model, lambda config: check_context(config, 1, 1)):
        with pytest.raises(ModelError, match=r"Read it; model\.trust_remote_code=true then runs it"):
            load(ModelConfig(path=str(folder), device="cpu"))
    load_tokenizer(ModelConfig(path=str(folder)))  # has a class of transformers as well, which is taken
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(Exception, match="A"):  # the class is no configuration
        load_model(ModelConfig(path=str(folder), device="cpu", trust_remote_code=True))
    assert (tmp_path / "pwned").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address spaces are only bounded on Linux")
def test_the_graders_process_is_bounded_in_memory() -> None:
    code = "from tokenskip.answers import math_verify_worker as g; g._limit_memory(); "
    for share, fits in ((0.25, True), (1.5, False)):
        command = [sys.executable, "-c", code + f"bytearray(int(g.MEMORY_BYTES * {share}))"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is fits
        assert fits or "MemoryError" in done.stderr
