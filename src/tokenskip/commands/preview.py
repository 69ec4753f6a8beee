"""What a person looks at in a terminal: kept and skipped text in colour, an answer beside a shorter one."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tokenskip import terminal
from tokenskip.commands.files import read_chains
from tokenskip.config import RunConfig, check_config, lay_over
from tokenskip.embedded import adapter_path
from tokenskip.errors import ConfigError, ModelError
from tokenskip.generation.generate import complete
from tokenskip.models.loading import EMBEDDED, load_tokenizer, resolve_model
from tokenskip.plugins import make_backend
from tokenskip.prompting.chat_template import read_settings
from tokenskip.prompting.prompts import Prompts
from tokenskip.ratio import Ratio
from tokenskip.storage.store import is_run, read_manifest, read_rows
from tokenskip.terminal import printable
from tokenskip.tokens import token_counter
from tokenskip.types import Problem, Sampling, Trajectory

KEPT, SKIPPED = "bold green", "dim strike"
ANSWER = "bold"


def coloured(cot: str, kept: Sequence[Sequence[int]]) -> Text:
    """The CoT with what is kept and what is skipped set apart."""
    text = Text(printable(cot), style=SKIPPED)
    whole = Text()
    at = 0
    for start, end in kept:
        whole.append(printable(cot[at:start]), SKIPPED)
        whole.append(printable(cot[start:end]), KEPT)
        at = end
    whole.append(printable(cot[at:]), SKIPPED)
    return whole if kept else text


def show_pruned(source: Path, output: Path, n: int) -> None:
    """Print the first `n` pruned texts of a file over the chains they come from."""
    if not n:
        return
    chains: dict[str, Trajectory] = {}
    stream = read_chains(source)
    console = terminal.console()
    for row in islice(read_rows(output), n):
        while row["id"] not in chains:
            trajectory = next(stream)
            chains[trajectory.id] = trajectory
        title = f"{row['id']}  ratio {row['ratio']}: {row['n_tokens']} -> {row['n_tokens_pruned']} tokens"
        kept = row.get("kept")  # rule llmlingua puts its text together anew: it is no part of the chain
        text = Text(printable(row["pruned"])) if kept is None else coloured(chains[row["id"]].cot, kept)
        console.print(Panel(text, title=Text(title), title_align="left"))


def ask(question: str, ratio: float | str, base: str, adapter: Path | None, overrides: Sequence[str]) -> None:
    """Answer one question with the untouched model and with the adapter at `ratio`; print both, tokens and times.

    Raises:
        ConfigError, ModelError: a wrong ratio, an empty question, a model or adapter that is not there.
    """
    asked = Ratio.parse(ratio)
    if not question.strip():
        raise ConfigError("the question is empty")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise ConfigError("the question is not UTF-8 text")
    if adapter is None:
        if base != EMBEDDED:
            raise ConfigError(f"--base {base} needs --adapter DIR (the adapter/ folder of its run)")
        adapter = adapter_path()
    if not (adapter / "adapter_config.json").exists() and not (adapter / "config.json").exists():
        raise ModelError(f"no adapter in {adapter}: give the adapter/ folder of a run")
    config = _settings_of(adapter, base, overrides)
    resolve_model(config.model.path)
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    whole, whole_s = _answer(config, prompts, question, None, 1.0)
    served = prompts.served_by(adapter)
    short, short_s = _answer(config, served, question, adapter, asked)
    saved = 1 - short.n_cot_tokens / whole.n_cot_tokens if whole.n_cot_tokens else 0.0
    console = terminal.console()
    panels = (
        _panel("original (green: also in the short one)", whole, whole_s, shared_words(whole.cot, short.cot)),
        _panel(f"ratio {asked}", short, short_s),
    )
    if console.width >= 96:  # narrower columns break every other sentence
        table = Table(box=None, expand=True, show_header=False, padding=(0, 1))
        table.add_row(*panels)
        console.print(table)
    else:
        console.print(*panels, sep="\n")
    if (prompted := served.prompted(asked)) != asked:
        console.print(f"{asked} was asked as {prompted}: {served.trained()}", markup=False, highlight=False)
    console.print(
        f"{whole.n_cot_tokens} -> {short.n_cot_tokens} CoT tokens ({saved:.0%} saved), "
        f"{whole_s:.2f} s -> {short_s:.2f} s"
    )


def shared_words(text: str, other: str) -> list[tuple[int, int]]:
    """Ranges of characters of `text`: the words of its longest common subsequence with `other`, adjacent ones in one.

    Hyyrö's bit-parallel form, which looping answers do not slow down: bit i of a row is 0 where the subsequence grows
    with word i of `text`.
    """
    words = list(re.finditer(r"\S+", text))
    places: dict[str, int] = defaultdict(int)
    for i, word in enumerate(words):
        places[word.group()] |= 1 << i
    mask = (1 << len(words)) - 1
    rows = [mask]
    for word_of_other in re.findall(r"\S+", other):
        matched = rows[-1] & places.get(word_of_other, 0)
        rows.append(((rows[-1] + matched) | (rows[-1] - matched)) & mask)
    ranges: list[tuple[int, int]] = []
    row, i, next_shared = len(rows) - 1, len(words) - 1, -1
    while row and i >= 0:
        if rows[row] >> i & 1:
            i -= 1
        elif not rows[row - 1] >> i & 1:
            row -= 1
        else:
            end = ranges.pop()[1] if next_shared == i + 1 else words[i].end()
            ranges.append((words[i].start(), end))
            row, i, next_shared = row - 1, i - 1, i
    return ranges[::-1]


def _settings_of(adapter: Path, base: str, overrides: Sequence[str]) -> RunConfig:
    """The prompt settings that the adapter was trained with: its run's, where that is still around it, else its
    template's (arguments and date)."""
    values: dict[str, Any] = {"model": {"path": base}}
    if is_run(adapter.parent):
        trained = read_manifest(adapter.parent)["config"]
        values |= {"prompt": trained["prompt"], "generate": {"max_new_tokens": trained["generate"]["max_new_tokens"]}}
    else:
        file = adapter / "chat_template.jinja"
        saved = read_settings(file.read_text(encoding="utf-8") if file.is_file() else None)
        values["prompt"] = {"template_kwargs": dict(saved.template_kwargs), "date": saved.date}
    for override in overrides:
        lay_over(values, override)
    return check_config(values, "--set")


