"""Stage 4b: of all candidates the ones to train on. Writes `train.jsonl` and `candidates.json`.

For each question and ratio γ: the candidates that are right, pass the equation check and have

    | CoT tokens / CoT tokens of this question's whole chain - γ |  <=  candidates.tolerance

best first as `candidates.prefer` says; `candidates.keep` of them are trained on under γ. A γ of 1 is the whole chain.
Where `prune.ratios` is a range, a chain that was cut is trained on under the ratio it was cut to, and one that was
written under the ratio that it achieved.
Always the shortest is known to be worse (TokenSqueeze, arXiv 2511.13223). With the source `prune` alone nothing is left
to choose: the rows are those that the stage prune has written, each at the ratio of its cut, as in the paper.

    tokenskip candidates runs/NAME --set 'candidates.sources=[prune, prompt, sample]'
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenskip.candidates.collect import collect
from tokenskip.candidates.likelihood import measure
from tokenskip.candidates.pool import Candidate, Part, Question, questions
from tokenskip.candidates.settings import CandidatesConfig
from tokenskip.config import RunConfig
from tokenskip.errors import RunError, StageError
from tokenskip.pruning.corpus import ratios_of
from tokenskip.pruning.score import need_correct
from tokenskip.ratio import RatioRange, spaced
from tokenskip.run import Run
from tokenskip.storage.store import CHOSEN, TRAIN, Row, RunFolder, write_atomically, write_rows
from tokenskip.training.dataset import candidate_row, training_rows
from tokenskip.types import Pruned


def run(run: Run) -> None:
    """Stage 4b.

    Raises:
        StageError: no source has a candidate near any ratio.
    """
    if run.config.candidates.is_paper:
        return
    need_correct(run)
    parts: list[Part] = [(source, run.folder) for source in run.config.candidates.pool]
    for source, folder in parts:
        collect(run, folder, source)
    choose(run, run.folder, parts)


def choose(run: Run, folder: RunFolder, parts: Sequence[Part]) -> None:
    """Write into `folder` the training rows from the candidates of all parts, and what was chosen."""
    settings = run.config.candidates
    likely = settings.prefer == "likely"
    if likely:
        for part in parts:
            measure(run, part)
    tally = Tally(settings, list(dict.fromkeys(source for source, _ in parts)), run.config.prune.ratios)
    pool = questions(run.folder, parts, logprobs=likely)
    write_rows(folder.file(TRAIN), (row for question in pool for row in _rows(run, question, tally)))
    if not tally.n_chosen:
        folder.file(TRAIN).unlink()
        counted = ", ".join(f"{source}: {n['right']} right of {n['candidates']}" for source, n in tally.sources.items())
        raise StageError(
            f"no candidate is within {settings.tolerance:g} of any ratio ({counted}): raise candidates.tolerance, "
            "add a source to candidates.sources, or sample more"
        )
    write_atomically(folder.file(CHOSEN), json.dumps(tally.summary(), indent=1) + "\n")


def load_info(file: Path) -> dict[str, Any]:
    """What `candidates.json` holds; RunError where it is damaged."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found["sources"], found["rows"], found["missing"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error}): remove it to have it made again") from None
    return found


def summary_lines(info: Row) -> Iterator[str]:
    """One sentence for each source, and for each ratio that a question has nothing for."""
    for source, counts in info["sources"].items():
        n_won = sum(counts["won"].values())
        yield f"{source}: {counts['candidates']:,} candidates, {counts['right']:,} right, {n_won:,} trained on"
    for ratio, n in info["missing"].items():
        if not info["rows"][ratio]:
            yield f"ratio {ratio}: no candidate of any question is near it, so it is not trained"
        elif n:
            yield f"ratio {ratio}: {n:,} of {info['questions']:,} questions have no candidate near it"


