"""lm-evaluation-harness and inspect-ai on the embedded model at several ratios, beside our own evaluation.

    pip install -e '.[serving]' 'lm-eval[api,hf]' inspect-ai
    python examples/harnesses/run.py -o docs/results/harnesses.md        # 20 stories, more with -n; minutes on a CPU

Every command is printed before it runs, so that it can be taken over for another model. Four ways to the same answers:
our `hf` backend, lm-eval's `hf` model, and lm-eval and inspect-ai over `transformers serve`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from own_model import server, tokenskip  # noqa: E402

from tokenskip.backends.hf import HfBackend  # noqa: E402
from tokenskip.config import ModelConfig, PromptConfig, TaskConfig  # noqa: E402
from tokenskip.generation.split import split_completion  # noqa: E402
from tokenskip.models.loading import load_model, load_tokenizer  # noqa: E402
from tokenskip.prompting.prompts import Prompts, ratio_kwargs  # noqa: E402
from tokenskip.tasks.embedded import EmbeddedTask  # noqa: E402
from tokenskip.types import Problem, Sampling  # noqa: E402

RATIOS = (1.0, 0.8, 0.5)
CAP = 256


class Outcome(NamedTuple):
    """Share of right answers, and mean tokens of a completion in the model's own tokens."""

    accuracy: float
    tokens: float


class Harnesses:
    """The merged model, the stories, and each way to evaluate it."""

    def __init__(self, folder: Path, problems: Sequence[Problem], url: str = "") -> None:
        self.folder, self.problems, self.url = folder, problems, url
        self.merged = folder / "merged"
        self.prompts = Prompts(load_tokenizer(ModelConfig(path=str(self.merged))), PromptConfig(spelling="scale"))

    def ours(self, ratio: float) -> Outcome:
        """Our backend, split and grading."""
        backend = HfBackend(load_model(ModelConfig(path=str(self.merged), device="cpu")), self.prompts.tokenizer)
        asked = [self.prompts.prompt(one.question, ratio) for one in self.problems]
        done = backend.generate(asked, Sampling(max_new_tokens=CAP))
        task = EmbeddedTask(TaskConfig())
        answers = [task.extract(split_completion(one.text, one.finish, self.prompts.config).tail) for one in done]
        right = [
            answer is not None and task.grade(answer, problem.gold).correct is True
            for answer, problem in zip(answers, self.problems, strict=True)
        ]
        return self._outcome(right, (one.text for one in done))

    def lm_eval_hf(self, ratio: float) -> Outcome:
        """lm-eval loads the model; the ratio is one of its `chat_template_args`."""
        arguments = {"pretrained": "merged", "chat_template_args": ratio_kwargs(ratio)}
        return self._lm_eval("hf", ratio, "--device", "cpu", "--batch_size", 50, "--model_args", json.dumps(arguments))

    def lm_eval_server(self, ratio: float) -> Outcome:
        """lm-eval asks a server; what it does not know of `--gen_kwargs` goes into the request as it is."""
        url = f"{self.url}/v1/chat/completions"
        arguments = {"model": str(self.merged), "base_url": url, "num_concurrent": 4}
        extra = json.dumps({"chat_template_kwargs": ratio_kwargs(ratio)})
        return self._lm_eval(
            "local-chat-completions", ratio, "--model_args", json.dumps(arguments), "--gen_kwargs", extra
        )

    def inspect(self, ratio: float) -> Outcome:
        """inspect-ai asks the server; `--extra-body` is a part of every request."""
        logs = self.folder / f"inspect-{ratio}"
        command = ["inspect_ai", "eval", "inspect_stories.py", "--model", f"openai-api/local/{self.merged}"]
        command += ["--extra-body", json.dumps({"chat_template_kwargs": ratio_kwargs(ratio)})]
        command += ["--temperature", "0", "--max-tokens", str(CAP), "--max-connections", "4"]
        command += ["--display", "none", "--log-format", "json", "--log-dir", str(logs)]
        (self.folder / "inspect_stories.py").write_text((HERE / "inspect_stories.py").read_text())
        self._call(command, LOCAL_API_KEY="none", LOCAL_BASE_URL=f"{self.url}/v1")
        log = json.loads(next(logs.glob("*.json")).read_text(encoding="utf-8"))
        right = [one["scores"]["match"]["value"] == "C" for one in log["samples"]]
        return self._outcome(right, (one["output"]["choices"][0]["message"]["content"] for one in log["samples"]))

    def _lm_eval(self, model: str, ratio: float, *words: object) -> Outcome:
        out = self.folder / f"lm-eval-{model}-{ratio}"
        command = ["lm_eval", "--model", model, "--apply_chat_template", "--include_path", str(HERE)]
        command += ["--tasks", "tokenskip_stories", *map(str, words), "--output_path", str(out), "--log_samples"]
        self._call(command)
        [file] = out.rglob("samples_*.jsonl")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return self._outcome([row["exact_match"] == 1 for row in rows], (row["resps"][0][0] for row in rows))

    def _call(self, command: Sequence[str], **environment: str) -> None:
        print("\n$", *(f"{name}={value}" for name, value in environment.items()), shlex.join(command), flush=True)
        subprocess.run([sys.executable, "-m", *command], cwd=self.folder, env={**os.environ, **environment}, check=True)

    def _outcome(self, right: Sequence[bool], texts: Iterator[str]) -> Outcome:
        lengths = [len(self.prompts.ids(text)) for text in texts]
        assert len(right) == len(lengths) == len(self.problems)
        return Outcome(sum(right) / len(right), sum(lengths) / len(lengths))


def page(found: dict[str, list[Outcome]], n: int) -> str:
    """The results as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("lm_eval", "inspect_ai", "transformers"))
    lines = [
        "# The embedded model in other evaluation tools",
        "",
        f"By `python examples/harnesses/run.py -n {n}` (which prints every command): the first {n} test stories,",
        f"greedy, on a CPU; {versions}. Each cell: right answers, mean tokens of a whole completion.",
        "",
        "| | " + " | ".join("no ratio" if ratio == 1 else f"γ = {ratio}" for ratio in RATIOS) + " |",
        "| --- |" + " --: |" * len(RATIOS),
    ]
    for name, row in found.items():
        cells = " | ".join(f"{100 * one.accuracy:.1f}%, {one.tokens:.1f}" for one in row)
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        "Batches differ, so a near tie between two tokens may fall otherwise; graders differ as well: the lm-eval task",
        "reads the number behind “The final answer is”, inspect-ai's `match` the last number of the text.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Merge, evaluate four ways, write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=20, help="stories")
    options.add_argument("-o", "--output", type=Path, help="the page (default: only shown)")
    options.add_argument("--port", type=int, default=8322)
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="harnesses-"))
    tokenskip("merge", "embedded", "-o", folder / "merged")
    problems = [*EmbeddedTask(TaskConfig()).problems("test", given.n)]
    rows: list[Any] = [{"question": one.question, "answer": one.gold} for one in problems]
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with server("embedded", folder / "merged", given.port) as url:
        tools = Harnesses(folder, problems, url)
        ways = {
            "tokenskip, `hf` backend": tools.ours,
            "lm-eval, `hf`": tools.lm_eval_hf,
            "lm-eval over `transformers serve`": tools.lm_eval_server,
            "inspect-ai over `transformers serve`": tools.inspect,
        }
        found = {name: [way(ratio) for ratio in RATIOS] for name, way in ways.items()}
    text = page(found, len(problems))
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