def _answer(
    config: RunConfig, prompts: Prompts, question: str, adapter: Path | None, ratio: float
) -> tuple[Trajectory, float]:
    """The model's answer and the seconds it took, loading and a short warm-up excluded."""
    backend = make_backend(config, prompts, adapter)
    prompt = prompts.prompt(question, ratio)
    problem = Problem(id="ask", question=question, gold="")
    backend.generate([prompt], Sampling(max_new_tokens=2))
    start = time.perf_counter()
    done = complete(
        [problem],
        [prompt],
        backend,
        Sampling(max_new_tokens=config.generate.max_new_tokens),
        config.prompt,
        token_counter(prompts.tokenizer),
    )
    return done[0], time.perf_counter() - start


def _panel(title: str, trajectory: Trajectory, seconds: float, kept: Sequence[Sequence[int]] | None = None) -> Panel:
    text = Text(printable(trajectory.cot)) if kept is None else coloured(trajectory.cot, kept)
    text.append(printable(trajectory.tail), ANSWER)
    if trajectory.finish == "length":
        text.append(" [cut off at the token cap]", "red")
    if trajectory.finish == "error":
        text.append(printable(trajectory.dropped or "failed"), "red")
    measured = f"{trajectory.n_cot_tokens} CoT tokens, {seconds:.2f} s"
    return Panel(text, title=Text(title), subtitle=measured, title_align="left")