class Tally:
    """Counts what became of the candidates, source by source."""

    def __init__(self, settings: CandidatesConfig, sources: Sequence[str], ratios: Sequence[float]) -> None:
        self.settings = settings
        self.counted = spaced(ratios)
        self.sources: dict[str, Counter[str]] = {source: Counter(candidates=0, right=0) for source in sources}
        self.near: dict[str, Counter[str]] = {source: Counter() for source in sources}
        self.won: dict[str, Counter[str]] = {source: Counter() for source in sources}
        self.missing: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.n_questions = self.n_chosen = self.train_tokens = 0

    def question(self, question: Question) -> None:
        """Count its candidates."""
        self.n_questions += 1
        for candidate in question.candidates:
            self.sources[candidate.source]["candidates"] += 1
            self.sources[candidate.source]["right"] += candidate.text.dropped is None

    def name(self, ratio: float) -> str:
        """The ratio that it is counted under: of a range the nearest tenth."""
        return str(ratio if ratio in self.counted else min(self.counted, key=lambda one: abs(one - ratio)))

    def ratio(self, ratio: float, near: Sequence[Candidate], chosen: Sequence[Candidate]) -> None:
        """Count what was near a ratio, and what was chosen."""
        name = self.name(ratio)
        for candidate in near:
            self.near[candidate.source][name] += 1
        for candidate in chosen:
            self.won[candidate.source][name] += 1
        self.missing[name] += not chosen
        self.n_chosen += len(chosen)

    def row(self, row: Row) -> Row:
        """Count a training row."""
        self.rows[self.name(row["ratio"])] += 1
        self.train_tokens += row["n_cot_tokens"]
        return row

    def summary(self) -> Row:
        """What `candidates.json` holds; ratios from long to short."""
        ratios = sorted({*self.missing, *self.rows}, key=float, reverse=True)
        return {
            "prefer": self.settings.prefer,
            "tolerance": self.settings.tolerance,
            "questions": self.n_questions,
            "train_tokens": self.train_tokens,
            "rows": {ratio: self.rows[ratio] for ratio in ratios},
            "missing": {ratio: self.missing[ratio] for ratio in ratios if ratio in self.missing},
            "sources": {
                source: {
                    **counts,
                    "near": {ratio: self.near[source][ratio] for ratio in ratios if ratio in self.missing},
                    "won": {ratio: self.won[source][ratio] for ratio in ratios if ratio in self.missing},
                }
                for source, counts in self.sources.items()
            },
        }


def _rows(run: Run, question: Question, tally: Tally) -> Iterator[Row]:
    """The training rows of a question, in the order of its ratios."""
    tally.question(question)
    if not question.n_cot_tokens:
        return
    drawn = [(chain, ratio) for chain in question.chains for ratio in ratios_of(chain, run.config)]
    done = set()
    for chain, ratio in drawn:
        if ratio == 1:
            if not chain.dropped:
                n = chain.n_cot_tokens
                whole = Pruned(ratio=1.0, text=chain.cot, n_tokens=n, n_tokens_pruned=n)
                for row in training_rows(chain, run.prompts, (whole,)):
                    yield tally.row(row)
        elif ratio not in done:
            done.add(ratio)
            near = ranked(question, ratio, run.config)
            chosen = near[: run.config.candidates.keep]
            tally.ratio(ratio, near, chosen)
            for candidate in chosen:
                label = _label(candidate, question.achieved(candidate), ratio, run.config.prune.ratios)
                yield tally.row(
                    candidate_row(candidate.text, candidate.source, label, question.n_cot_tokens, run.prompts)
                )


def _label(candidate: Candidate, achieved: float, ratio: float, ratios: Sequence[float]) -> float:
    """The ratio that a chain is trained under: the one it was chosen for, or of a range the one nearest to its own.

    A cut keeps its own, which says where the threshold lay (`prune.cut: corpus`); what it achieves varies by chain.
    """
    if not isinstance(ratios, RatioRange):
        return ratio
    if candidate.ratio is not None:
        return candidate.ratio
    return min((one for one in ratios if one < 1), key=lambda one: abs(one - achieved))


def ranked(question: Question, ratio: float, config: RunConfig) -> list[Candidate]:
    """The candidates of a question that may be trained on under `ratio`, best first; of equal texts the first."""
    settings = config.candidates
    distinct: dict[str, Candidate] = {}
    for candidate in question.candidates:
        if not candidate.text.dropped and abs(question.achieved(candidate) - ratio) <= settings.tolerance + 1e-9:
            distinct.setdefault(candidate.text.output, candidate)
    key = KEYS[settings.prefer]
    order = {source: place for place, source in enumerate(settings.sources)}
    return sorted(
        distinct.values(),
        key=lambda candidate: key(candidate, abs(question.achieved(candidate) - ratio), order[candidate.source]),
    )


Key = Callable[[Candidate, float, int], tuple[float, ...]]
KEYS: dict[str, Key] = {
    "likely": lambda candidate, miss, _: (-(candidate.logprob if candidate.logprob is not None else -1e9), miss),
    "nearest": lambda _, miss, place: (miss, place),
    "shortest": lambda candidate, miss, _: (candidate.text.n_cot_tokens, miss),
    "listed": lambda _, miss, place: (place, miss),
}
"""`candidates.prefer` -> what is least for the best: of (candidate, distance from the ratio, place of its source)."""
