"""vLLM for real, in an environment that has it (`examples/vllm_cpu.sh` makes one): offline, and as a server with LoRA.

The embedded model in float32, decoded greedily: what vLLM writes is compared with what transformers writes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tokenskip.backends.hf import HfBackend
from tokenskip.config import ModelConfig, PromptConfig, TaskConfig
from tokenskip.embedded import adapter_path
from tokenskip.models.loading import load_model, load_tokenizer
from tokenskip.prompting.chat_template import has_ratio_control, set_effort
from tokenskip.prompting.prompts import Prompts
from tokenskip.serving.doctor import diagnose
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.types import Completion, Prompt, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

SAMPLING = Sampling(max_new_tokens=256)
N = 16
RANK = 64  # the smaller side of every linear layer
LINEAR = re.compile(r"_proj\.weight$")
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts(load_tokenizer(ModelConfig()), PromptConfig(spelling="scale"))


@pytest.fixture(scope="module")
def asked(prompts: Prompts) -> list[Prompt]:
    """The same questions without a ratio, then at 0.5."""
    problems = [*EmbeddedTask(TaskConfig()).problems("test", N)]
    return [prompts.prompt(one.question, ratio) for ratio in (1.0, 0.5) for one in problems]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's linear layers under the fine-tuned embeddings and norms; a template that ignores the ratio.

    What ships as the adapter is a whole model. So much of it is in the base as a LoRA cannot carry: without the adapter
    this model writes whole chains at every ratio.
    """
    import torch

    folder = tmp_path_factory.mktemp("base") / "model"
    model = load_model(ModelConfig(device="cpu"), adapter_path())
    original = dict(load_model(ModelConfig(device="cpu")).named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if LINEAR.search(name):
                weight.copy_(original[name])
    model.save_pretrained(folder)
    load_tokenizer(ModelConfig()).save_pretrained(folder)
    assert not has_ratio_control((folder / "chat_template.jinja").read_text(encoding="utf-8"))
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The fine-tuning of the linear layers as a LoRA of full rank: `B A = tuned - original`, by a QR decomposition."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    tuned = dict(load_model(ModelConfig(device="cpu"), adapter_path()).named_parameters())
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(ModelConfig(path=str(base), device="cpu")), lora)
    with torch.no_grad():
        for name, layer in model.base_model.model.named_modules():
            if hasattr(layer, "lora_A"):
                b, a = torch.linalg.qr(tuned[f"{name}.weight"] - layer.base_layer.weight)
                layer.lora_B.default.weight.zero_()[:, : b.shape[1]] = b
                layer.lora_A.default.weight.zero_()[: a.shape[0]] = a
    folder = tmp_path_factory.mktemp("lora")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(adapter_path()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(prompts: Prompts, asked: list[Prompt], base: Path, adapter: Path) -> list[Completion]:
    """What transformers writes with the adapter on: short chains at 0.5, which the base alone does not write."""
    config = ModelConfig(path=str(base), device="cpu")
    plain, adapted = (
        HfBackend(load_model(config, one), prompts.tokenizer).generate(asked, SAMPLING) for one in (None, adapter)
    )
    lengths = [sum(one.n_tokens for one in done[N:]) / N for done in (plain, adapted)]
    print(f"transformers, mean tokens at 0.5: {lengths[0]:.1f} without the adapter, {lengths[1]:.1f} with it")
    assert lengths[1] < 0.7 * lengths[0]
    return adapted


def check(texts: list[str], lengths: list[int], expected: list[Completion]) -> None:
    """Nearly all texts equal (another order of additions may flip a near tie), and chains shorter at 0.5."""
    equal = sum(text == one.text for text, one in zip(texts, expected, strict=True))
    whole, short = sum(lengths[:N]) / N, sum(lengths[N:]) / N
    print(f"{equal} of {2 * N} texts equal transformers'; mean tokens {whole:.1f} without a ratio, {short:.1f} at 0.5")
    assert equal >= 0.9 * len(expected)
    assert short < 0.85 * whole


OFFLINE = """
import json, sys
from pathlib import Path
from tokenskip.backends.vllm import VllmBackend
from tokenskip.config import ModelConfig
from tokenskip.models.loading import load_tokenizer
from tokenskip.types import Prompt, Sampling

if __name__ == "__main__":
    asked = [Prompt(messages=(), token_ids=tuple(ids)) for ids in json.loads(Path(sys.argv[1]).read_text())]
    backend = VllmBackend(sys.argv[4], load_tokenizer(ModelConfig()), Path(sys.argv[2]), dtype="float32",
                          enforce_eager=True, max_model_len=1024)
    done = backend.generate(asked, Sampling(max_new_tokens=256))
    capped = backend.generate(asked[:2], Sampling(max_new_tokens=5))
    sampled = [backend.generate([asked[0]] * 4, Sampling(max_new_tokens=40, temperature=1.5, seed=3)) for _ in "ab"]
    long = backend.generate([Prompt(messages=(), token_ids=tuple(range(1000)))], Sampling(max_new_tokens=100))
    backend.close()
    made = (done, capped, *sampled, long)
    rows = [[[one.text, one.n_tokens, one.finish, one.error] for one in each] for each in made]
    Path(sys.argv[3]).write_text(json.dumps(rows))
"""


def test_offline_with_an_adapter(
    tmp_path: Path, asked: list[Prompt], expected: list[Completion], base: Path, adapter: Path
) -> None:
    (tmp_path / "offline.py").write_text(OFFLINE, encoding="utf-8")
    (tmp_path / "asked.json").write_text(json.dumps([one.token_ids for one in asked]), encoding="utf-8")
    out = tmp_path / "out.json"
    command = [sys.executable, tmp_path / "offline.py", tmp_path / "asked.json", adapter, out, base]
    subprocess.run(command, env=ENVIRONMENT, check=True, timeout=900)
    done, capped, first, again, long = json.loads(out.read_text())
    check([row[0] for row in done], [row[1] for row in done], expected)
    same = [(row, one) for row, one in zip(done, expected, strict=True) if row[0] == one.text]
    assert all((row[1], row[2]) == (one.n_tokens, one.finish) for row, one in same)
    assert [(row[1], row[2]) for row in capped] == [(5, "length")] * 2
    assert len({row[0] for row in first}) > 1, "samples of one question differ"
    assert first == again
    assert long[0][2] == "error"
    assert "exceed the context of 1024" in long[0][3]


@contextmanager
def vllm_server(log: Path, base: Path, adapter: Path, *arguments: object) -> Iterator[str]:
    """The URL of a vLLM server of a model, and of its adapter under the name `tokenskip`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", base]
    command += ["--served-model-name", "base", "--port", port, "--dtype", "float32", "--enforce-eager"]
    command += ["--enable-lora", "--max-lora-rank", RANK, "--lora-modules", f"tokenskip={adapter}", *arguments]
    with (
        log.open("w") as out,
        subprocess.Popen(
            [str(one) for one in command], env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(1)
            yield url
        finally:
            process.terminate()


def test_a_server_with_the_template_named(
    tmp_path: Path, prompts: Prompts, asked: list[Prompt], expected: list[Completion], base: Path, adapter: Path
) -> None:
    from tokenskip.backends.openai import OpenAIBackend

    template = tmp_path / "template.jinja"
    template.write_text(set_effort((adapter / "chat_template.jinja").read_text(), {"low": 0.5, "high": 1.0}))
    with vllm_server(tmp_path / "log", base, adapter, "--chat-template", template) as url:
        diagnosis = diagnose(url, "tokenskip", template=template.read_text())
        assert diagnosis.by == ("chat_template_kwargs", "reasoning_effort"), diagnosis.routes
        assert diagnosis.honoured, diagnosis
        assert diagnosis.found.startswith("/tokenize:")
        served = {"base": "base", "adapter": "tokenskip"}
        for endpoint in ("chat", "completions"):
            options: Any = {"url": url, "served": served, "endpoint": endpoint}
            done = OpenAIBackend("base", prompts.tokenizer, adapter, **options).generate(asked, SAMPLING)
            check([one.text for one in done], [one.n_tokens for one in done], expected)
        begun = prompts.prompt("Tom has 12 apples.", prefill="The final answer is")
        [answer] = OpenAIBackend("base", prompts.tokenizer, url=url, served="base").generate([begun], SAMPLING)
        assert answer.error is None


def test_doctor_finds_the_template_that_vllm_leaves_out(tmp_path: Path, base: Path, adapter: Path) -> None:
    with vllm_server(tmp_path / "log", base, adapter) as url:
        diagnosis = diagnose(url, "tokenskip")
        assert not diagnosis.honoured
        assert "--chat-template" in diagnosis.advice
