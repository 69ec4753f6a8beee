"""What each family of `families.py` has to be trained or prepared with, setting by setting.

A part is a generator of settings: what it yields is evaluated before it goes on, so that a stopped benchmark has
finished rows. Trained models are kept in `models/` of the run folder, and made once."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from headline import RECIPE, Lines
from pages import shipped

from tokenskip import pipeline
from tokenskip.backends.hf import HfBackend
from tokenskip.baselines import budget, filter_prompt, gist, internalise, latent, parallel, skip_steps
from tokenskip.baselines.fit import about, save
from tokenskip.baselines.rows import Solved, right, solve
from tokenskip.config import ModelConfig, PromptConfig, TaskConfig, load_recipe
from tokenskip.embedded import adapter_path, compressor_path
from tokenskip.models.loading import load_model, load_tokenizer
from tokenskip.prompting.prompts import Prompts
from tokenskip.run import Run
from tokenskip.scorers.llmlingua2 import LLMLingua2
from tokenskip.scorers.random import RandomScorer
from tokenskip.scorers.surprisal import Surprisal
from tokenskip.storage.store import write_atomically, write_rows
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.tokens import token_counter
from tokenskip.types import Problem, Scorer, Trajectory

CONCISE = "Be concise."
"""Under which the untouched model writes a short chain with all its steps: what the families learn from."""
EMBEDDED = ModelConfig(path="embedded", device="cpu")
RATIOS = (1.0, 0.7, 0.5, 0.33)
POOLED_RATIOS = (0.7, 0.5, 0.3)
FILTER_RATIOS = (0.9, 0.7)
INSTRUCTIONS = ("Just give the answer.", CONCISE, "Use plain words.", "")
"""What the budget's predictor chooses from."""
LEAST = (0.99, 0.95)
PREDICTED_FROM = 800
"""Training questions that each instruction is tried on."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: held-out problems, training problems, and updates (None: each family's own)."""

    n: int = 1000
    seed: int = 0
    chains: int = 8000
    updates: int | None = None
    timed: int = 8

    def steps(self, steps: int) -> int:
        """The updates of a training."""
        return steps if self.updates is None else self.updates


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the benchmark: which weights, what around the question, and who decodes."""

    part: str
    family: str
    name: str
    about: str
    place: int = 0
    weights: str = ""
    backend: str = "hf"
    options: dict[str, Any] = field(default_factory=dict)
    instruction: str = ""
    ratio: float = 1.0
    marker: bool = False
    questions: str = ""
    owners: int = 1
    role: str = "control"
    rival: bool = False
    visible: float | None = None
    train_cpu_s: float = 0.0
    prepare_s: float = 0.0

    @property
    def key(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{self.family}-{self.name}")

    def stored(self) -> dict[str, Any]:
        """As JSON, with the name as the page has it."""
        return {**asdict(self), "setting": self.name}

    @classmethod
    def read(cls, noted: dict[str, Any]) -> Setting:
        """The inverse of `stored`."""
        return cls(**{key: noted[key] for key in cls.__dataclass_fields__})


class Bench:
    """What the parts share: the chains, the prompts, and the models that are trained already."""

    def __init__(self, out: Path, size: Size, pooled: Path | None = None) -> None:
        self.out, self.size, self.pooled = out.absolute(), size, pooled

    @cached_property
    def prompts(self) -> Prompts:
        """The renderer, with the embedded model's tokenizer."""
        return Prompts(load_tokenizer(EMBEDDED), PromptConfig())

    @cached_property
    def chains(self) -> list[Trajectory]:
        """The untouched model's own right chains under `CONCISE`, on training problems."""
        return self.answers(CONCISE, self.size.chains)

    def answers(self, instruction: str, limit: int, *, wrong: bool = False) -> list[Trajectory]:
        """The untouched model's graded answers to training problems; only the right ones unless `wrong`."""
        overrides = ["name=families", f"task.train_limit={limit}",
                     f"prompt.template={json.dumps(('{question} ' + instruction).strip())}",
                     f"generate.max_new_tokens={112 if instruction == CONCISE else 224}"]  # fmt: skip
        folder = self.out / "chains" / "-".join(instruction.strip(".").lower().split() or ["plain"])
        with Run(folder, load_recipe(RECIPE, overrides), Lines()) as run:
            pipeline.generate(run)
            pipeline.grade(run)
            graded = list(run.folder.trajectories())
        return graded if wrong else list(right(graded))

    @cached_property
    def solved(self) -> list[Solved]:
        """The chains as ids, step by step."""
        return [solve(one, self.prompts) for one in self.chains]

    def test(self) -> list[Problem]:
        """The held-out problems."""
        return list(EmbeddedTask(TaskConfig(name="embedded")).problems("test", self.size.n))

    def trained(self, name: str, train: Callable[[Any], float], start: str | None = None) -> tuple[str, float]:
        """(folder, CPU seconds with those of its start) of a model that is trained where it is not there yet."""
        folder = self.out / "models" / name
        before = self.out / "models" / start if start else None
        if not folder.exists():
            print(f"training {name}", file=sys.stderr, flush=True)
            torch.manual_seed(self.size.seed)
            model = load_model(EMBEDDED, before)
            seconds = train(model) + (about(before)["train_cpu_s"] if before else 0.0)
            save(model, folder, train_cpu_s=seconds)
        return str(folder), float(about(folder)["train_cpu_s"])

    def fitting(self, steps: int) -> dict[str, Any]:
        """The settings of a training of so many updates."""
        return {"steps": self.size.steps(steps), "seed": self.size.seed, "note": log}


