"""`grade` and `prune` on anyone's own JSONL file, without a run folder. Results are streamed."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tokenskip import plugins
from tokenskip.config import RunConfig, TaskConfig, check_config, lay_over
from tokenskip.errors import ConfigError, DataError
from tokenskip.generation.grade import grade_rows
from tokenskip.models.loading import load_tokenizer
from tokenskip.plugins import check_scorer, make_scorer, needs_prompts
from tokenskip.progress import Progress
from tokenskip.prompting.prompts import Prompts
from tokenskip.pruning.corpus import corpus_thresholds, prune_trajectory
from tokenskip.ratio import Ratio
from tokenskip.storage.jsonl import UniqueIds, optional_text, read_jsonl, text_field
from tokenskip.storage.outputs import check_file, writing
from tokenskip.storage.store import Row, dump_row
from tokenskip.tokens import token_counter
from tokenskip.types import Pruned, Scorer, TokenCounter, Trajectory

WINDOW = 256


def grade_file(source: Path, task_name: str, output: Path) -> dict[str, int]:
    """Grade `{id, gold, output}` lines into `{id, correct, reason, extracted}` lines; returns counts.

    Raises:
        ConfigError, DataError: an unknown task; a line that is malformed, incomplete or doubled.
    """
    prompt = RunConfig().prompt
    task = plugins.make_task(TaskConfig(name=task_name), prompt)
    counts: Counter[str] = Counter()
    names = {True: "correct", False: "incorrect", None: "ungradable"}
    with writing(output, inputs=[source]) as out:
        for row in grade_rows(read_jsonl(source), task, prompt, str(source)):
            counts[names[row["correct"]]] += 1
            out.write(dump_row(row))
    if not counts:
        raise DataError(f"{source} is empty: give lines of {{id, gold, output}}")
    return {name: counts[name] for name in names.values()}


class LinePruner(Protocol):
    """What makes output lines of chains; `FilePruner` and `tokenskip.commands.rules.RulePruner` are two."""

    def prepare(self, chains: Callable[[], Iterator[Trajectory]], ratios: Sequence[float]) -> None:
        """Look at the whole data once, where the cut needs that; `chains()` begins to read it from the start."""
        ...

    def lines(self, window: Sequence[Trajectory], ratios: Sequence[float]) -> Iterator[Row]:
        """One line per chain and ratio, in this order; every chain is scored once."""
        ...


class FilePruner:
    """The scorer and the counter for pruning texts that belong to no run; made once, used for every text.

    Raises:
        TokenskipError: an unknown scorer, option or model; said before anything is loaded.
    """

    def __init__(self, scorer: str, model: str, *, tokenizer: str | None = None, overrides: Sequence[str] = ()) -> None:
        self.config = file_config(scorer, model, tokenizer, overrides)
        tokens = load_tokenizer(self.config.model)
        self.count: TokenCounter = token_counter(tokens)
        prompts = Prompts(tokens, self.config.prompt) if needs_prompts(self.config) else None
        self.scorer: Scorer = make_scorer(self.config, prompts)
        self.thresholds: dict[float, float] | None = None

    def prepare(self, chains: Callable[[], Iterator[Trajectory]], ratios: Sequence[float]) -> None:
        """Fit the thresholds of the cut `corpus`."""
        if self.config.prune.cut != "corpus":
            return

        def scored() -> Iterator[Any]:
            stream = chains()
            while window := list(islice(stream, WINDOW)):
                yield from ((trajectory.cot, trajectory.scores) for trajectory in self.scored(window))

        self.thresholds = corpus_thresholds(scored(), tuple(ratios), self.count, self.config.prune)

    def lines(self, window: Sequence[Trajectory], ratios: Sequence[float]) -> Iterator[Row]:
        """See `LinePruner.lines`."""
        for trajectory, cuts in zip(window, self.prune(window, ratios), strict=True):
            yield from (pruned_line(trajectory.id, cut) for cut in cuts)

    def prune(self, window: Sequence[Trajectory], ratios: Sequence[float]) -> list[tuple[Pruned, ...]]:
        """The pruned texts of each trajectory, one per ratio; every trajectory is scored once."""
        settings = self.config.prune
        return [
            prune_trajectory(trajectory, tuple(ratios), self.count, settings, self.thresholds).pruned
            for trajectory in self.scored(window)
        ]

    def scored(self, window: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories with their scores."""
        scores = self.scorer.score(window)
        return [replace(trajectory, scores=importances) for trajectory, importances in zip(window, scores, strict=True)]


