"""Half an artefact is never taken for a whole one: checkpoints and adapters load whole, or one line names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tokenskip.backends.hf import HfBackend
from tokenskip.config import ModelConfig
from tokenskip.errors import ModelError
from tokenskip.models.loading import check_adapter, load_model, load_tokenizer
from tokenskip.scorers.llmlingua2 import LLMLingua2
from tokenskip.training.distill import Settings, _build, _load
from tokenskip.types import Prompt, Sampling


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the tiny model."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def adapter(tmp_path: Path, folder: Path) -> Path:
    """A LoRA of the tiny model."""
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(load_model(ModelConfig(path=str(folder), device="cpu")), lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rewrite(file: Path, change: Callable[[str, Any], tuple[str, Any] | None]) -> None:
    kept = [pair for name, tensor in load_file(file).items() if (pair := change(name, tensor))]
    save_file({name: tensor.contiguous() for name, tensor in kept}, file, metadata={"format": "pt"})


def index(folder: Path, shard: str) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "moved.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)})
    )


DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "renamed": ("has no weights for", lambda f: rewrite(f / "model.safetensors", lambda n, t: (f"z.{n}", t))),
    "one missing": (
        r"no weights for model\.layers\.1\.mlp\.up_proj\.weight$",
        lambda f: rewrite(f / "model.safetensors", lambda n, t: None if "1.mlp.up_proj" in n else (n, t)),
    ),
    "more layers": ("no weights for", lambda f: edit(f / "config.json", num_hidden_layers=3)),
    "fewer layers": (
        r"leaves out layers of it: model\.layers\.1",
        lambda f: edit(f / "config.json", num_hidden_layers=1),
    ),
    "other shape": ("another shape in", lambda f: edit(f / "config.json", vocab_size=400)),
    "impossible shape": ("cannot be loaded", lambda f: edit(f / "config.json", num_attention_heads=7)),
    "no JSON": ("config.json", lambda f: (f / "config.json").write_bytes(b"\xff\x00{")),
    "NaN": (
        "hold NaN or infinity",
        lambda f: rewrite(f / "model.safetensors", lambda n, t: (n, t * float("nan") if "norm" in n else t)),
    ),
    "cut": ("is damaged or cut off", lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ab")),
    "empty": (r"model\.safetensors is damaged", lambda f: (f / "model.safetensors").write_bytes(b"")),
    "pointer": (
        "git-lfs pointer",
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\n"),
    ),
    "gone": (r"has no model\.safetensors", lambda f: (f / "model.safetensors").unlink()),
    "a folder": (
        "is missing",
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
    ),
    "shard missing": (r"other\.safetensors is missing", lambda f: index(f, "other.safetensors")),
    "shard pickled": (r"names 'pytorch_model\.bin'", lambda f: index(f, "pytorch_model.bin")),
    "shard elsewhere": (r"names '\.\./x\.safetensors'", lambda f: index(f, "../x.safetensors")),
    "named pickle": ("names the weights", lambda f: edit(f / "config.json", transformers_weights="w.bin")),
    "adapter inside": ("a model and an adapter at once", lambda f: (f / "adapter_config.json").write_text("{}")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_is_whole_or_refused(name: str, folder: Path) -> None:
    words, damage = DAMAGES[name]
    damage(folder)
    with pytest.raises(ModelError, match=words) as refused:
        load_model(ModelConfig(path=str(folder), device="cpu"))
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_shards_beside_the_index_load(folder: Path) -> None:
    index(folder, "moved.safetensors")
    load_model(ModelConfig(path=str(folder), device="cpu"))


ADAPTER_DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "no settings": ("holds no adapter", lambda f: (f / "adapter_config.json").unlink()),
    "no weights": (r"has no adapter_model\.safetensors", lambda f: (f / "adapter_model.safetensors").unlink()),
    "other keys": (
        "is not whole",
        lambda f: rewrite(f / "adapter_model.safetensors", lambda n, t: (n.replace("q_proj", "query"), t)),
    ),
    "keys missing": (
        "is not whole",
        lambda f: rewrite(f / "adapter_model.safetensors", lambda n, t: None if "layers.1" in n else (n, t)),
    ),
    "other rank": ("does not fit", lambda f: edit(f / "adapter_config.json", r=4)),
    "NaN": (
        "holds NaN",
        lambda f: rewrite(f / "adapter_model.safetensors", lambda n, t: (n, t * float("inf") if "0.mlp" in n else t)),
    ),
    "pointer": (
        "git-lfs pointer",
        lambda f: (f / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    ),
    "no JSON": (r"adapter_config\.json cannot be read", lambda f: (f / "adapter_config.json").write_bytes(b"\xff")),
    "a list": ("a JSON object is needed", lambda f: (f / "adapter_config.json").write_text("[1]")),
    "unknown kind": ("does not fit", lambda f: edit(f / "adapter_config.json", peft_type="NOPE")),
    "other base": (
        "was trained on org/other, not on org/tiny",
        lambda f: edit(f / "adapter_config.json", base_model_name_or_path="org/other"),
    ),
}


@pytest.mark.parametrize("name", ADAPTER_DAMAGES)
def test_an_adapter_is_whole_and_fits_or_is_refused(
    name: str, adapter: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, damage = ADAPTER_DAMAGES[name]
    damage(adapter)
    path = str(folder)
    if name == "other base":  # two hub ids, neither of them here
        path = "org/tiny"
        monkeypatch.setattr("tokenskip.models.loading.resolve_model", lambda path, **_: path)
    with pytest.raises(ModelError, match=words) as refused:
        check_adapter(adapter, ModelConfig(path=path, device="cpu"))
    assert "\n" not in str(refused.value)


def test_an_adapter_belongs_to_the_weights_not_to_their_folder(adapter: Path, folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "other name")
    check_adapter(adapter, ModelConfig(path=str(moved), device="cpu"))
    rewrite(moved / "model.safetensors", lambda name, tensor: (name, tensor + 0.01))
    with pytest.raises(ModelError, match="was trained on"):
        load_model(ModelConfig(path=str(moved), device="cpu"), adapter)


def test_a_folders_generation_settings_change_nothing(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path=str(folder)))
    prompt = Prompt(messages=(), ratio=1.0, token_ids=tuple(tokenizer("Tom has 12 apples").input_ids))

    def answers() -> list[str]:
        model = load_model(ModelConfig(path=str(folder), device="cpu"))
        return [one.text for one in HfBackend(model, tokenizer).generate([prompt], Sampling(max_new_tokens=40))]

    before = answers()
    odd = {"repetition_penalty": 1.7, "no_repeat_ngram_size": 1, "forced_eos_token_id": 3, "max_time": 1e-9}
    edit(folder / "generation_config.json", **odd, num_beams=3, suppress_tokens=[5, 6, 7], min_new_tokens=30)
    assert answers() == before


def test_encoders_and_classifiers_are_read_from_safetensors_only(tmp_path: Path) -> None:
    model, tokenizer = _build(["Tom has 12 apples. " * 50], Settings())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _load(str(tmp_path))
    LLMLingua2(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for load in (_load, LLMLingua2):
        with pytest.raises(ModelError, match="pickled weights are not read"):
            load(str(tmp_path))