def log(text: str) -> None:
    """Progress as plain lines."""
    print(text, file=sys.stderr, flush=True)


def reference(bench: Bench) -> Iterator[Setting]:
    """What everything is compared with: the untouched model, a prompt, and the shipped adapter."""
    yield Setting(part="reference", family="original", name="whole chain", about="the untouched model")
    yield Setting(part="reference", family="prompt", name="be concise", place=1, instruction=CONCISE,
                  about=f'the untouched model, "{CONCISE}" behind the question')  # fmt: skip
    for place, ratio in enumerate(RATIOS, start=2):
        yield Setting(part="reference", family="tokenskip", name=f"γ = {ratio:g}", place=place, ratio=ratio,
                      about=f"the shipped adapter ({shipped()}…)", weights=str(adapter_path()), marker=True,
                      role="method", rival=True)  # fmt: skip

    for place, ratio in enumerate(POOLED_RATIOS if bench.pooled else (), start=2 + len(RATIOS)):
        yield Setting(part="reference", family="pooled", name=f"γ = {ratio:g}", place=place, ratio=ratio,
                      about="trained on chains from several sources", weights=str(bench.pooled), marker=True,
                      role="method", rival=True)  # fmt: skip


def filtering(bench: Bench) -> Iterator[Setting]:
    """The question cut by three scorers; the untouched model answers."""
    problems, count = bench.test(), token_counter(bench.prompts.tokenizer)
    model = load_model(EMBEDDED)
    opening = bench.prompts.ids("<|im_start|>user\n")
    scorers: dict[str, Scorer] = {
        "surprisal": Surprisal(model, tokenizer=bench.prompts.tokenizer, render=lambda _: opening),
        "compressor": LLMLingua2(str(compressor_path())),
        "random": RandomScorer(),
    }
    told = {"surprisal": "Selective Context: likely words go", "random": "the control: any words go",
            "compressor": "LLMLingua-2's form: the shipped classifier, which was made for chains"}  # fmt: skip
    for name, scorer in scorers.items():
        began = time.process_time()
        cuts = filter_prompt.filtered(problems, scorer, FILTER_RATIOS, count)
        seconds = (time.process_time() - began) / len(problems) / len(FILTER_RATIOS)
        for ratio, cut in cuts.items():
            yield Setting(part="filter", family="filter", name=f"{name} {ratio:g}", about=told[name],
                          place=10 * list(scorers).index(name) + FILTER_RATIOS.index(ratio),
                          questions=written(bench, f"filter-{name}-{ratio:g}", cut), prepare_s=seconds)  # fmt: skip


