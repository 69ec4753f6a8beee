"""A model and questions of one's own, from `tokenskip run` to a server that is asked at two ratios.

    python examples/own_model.py                        # a Qwen2 of random weights, 40 questions; in a temporary folder
    python examples/own_model.py --out work --port 8321
    python examples/own_model.py --model Qwen/Qwen2.5-0.5B-Instruct --data mine.jsonl    # {"question", "answer"} lines

It needs `pip install -e '.[serving]'`. Random weights solve nothing, so that for them `Tutor` stands in where the
untouched model would answer: it reads the solutions out of the same file. Training, merging, serving and the answers of
the server are real. So small a model learns the form of the chains and no arithmetic: this shows that the parts fit
together for a model that nobody has heard of, not what they are worth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tokenskip.backends.hf import HfBackend
from tokenskip.types import Completion, Prompt, Sampling

N_LINES, N_TEST = 40, 8
RATIOS = (1.0, 0.5)
TEMPLATE = (  # the family's: a default system turn, then the turns
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}"
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def write_questions(file: Path) -> Path:
    """The JSONL: a question, its answer, and the solution that a model of random weights cannot write."""
    rows = []
    for i in range(N_LINES):
        a, b = 11 + 2 * i, 3 + i % 7
        told = f"Well, let me see. The shop opens with {a} loaves on the shelf.\nThen the baker brings {b} more, "
        solution = f"{told}so {a} + {b} = {a + b}.\nSo that is all of it.\n\nThe final answer is {a + b}."
        question = f"A shop has {a} loaves. The baker brings {b} more. How many are there?"
        rows.append({"question": question, "answer": a + b, "solution": solution})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_model(folder: Path, texts: Sequence[str]) -> Path:
    """A Qwen2 of two layers and random weights, with a byte-level BPE tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Tutor:
    """Answers as the file's solutions do as long as there is no adapter; with one, the model itself answers."""

    def __init__(
        self, model: Any, tokenizer: Any, adapter: Path | None = None, *, batch_size: int = 16, solutions: str
    ) -> None:
        self.model = HfBackend(model, tokenizer, batch_size=batch_size)
        self.tokenizer, self.untrained = tokenizer, adapter is None
        rows = map(json.loads, Path(solutions).read_text(encoding="utf-8").splitlines())
        self.known = {row["question"]: row["solution"] for row in rows}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`."""
        return [self._known(one) for one in prompts] if self.untrained else self.model.generate(prompts, sampling)

    def close(self) -> None:
        """Free the model."""
        self.model.close()

    def _known(self, prompt: Prompt) -> Completion:
        text = self.known[prompt.messages[-1]["content"]]
        return Completion(text=text, n_tokens=len(self.tokenizer(text)["input_ids"]), finish="stop")


def write_recipe(folder: Path, model: str, data: Path, *, random: bool) -> Path:
    """The recipe: all that is not a default. The last questions of the file are for the evaluation."""
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("train", lines[:-N_TEST]), ("test", lines[-N_TEST:])):
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    values: dict[str, Any] = {
        "name": "own",
        "model": {"path": model},
        "task": {
            "name": "jsonl",
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "fields": {"gold": "answer"},
            "options": {"numeric": True},
        },
        "generate": {"batch_size": 16, "max_new_tokens": 160},
        "prune": {"ratios": list(RATIOS), "per_trajectory": "all"},
        "evaluate": {"arms": ["original", "tokenskip"], "ratios": list(RATIOS), "latency_samples": 0},
    }
    if random:
        values["generate"] |= {"backend": "own_model:Tutor", "options": {"solutions": str(data)}}
        values["train"] = {"rank": 32, "alpha": 64, "learning_rate": 0.005, "epochs": 30, "batch_size": 16}
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def tokenskip(*words: object) -> None:
    """A command of ours, shown; its own line of error ends this script."""
    command = [str(word) for word in words]
    print("\n$ tokenskip", *command, flush=True)
    if code := subprocess.run([sys.executable, "-m", "tokenskip", *command], env=_environment()).returncode:
        sys.exit(code)


def _environment() -> dict[str, str]:
    here = str(Path(__file__).parent)  # the recipe names own_model:Tutor
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "TOKENSKIP_TRUST": "own_model"}


@contextmanager
def server(run: str, merged: Path, port: int) -> Iterator[str]:
    """The address of `transformers serve` on the merged model, as `tokenskip serve --exec` starts it."""
    command = [sys.executable, "-m", "tokenskip", "serve", run, "--merged", merged, "--port", port, "--exec"]
    file = merged.with_name("server.log")
    with (
        file.open("w") as log,
        subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=_environment()) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            while True:
                if process.poll() is not None:
                    sys.exit(f"the server stopped:\n{file.read_text()[-1000:]}")
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()


def ask(url: str, merged: Path, question: str) -> list[dict[str, Any]]:
    """What the server is given and answers at each ratio; printed as well."""
    from openai import OpenAI
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    messages: list[Any] = [{"role": "user", "content": question}]
    rows = []
    for ratio in RATIOS:
        extra = {"chat_template_kwargs": {"compression_ratio": str(ratio)}}
        reply = client.chat.completions.create(
            model=str(merged), messages=messages, max_tokens=160, temperature=0, extra_body=extra
        )
        answer = reply.choices[0].message.content or ""
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, compression_ratio=ratio
        )
        n_prompt = reply.usage.prompt_tokens if reply.usage else None
        rows.append({
            "ratio": ratio, "prompt": prompt, "prompt_tokens": n_prompt,
            "rendered_tokens": len(tokenizer(prompt, add_special_tokens=False)["input_ids"]),
            "answer": answer, "answer_tokens": len(tokenizer(answer, add_special_tokens=False)["input_ids"]),
        })  # fmt: skip
        print(f"\nratio {ratio}: {n_prompt} prompt tokens by the server, {rows[-1]['answer_tokens']} answer tokens")
        print(f"  prompt: {prompt!r}\n  answer: {answer!r}")
    return rows


def main() -> None:
    """Everything, in order."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="a folder or a hub id (default: random weights, made here)")
    options.add_argument("--data", type=Path, help="JSONL of question and answer; the last 8 lines are the test")
    options.add_argument("--out", type=Path, help="folder for all files (default: a temporary one)")
    options.add_argument("--port", type=int, default=8321)
    given = options.parse_args()
    folder = given.out or Path(tempfile.mkdtemp(prefix="own-model-"))
    folder.mkdir(parents=True, exist_ok=True)
    data = given.data or write_questions(folder / "mine.jsonl")
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    model = given.model or str(write_model(folder / "model", [text for row in rows for text in map(str, row.values())]))
    run, merged = folder / "run", folder / "merged"

    tokenskip("run", write_recipe(folder, model, data, random=given.model is None), "--out", run)
    if not merged.exists():
        tokenskip("merge", run, "-o", merged)
    with server(str(run), merged, given.port) as url:
        tokenskip("doctor", url, "--model", merged)
        answers = ask(url, merged, rows[0]["question"])
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