def file_config(scorer: str, model: str, tokenizer: str | None, overrides: Sequence[str]) -> RunConfig:
    """The configuration of pruning a file: `model` is the scorer's, `tokenizer` the one that tokens are counted in.

    Raises:
        ConfigError, ModelError: an unknown scorer, option or model; a section that does not apply to files.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        lay_over(values, override)
    if outside := values.keys() - {"score", "prune", "prompt", "seed", "model"}:
        raise ConfigError(f"--set {min(outside)}: pruning a file takes only score, prune, prompt, model and seed")
    values["score"] = {"scorer": scorer, **values.get("score", {})}
    values["model"] = {"path": tokenizer or model, **values.get("model", {})}
    config = check_config(values, "--set")
    wanted = inspect.signature(plugins.load("scorer", scorer, plugins.SCORERS)).parameters
    if "model" in wanted and (tokenizer or "render" not in wanted):
        values["score"] = {**values["score"], "model": model}
        if not tokenizer and "render" not in wanted:
            values["model"] = {**values["model"], "path": "embedded" if model == "embedded" else model}
        config = check_config(values, "--set")
    check_scorer(config)
    return config


def prune_file(
    source: Path, output: Path, ratios: Sequence[float | str], make: Callable[[], LinePruner], *, progress: Progress
) -> str:
    """Prune `{id, cot}` lines (`question` and `answer` optional); one line per id and ratio. Returns a summary.

    `make` makes the pruner; it is called when every ratio and every line has been checked.

    Raises:
        TokenskipError: a wrong ratio, name or option; a line that is malformed, incomplete or doubled.
    """
    asked = [Ratio.parse(ratio) for ratio in ratios]
    check_file(output, [source])
    total = sum(1 for _ in read_chains(source))  # every line is checked before a model loads
    if not total:
        raise DataError(f"{source} is empty: give lines of {{id, cot}}")
    pruner = make()
    pruner.prepare(lambda: read_chains(source), asked)
    rejects = rows = 0
    with writing(output, inputs=[source]) as out, progress.stage("prune", total) as advance:
        chains = read_chains(source)
        advance(0)  # speed is measured from here
        while window := list(islice(chains, WINDOW)):
            for row in pruner.lines(window, asked):
                rows, rejects = rows + 1, rejects + bool(row["rejected"])
                out.write(dump_row(row))
            advance(len(window))
    return f"{rows} pruned texts of {total} chains, {rejects} rejected by the equation check or for their ratio"


def pruned_line(id: str, cut: Pruned) -> Row:
    """One line of the output of `tokenskip prune FILE`."""
    return {
        "id": id,
        "ratio": cut.ratio,
        "pruned": cut.text,
        "n_tokens": cut.n_tokens,
        "n_tokens_pruned": cut.n_tokens_pruned,
        "achieved_ratio": round(cut.achieved_ratio, 4),
        "rejected": cut.rejected,
        "kept": [list(span) for span in cut.kept],
    }


def read_chains(source: Path) -> Iterator[Trajectory]:
    """The chains of a `{id, cot}` file as trajectories.

    Raises:
        DataError: names the file and the line.
    """
    ids = UniqueIds()
    for line, row in read_jsonl(source):
        where = f"{source} line {line}"
        id = text_field(row, "id", where)
        ids.add(id, f"line {line}", str(source))
        cot = row.get("cot")
        if not isinstance(cot, str):
            raise DataError(f"{where}: field 'cot' must be text; fields here: {', '.join(row)}")
        question, answer = (optional_text(row, name, where) or "" for name in ("question", "answer"))
        yield Trajectory(id=id, question=question, gold=answer, cot=cot, tail=f"\n\n{answer}" if answer else "")