def written(bench: Bench, name: str, problems: list[Problem]) -> str:
    """A file of these problems, for the task `jsonl`."""
    file = bench.out / "questions" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": one.id, "question": one.question, "gold": one.gold, "level": one.level} for one in problems)
    write_rows(file, rows)
    return str(file)


def internalised(bench: Bench) -> Iterator[Setting]:
    """The whole chain, that chain taken away token by token, and none from the start."""
    ways: dict[internalise.Way, tuple[int, str]] = {
        "explicit": (300, f'trained to write the chains of "{CONCISE}" without being asked'),
        "gradual": (900, "from there, the chain taken away from the left"),
        "at_once": (900, "from there, without a chain from the first update on: the control"),
    }
    for place, (way, (steps, told)) in enumerate(ways.items()):

        def train(model: Any, way: internalise.Way = way, steps: int = steps) -> float:
            return internalise.train(model, bench.solved, way, **bench.fitting(steps))

        folder, seconds = bench.trained(way, train, None if way == "explicit" else "explicit")
        family, name = ("internalised", way.replace("_", " ")) if place else ("explicit", "short chain")
        yield Setting(part="internalise", family=family, name=name, about=told, place=place, weights=folder,
                      train_cpu_s=seconds)  # fmt: skip


def skipping(bench: Bench) -> Iterator[Setting]:
    """Two rounds of expansion, then the control at 0, 1 and 2 steps left out."""
    found_file = bench.out / "models" / "skip-found.json"
    expanded: dict[str, int] = {}

    def train(model: Any) -> float:
        chains = [skip_steps.whole(one) for one in bench.chains]
        data = chains + skip_steps.warm(chains, bench.size.seed)
        seconds = skip_steps.train(model, data, bench.prompts, **bench.fitting(300))
        task = EmbeddedTask(TaskConfig(name="embedded"))
        began = time.process_time()
        backend = HfBackend(model, bench.prompts.tokenizer, batch_size=128)
        for left_out in (1, 2):
            found = skip_steps.expand(chains[:1500], left_out, backend, bench.prompts, task, 64)
            expanded[str(left_out)] = len(found)
            log(f"skip: {len(found)} right chains with {left_out} left out")
            seconds += time.process_time() - began
            data += found
            seconds += skip_steps.train(model, data, bench.prompts, **bench.fitting(300))
            began = time.process_time()
        write_atomically(found_file, json.dumps(expanded) + "\n")
        return seconds

    folder, seconds = bench.trained("skip", train, "explicit")
    expanded = json.loads(found_file.read_text(encoding="utf-8"))
    found = ", ".join(f"{n:,} with {left_out} left out" for left_out, n in expanded.items())
    for left_out in (0, 1, 2):
        yield Setting(part="skip", family="skipping steps", name=f"{left_out} left out", place=left_out,
                      about=f"trained on its own right chains with fewer steps: {found}", weights=folder,
                      instruction=skip_steps.instruction(left_out), train_cpu_s=seconds)  # fmt: skip


def latents(bench: Bench) -> Iterator[Setting]:
    """One and two thoughts a step."""
    for place, per_step in enumerate((1, 2)):

        def train(model: Any, per_step: int = per_step) -> float:
            return latent.train(model, bench.prompts.tokenizer, bench.solved, per_step, **bench.fitting(900))[0]

        folder, seconds = bench.trained(f"latent-{per_step}", train, "explicit")
        thoughts = per_step * max(len(one.steps) for one in bench.solved)
        yield Setting(part="latent", family="latent", name=f"{thoughts} thoughts", place=place, weights=folder,
                      about=f"Coconut, {per_step} a step", backend="tokenskip.baselines.latent:LatentBackend",
                      options={"thoughts": thoughts}, train_cpu_s=seconds)  # fmt: skip


