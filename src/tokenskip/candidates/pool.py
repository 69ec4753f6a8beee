"""The candidates of every question, read from their files side by side; memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from tokenskip.candidates.collect import file_of
from tokenskip.candidates.settings import PRUNE
from tokenskip.errors import RunError
from tokenskip.storage.store import CANDIDATES, PRUNED, Row, RunFolder, read_rows
from tokenskip.types import Trajectory

Part = tuple[str, RunFolder]
"""A source, and the folder that holds its candidates: the run's own, or a round's."""


def logprobs_file(source: str) -> str:
    """The file of the log-probabilities of a source's candidates."""
    return f"{CANDIDATES}/{source.replace(':', '-')}.logprobs.jsonl"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shorter chain with its answer, in the form of the trajectory that it stands beside.

    `logprob`: mean over its CoT's tokens, in nats, under the untouched model; None where it was not computed.
    """

    source: str
    text: Trajectory
    logprob: float | None = None

    @property
    def ratio(self) -> float | None:
        """The ratio that the stage prune cut it to; None of any other source's."""
        return self.text.pruned[0].ratio if self.text.pruned else None


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the untouched model's chains, and all candidates."""

    chains: Sequence[Trajectory]
    candidates: Sequence[Candidate]

    @property
    def n_cot_tokens(self) -> float:
        """Mean CoT tokens of the finished chains; 0.0 where there is none."""
        lengths = [chain.n_cot_tokens for chain in self.chains if chain.finish == "stop" and chain.n_cot_tokens]
        return sum(lengths) / len(lengths) if lengths else 0.0

    def achieved(self, candidate: Candidate) -> float:
        """The candidate's CoT tokens as a share of the whole chain's."""
        return candidate.text.n_cot_tokens / self.n_cot_tokens


def texts(run_folder: RunFolder, part: Part) -> Iterator[tuple[Trajectory, list[Trajectory]]]:
    """Every chain with the candidates that a source has made of it.

    Raises:
        StageError: the source has not been asked for all of them yet. RunError: a damaged file.
    """
    source, folder = part
    if source == PRUNE:
        for chain in run_folder.trajectories(PRUNED):
            shorter = [cut for cut in chain.pruned if cut.ratio < 1]
            cuts = [replace(_cut(chain, cut.text, cut.n_tokens_pruned, cut.rejected), pruned=(cut,)) for cut in shorter]
            yield replace(chain, pruned=()), cuts
        return
    name = file_of(source)
    folder.require_rows(name, run_folder.completions())
    for chain, row in zip(run_folder.trajectories(), read_rows(folder.file(name)), strict=True):
        _same(chain, row, folder, name)
        yield chain, [_text(chain, stored) for stored in row["candidates"]]


def questions(run_folder: RunFolder, parts: Sequence[Part], *, logprobs: bool) -> Iterator[Question]:
    """All questions in order, each with the candidates of all parts; with their log-probabilities where wanted."""
    streams = [zip(texts(run_folder, part), _logprobs(run_folder, part, logprobs), strict=True) for part in parts]
    for _, rows in groupby(zip(*streams, strict=True), lambda row: row[0][0][0].id):
        chains, candidates = [], []
        for row in rows:
            chains.append(row[0][0][0])
            for (source, _), ((_, made), values) in zip(parts, row, strict=True):
                known = values or [None] * len(made)
                candidates += [Candidate(source, text, value) for text, value in zip(made, known, strict=True)]
        yield Question(chains, candidates)


def _logprobs(run_folder: RunFolder, part: Part, wanted: bool) -> Iterator[list[float | None] | None]:
    source, folder = part
    n, name = run_folder.completions(), logprobs_file(source)
    if not wanted:
        yield from [None] * n
        return
    folder.require_rows(name, n)
    for row in read_rows(folder.file(name)):
        yield row["logprobs"]


def _text(chain: Trajectory, stored: Row) -> Trajectory:
    if "kept" in stored:
        text = "".join(chain.cot[start:end] for start, end in stored["kept"])
        return _cut(chain, text, stored["n_cot_tokens"], stored["dropped"])
    start, end = stored["cot"]
    output = stored["output"]
    return replace(
        chain,
        output=output,
        head=output[:start],
        cot=output[start:end],
        tail=output[end:],
        n_cot_tokens=stored["n_cot_tokens"],
        dropped=stored["dropped"],
    )


def _cut(chain: Trajectory, text: str, n_cot_tokens: int, dropped: str | None) -> Trajectory:
    output = chain.head + text + chain.tail
    return replace(chain, output=output, cot=text, n_cot_tokens=n_cot_tokens, dropped=dropped, pruned=())


def _same(chain: Trajectory, row: Row, folder: RunFolder, name: str) -> None:
    if row["id"] != chain.id:
        raise RunError(f"{folder.file(name)} does not belong to this run's completions: remove that file")
