"""`grade` and `prune` on anyone's own JSONL file, without a run folder. Results are streamed."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import EISDIR
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tokenskip import plugins
from tokenskip.config import PruneConfig, RunConfig, TaskConfig, check_config, lay_over
from tokenskip.errors import ConfigError, DataError, RunError
from tokenskip.grade import grade_rows
from tokenskip.jsonl import UniqueIds, read_jsonl, text_field
from tokenskip.models import load_tokenizer
from tokenskip.objects import check_scorer, make_scorer
from tokenskip.progress import Progress
from tokenskip.prompts import Prompts, spell_ratio
from tokenskip.prune import TokenCounter, corpus_thresholds, prune_trajectory, token_counter
from tokenskip.store import Row, dump_row
from tokenskip.types import Pruned, Scorer, Trajectory

WINDOW = 256


def grade_file(source: Path, task_name: str, output: Path) -> dict[str, int]:
    """Grade `{id, gold, output}` lines into `{id, correct, reason, extracted}` lines; returns counts.

    Raises:
        ConfigError, DataError: an unknown task; a line that is malformed, incomplete or doubled.
    """
    task = plugins.load("task", task_name, plugins.TASKS)(TaskConfig(name=task_name))
    counts: Counter[str] = Counter()
    names = {True: "correct", False: "incorrect", None: "ungradable"}
    with _writing(output, source) as out:
        for row in grade_rows(read_jsonl(source), task, RunConfig().prompt, str(source)):
            counts[names[row["correct"]]] += 1
            out.write(dump_row(row))
    if not counts:
        raise DataError(f"{source} is empty: give lines of {{id, gold, output}}")
    return {name: counts[name] for name in names.values()}


class FilePruner:
    """The scorer and the counter for pruning texts that belong to no run; made once, used for every text.

    Raises:
        TokenskipError: an unknown scorer, option or model; said before anything is loaded.
    """

    def __init__(
        self, scorer: str, model: str, *, tokenizer: str | None = None, overrides: Sequence[str] = ()
    ) -> None:
        values: dict[str, Any] = {}
        for override in overrides:
            lay_over(values, override)
        if outside := values.keys() - {"score", "prune", "prompt", "seed", "model"}:
            raise ConfigError(f"--set {min(outside)}: pruning a file takes only score, prune, prompt, model and seed")
        values["score"] = {"scorer": scorer, **values.get("score", {})}
        values["model"] = {"path": tokenizer or model, **values.get("model", {})}
        self.config = check_config(values, "--set")
        wanted = inspect.signature(plugins.load("scorer", scorer, plugins.SCORERS)).parameters
        if "model" in wanted and (tokenizer or "render" not in wanted):
            values["score"] = {**values["score"], "model": model}
            if not tokenizer and "render" not in wanted:
                values["model"] = {**values["model"], "path": "embedded" if model == "embedded" else model}
            self.config = check_config(values, "--set")
        check_scorer(self.config)
        self.prompts = Prompts(load_tokenizer(self.config.model), self.config.prompt)
        self.count: TokenCounter = token_counter(self.prompts.tokenizer)
        self.scorer: Scorer = make_scorer(self.config, self.prompts)

    def prune(
        self, window: Sequence[Trajectory], ratios: Sequence[float], thresholds: dict[float, float] | None = None
    ) -> list[tuple[Pruned, ...]]:
        """The pruned texts of each trajectory, one per ratio; every trajectory is scored once."""
        settings = self.config.prune
        return [
            prune_trajectory(one, tuple(ratios), self.count, settings, thresholds).pruned
            for one in self.scored(window)
        ]

    def scored(self, window: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories with their scores."""
        scores = self.scorer.score(window)
        return [replace(one, scores=found) for one, found in zip(window, scores, strict=True)]


def prune_file(
    source: Path,
    output: Path,
    ratios: Sequence[float | str],
    scorer: str,
    model: str,
    *,
    tokenizer: str | None = None,
    overrides: Sequence[str] = (),
    progress: Progress,
) -> str:
    """Prune `{id, cot}` lines (`question` and `answer` optional); one line per id and ratio. Returns a summary.

    Raises:
        TokenskipError: a wrong ratio, name or option; a line that is malformed, incomplete or doubled.
    """
    asked = [float(spell_ratio(ratio)) for ratio in ratios]
    total = sum(1 for _ in read_chains(source))  # every line is checked before a model loads
    if not total:
        raise DataError(f"{source} is empty: give lines of {{id, cot}}")
    pruner = FilePruner(scorer, model, tokenizer=tokenizer, overrides=overrides)
    thresholds = _thresholds(pruner, source, asked) if pruner.config.prune.cut == "corpus" else None
    rejects = rows = 0
    with _writing(output, source) as out, progress.stage("prune", total) as advance:
        chains = read_chains(source)
        while window := list(islice(chains, WINDOW)):
            for one, cuts in zip(window, pruner.prune(window, asked, thresholds), strict=True):
                for cut in cuts:
                    rows, rejects = rows + 1, rejects + bool(cut.rejected)
                    out.write(dump_row(pruned_line(one.id, cut)))
            advance(len(window))
    return f"{rows} pruned texts of {total} chains, {rejects} rejected by the verifier"


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
        question, answer = row.get("question") or "", row.get("answer") or ""
        yield Trajectory(
            id=id, question=str(question), gold=str(answer), cot=cot, tail=f"\n\n{answer}" if answer else ""
        )


def _thresholds(pruner: FilePruner, source: Path, ratios: Sequence[float]) -> dict[float, float]:
    def scored() -> Iterator[Any]:
        chains = read_chains(source)
        while window := list(islice(chains, WINDOW)):
            yield from ((one.cot, one.scores) for one in pruner.scored(window))

    settings: PruneConfig = pruner.config.prune
    return corpus_thresholds(scored(), tuple(ratios), pruner.count, settings)


@contextmanager
def _writing(output: Path, source: Path) -> Iterator[TextIO]:
    """`output`, in place only when all went well: a bad line takes neither an older result nor the input away."""
    if output.exists() and source.exists() and output.samefile(source):
        raise RunError(f"{output} is the input: give another -o")
    draft = output.with_name(output.name + ".tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder")
        with draft.open("w", encoding="utf-8") as out:
            yield out
        draft.replace(output)
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