def forks(bench: Bench) -> Iterator[Setting]:
    """Stories of two owners: the untouched model, one chain, and two branches."""
    yield Setting(part="parallel", family="original", name="two owners", owners=2,
                  about="the untouched model, which has never seen two owners")  # fmt: skip
    task = EmbeddedTask(TaskConfig(name="embedded", options={"owners": 2}))
    forked = [parallel.fork(one, bench.prompts) for one in task.problems("train", bench.size.chains)]
    told = {"sequential": "trained on the same chains in one piece", "fork": "branches that do not see each other"}
    ways: tuple[parallel.Way, ...] = ("sequential", "fork")
    for place, way in enumerate(ways, start=1):

        def train(model: Any, way: parallel.Way = way) -> float:
            return parallel.train(model, forked, way, **bench.fitting(700))

        folder, seconds = bench.trained(way, train)
        yield Setting(part="parallel", family="parallel", name=way, place=place, owners=2, weights=folder,
                      about=told[way], backend="hf" if way == "sequential" else
                      "tokenskip.baselines.parallel:ForkBackend", rival=way == "sequential",
                      train_cpu_s=seconds)  # fmt: skip


def budgets(bench: Bench) -> Iterator[Setting]:
    """An instruction for each question, by a predictor trained on what the untouched model got right."""
    began = time.process_time()
    chains = {CONCISE: bench.size.chains}  # these are there already
    n = min(bench.size.chains, PREDICTED_FROM)
    graded = [bench.answers(one, chains.get(one, n), wrong=True)[:n] for one in INSTRUCTIONS]
    outcomes = torch.tensor([[float(bool(t.grade and t.grade.correct)) for t in some] for some in graded]).T
    tokens = [sum(t.n_cot_tokens for t in some) / len(some) for some in graded]
    model = load_model(EMBEDDED)
    seen = budget.features(model, [bench.prompts.prompt(t.question) for t in graded[0]])
    head = budget.fit_head(seen, outcomes)
    seconds = time.process_time() - began
    problems = bench.test()
    began = time.process_time()
    chances = head.chances(budget.features(model, [bench.prompts.prompt(one.question) for one in problems]))
    each = (time.process_time() - began) / len(problems)
    for place, least in enumerate(LEAST):
        chosen = budget.choose(chances, tokens, least)
        counted = {one or "nothing": chosen.count(i) / len(chosen) for i, one in enumerate(INSTRUCTIONS)}
        shares = ", ".join(f"{share:.0%} {one!r}" for one, share in counted.items())
        yield Setting(part="budget", family="budget", name=f"chance ≥ {least:g}", place=place, train_cpu_s=seconds,
                      about=f"an instruction for each question: {shares}", prepare_s=each,
                      questions=written(bench, f"budget-{least:g}",
                                        budget.instructed(problems, INSTRUCTIONS, chosen)))  # fmt: skip


def gists(bench: Bench) -> Iterator[Setting]:
    """The question in a few positions."""
    for place, k in enumerate((16, 4)):

        def train(model: Any, k: int = k) -> float:
            return gist.train(model, bench.prompts.tokenizer, bench.solved, k, **bench.fitting(900))

        folder, seconds = bench.trained(f"gist-{k}", train, "explicit")
        yield Setting(part="gist", family="gist", name=f"{k} positions", place=place, weights=folder, visible=k,
                      about="the question seen through gist tokens only",
                      backend="tokenskip.baselines.gist:GistBackend", options={"k": k},
                      train_cpu_s=seconds)  # fmt: skip


FAMILIES: dict[str, Callable[[Bench], Iterator[Setting]]] = {
    "reference": reference,
    "filter": filtering,
    "internalise": internalised,
    "skip": skipping,
    "latent": latents,
    "parallel": forks,
    "budget": budgets,
    "gist": gists,
}
N_ROWS = {
    "reference": 2 + len(RATIOS),
    "filter": 3 * len(FILTER_RATIOS),
    "internalise": 3,
    "skip": 3,
    "latent": 2,
    "parallel": 3,
    "budget": len(LEAST),
    "gist": 2,
}
"""Settings of each part, for the page to say what it lacks."""
