"""What every source makes of every chain, checked. Writes `candidates/SOURCE.jsonl`.

Row i belongs to row i of `completions.jsonl`. What a model wrote is stored here, once; a cut of the chain as the
character ranges that it keeps:

    {id, candidates: [{output, cot: [start, end], n_cot_tokens, dropped} or {kept, n_cot_tokens, dropped}, ...]}

`dropped` says why one cannot be trained on: the reasons of `tokenskip.generation.grade`, of a cut, or an equation that
is false. `prune` has no file here: its candidates are `pruned.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from tokenskip import plugins
from tokenskip.candidates.settings import PRUNE
from tokenskip.engine import Work
from tokenskip.generation.generate import answer, one_by_one, seed_of, trajectory_of
from tokenskip.generation.grade import grade_trajectory
from tokenskip.prompting.prompts import worked
from tokenskip.pruning.equations import check_written
from tokenskip.run import Run
from tokenskip.storage.store import CANDIDATES, JOURNAL, Row, RunFolder
from tokenskip.types import Backend, Completion, Problem, Prompt, Pruned, Request, Sampling, Trajectory


def file_of(source: str) -> str:
    """The file of a source's candidates."""
    return f"{CANDIDATES}/{source.replace(':', '-')}.jsonl"


def collect(run: Run, folder: RunFolder, source: str, weights: str = "base", round: int = 0) -> None:
    """Fill the source's file in `folder`; what it has a model write, the model with `weights` writes.

    `round`: draws of a later one are others.
    """
    if source == PRUNE:
        return
    asks = plugins.asks(source)
    chains = _given(run.folder.trajectories(), run.config.candidates.limit if asks else None, once=asks)
    folder.file(CANDIDATES).mkdir(exist_ok=True)
    pending = folder.pending(file_of(source), chains, run.config.generate.batch_size)
    build = partial(collecting, source=source, weights=weights, round=round)
    for rows in run.map(build, pending, f"candidates: {source}", run.folder.completions()):
        folder.append(file_of(source), rows)


def _given(chains: Iterable[Trajectory], limit: int | None, *, once: bool) -> Iterator[tuple[Trajectory, bool]]:
    """Every chain, and whether a source is given it: it is finished and, where `once`, the first of its question."""
    number = -1
    for chain in chains:
        number += chain.sample == 0
        finished = chain.finish == "stop" and chain.n_cot_tokens > 0
        yield chain, finished and not (once and chain.sample) and (limit is None or number < limit)


def collecting(run: Run, source: str, weights: str, round: int) -> Work:
    """The work of a source: (chain, whether it is given it) -> a row for each."""
    made = plugins.make_source(run.config, source, Asking(run, source, weights, round), run.count)

    def failed(error: Exception) -> list[Completion | Pruned]:
        return [Completion(text="", n_tokens=0, finish="error", error=f"{type(error).__name__}: {error}"[:200])]

    def work(window: Sequence[tuple[Trajectory, bool]]) -> list[Row]:
        found = iter(one_by_one(made.candidates, [chain for chain, given in window if given], failed))
        return [
            {"id": chain.id, "candidates": [_row(run, chain, one) for one in next(found)] if given else []}
            for chain, given in window
        ]

    return work


def _row(run: Run, chain: Trajectory, candidate: Completion | Pruned) -> Row:
    """A candidate as it is stored, with what is wrong with it."""
    if isinstance(candidate, Pruned):
        return {
            "kept": candidate.kept,
            "n_cot_tokens": candidate.n_tokens_pruned,
            "dropped": chain.dropped or candidate.rejected,
        }
    problem = Problem(id=chain.id, question=chain.question, gold=chain.gold, level=chain.level, sample=chain.sample)
    written = trajectory_of(problem, 1.0, candidate, run.config.prompt, run.count)
    written = grade_trajectory(written, run.task)
    if run.config.prune.verify and not written.dropped and (reason := check_written(chain.cot, written.cot)):
        written = written.drop(reason)
    start = len(written.head)
    return {
        "output": written.output,
        "cot": [start, start + len(written.cot)],
        "n_cot_tokens": written.n_cot_tokens,
        "dropped": written.dropped,
    }


class Asking:
    """An `Ask`: the model with these weights, or the one behind the server that the source's options name."""

    def __init__(self, run: Run, source: str, weights: str, round: int) -> None:
        self.run, self.weights = run, weights
        self.seed = run.config.seed + round
        self.server = run.config.candidates.sources[source].get(plugins.SERVER)
        self.backend: Backend | None = None

    def __call__(self, requests: Sequence[Sequence[Request]]) -> list[list[Completion]]:
        """See `Ask`. Requests that are drawn alike go to the model together."""
        self.backend = self.backend or self._backend()
        flat = [request for several in requests for request in several]
        groups: dict[tuple[float, float], list[int]] = {}
        for i, request in enumerate(flat):
            groups.setdefault((request.temperature, request.top_p), []).append(i)
        written: dict[int, Completion] = {}
        for (temperature, top_p), group in groups.items():
            sampling = Sampling(
                max_new_tokens=self.run.config.generate.max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=self.seed,
            )
            prompts = [self._prompt(flat[i]) for i in group]
            completions = answer(self.backend, prompts, sampling)
            whole = [self.run.prompts.with_prefill(*pair) for pair in zip(prompts, completions, strict=True)]
            written |= zip(group, whole, strict=True)
        ordered = (written[i] for i in range(len(flat)))
        return [list(islice(ordered, len(several))) for several in requests]

    def _backend(self) -> Backend:
        if self.server is None:
            return self.run.backend(self.weights)
        generate = self.run.config.generate.model_copy(update={"backend": "openai", "options": self.server})
        config = self.run.config.model_copy(update={"generate": generate})
        return plugins.make_backend(config, self.run.prompts, journal=self.run.folder.file(JOURNAL))

    def _prompt(self, request: Request) -> Prompt:
        chain, prompts = request.chain, self.run.prompts
        seed = seed_of(self.seed, Problem(id=chain.id, question="", gold="", sample=request.sample))
        if request.content is not None:
            messages = ({"role": "user", "content": request.content},)
            return Prompt(messages=messages, token_ids=tuple(prompts.ids(prompts.text(messages))), seed=seed)
        prompt = prompts.prompt(
            chain.question,
            request.ratio,
            instruction=request.instruction,
            system=request.system,
            shots=worked(prompts.config, request.shots),
            prefill=request.prefill,
        )
        return replace(prompt, seed=seed)
