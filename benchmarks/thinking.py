"""A thinking model's shape: pruning against the model's own shorter right thoughts, against both.

No thinking model is small enough for two cores. So the embedded model is taught to think: inside <think> it goes
through the story, looks at steps again and wonders about other ways; how often is left to chance. Then the thoughts are
shortened in three ways, and each is trained and measured alike, in the way of TokenSqueeze's comparison
(arXiv 2511.13223). Goes on in `--out` (runs/thinking) where it was stopped; writes docs/results/thinking.md and
thinking.json with what is finished.

    python benchmarks/thinking.py                       # an hour of one core
    python benchmarks/thinking.py --only own --n 500
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline import Lines
from pages import RESULTS, ROOT, table
from paper import measured
from sources import SHARED, on_shared, one_sided

from tokenskip import pipeline
from tokenskip.config import RunConfig, load_recipe
from tokenskip.embedded.family import Event, Story, capital, pronouns, stories
from tokenskip.embedded.words import EVENTS
from tokenskip.errors import TokenskipError, unknown_name
from tokenskip.evaluation.evaluate import read_arm
from tokenskip.recipes import find_recipe
from tokenskip.report.text import pct
from tokenskip.run import Run
from tokenskip.serving.merge import find_adapter, merge
from tokenskip.storage.store import CANDIDATES, TRAIN, RunFolder, read_manifest, read_rows, write_atomically, write_rows

Row = dict[str, Any]
RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OWN = {"sample": {"temperatures": [1.0], "samples": 8}}
RECIPES: dict[str, tuple[str, Row]] = {
    "prune": ("pruned thoughts", {"sources": {"prune": {}}}),
    "own": ("the model's own shorter right thoughts, of eight", {"sources": OWN, "prefer": "likely"}),
    "both": ("its own where one is near the ratio, else pruned", {"sources": {**OWN, "prune": {}}, "prefer": "listed"}),
}
"""Name -> (what it trains on, `candidates`)."""
CHECKS = (
    "Wait, let me read that again: {r}. Yes, {e}.",
    "Is that right? {R}, so {e}. It is.",
    "Hmm, I should be sure about this. {e}, good.",
)
DOUBTS = (
    "But maybe the order matters here? No, we just follow the story.",
    "Should it go the other way round? No, that is how the story tells it.",
    "Is there a trick in this? It does not look like one.",
)
LOOKS_AGAIN, DOUBTS_IT = 0.65, 0.5
"""How often a step is looked at again, and doubted."""


@dataclass(frozen=True, slots=True)
class Size:
    """Problems to teach by, to make chains of, and held out."""

    taught: int = 8000
    train: int = 1500
    test: int = 1000


def thought(story: Story, rng: random.Random) -> str:
    """A long thought and the answer."""
    values = {"N": story.name, "o": story.thing, **pronouns(story.name)}

    def restated(event: Event, number: int) -> Row:
        subject = story.name if number % 2 else values["p"]
        found: Row = {"n": event.operand, "b": event.after, "e": event.equation, "s": subject, "f": event.friend}
        marked = EVENTS[event.kind][2][event.variant].format(**{**values, **found})
        found["r"] = marked.replace("[", "").replace("]", "")  # they mark what matters, for other registers
        return {**found, "R": capital(found["r"])}

    lines = [f"Let me think. {story.name} has {story.start} {story.thing} at first."]
    for number, event in enumerate(story.events, 1):
        told = restated(event, number)
        lines.append("Step {k}: {R}, so {e}.".format(k=number, **told))
        if rng.random() < DOUBTS_IT:
            lines.append(rng.choice(DOUBTS))
        if rng.random() < LOOKS_AGAIN:
            lines.append(rng.choice(CHECKS).format(**told))
    inside = "\n".join(lines)
    return f"<think>\n{inside}\n</think>\n\nThe final answer is {story.answer}."


def solved(split: str, n: int) -> Iterator[Row]:
    """Stories with a thought each, as `tokenskip run teach` reads them."""
    for story in stories(split, n):
        problem = story.problem()
        text = thought(story, random.Random(story.id))
        yield {"id": problem.id, "question": problem.question, "gold": problem.gold, "solution": text}


def taught(out: Path, size: Size) -> Path:
    """The folder of the model that thinks."""
    model, file = out / "model", out / "taught.jsonl"
    if not model.exists():
        if not file.exists():
            write_rows(file, solved("pretrain", size.taught))
        overrides = [
            *("name=thinking-teach", "model={path: embedded, device: cpu}", "prompt.answer=think"),
            *("task.name=jsonl", f"task.train={file}", f"task.test={file}", "task.test_limit=1"),
            *("task.options.numeric=true", "train={method: full, optimizer: muon, learning_rate: 0.01, epochs: 3}"),
            *(
                "train.batch_size=24",
                "train.save_steps=100",
                "train.scheduler=warmup_stable_decay",
                "train.warmup=0.05",
            ),
        ]
        with Run(out / "teach", load_recipe(find_recipe("teach"), overrides), Lines()) as run:
            for stage in ("generate", "grade", "score", "prune", "train"):
                pipeline.STAGES[stage](run)
        merge(find_adapter(str(out / "teach")), model)
    return model


def config_of(size: Size, model: Path, recipe: str, arms: Sequence[str]) -> RunConfig:
    """The recipe `demo` on the model that thinks, with other sources of shorter thoughts."""
    overrides = [
        *(f"name=thinking-{recipe}", f"model.path={model}", "prompt.answer=think"),
        *(f"task.train_limit={size.train}", f"task.test_limit={size.test}"),
        *(f"prune.ratios={[*RATIOS, 1.0]}", f"candidates={json.dumps(RECIPES[recipe][1])}"),
        *("generate.max_new_tokens=384", "evaluate.max_new_tokens=384", "train.epochs=2"),
        *(f"evaluate.arms={json.dumps(list(arms))}", f"evaluate.ratios={[*RATIOS, 1.0]}"),
        "evaluate.latency_samples=0",
    ]
    return load_recipe(find_recipe("demo"), overrides)


def train(out: Path, size: Size, model: Path, recipe: str) -> None:
    """A recipe's training and its answers; thoughts, scores and candidates are made once."""
    with Run(out / "chains", config_of(size, model, "both", ("original",)), Lines()) as run:
        for stage in ("generate", "grade", "score", "prune", "candidates", "evaluate"):
            pipeline.STAGES[stage](run)
    with Run(
        on_shared(out / "chains", out / recipe, (*SHARED, CANDIDATES)),
        config_of(size, model, recipe, ("original", "tokenskip")),
        Lines(),
    ) as run:
        for stage in ("grade", "score", "prune", "candidates", "train", "evaluate"):
            pipeline.STAGES[stage](run)


def collect(out: Path) -> Row:
    """Every finished row, what each recipe chose, and each recipe against `prune` at every ratio."""
    rows, chosen, right = [], {}, {}
    for recipe in RECIPES:
        if not (out / recipe / "config.json").exists():
            continue
        folder = RunFolder(out / recipe, RunConfig.model_validate(read_manifest(out / recipe)["config"]))
        found = measured(folder, (*RATIOS, 1.0))
        rows += [{"recipe": recipe, **row} for row in found if row["arm"] == "tokenskip" or recipe == "prune"]
        for ratio in RATIOS:
            name = f"tokenskip-{ratio}"
            if folder.file(f"eval/{name}.jsonl").exists():
                right[recipe, ratio] = [bool(one.grade and one.grade.correct) for one in read_arm(folder, name)]
        if folder.file(TRAIN).exists():
            chosen[recipe] = Counter(str(row["ratio"]) for row in read_rows(folder.file(TRAIN)))
    against = []
    for (recipe, ratio), theirs in right.items():
        mine = right.get(("prune", ratio), [])
        if recipe != "prune" and len(mine) == len(theirs):
            gained = sum(new and not old for old, new in zip(mine, theirs, strict=True))
            lost = sum(old and not new for old, new in zip(mine, theirs, strict=True))
            against.append({"recipe": recipe, "ratio": ratio, "gained": gained, "lost": lost,
                            "p": one_sided(max(gained, lost), min(gained, lost))})  # fmt: skip
    return {"rows": rows, "chosen": chosen, "against": against}


def page(found: Row) -> str:
    """docs/results/thinking.md."""
    rows = found["rows"]
    original = next(row for row in rows if row["arm"] == "original")
    names = list(dict.fromkeys(row["recipe"] for row in rows))
    cells = [
        (f"`{row['recipe']}`", row["ratio"], pct(row["accuracy"]), f"{row['cot_tokens_mean']:.0f}",
         f"{row['achieved_ratio']:.2f}", f"{found['chosen'].get(row['recipe'], {}).get(str(row['ratio']), 0):,}")
        for row in sorted(rows, key=lambda row: (names.index(row["recipe"]), -(row["ratio"] or 0)))
        if row["arm"] == "tokenskip"
    ]  # fmt: skip
    pairs = [(f"`{one['recipe']}`", one["ratio"], f"{one['gained']} / {one['lost']}", f"{one['p']:.3f}")
             for one in found["against"]]  # fmt: skip
    listed = "\n".join(f"- `{name}`: {RECIPES[name][0]}" for name in names)
    dials = "\n".join(_dial(name, rows) for name in names)
    example = thought(next(stories("test", 1)), random.Random("test-0"))
    return (
        f"""# A thinking model's shape

Made by `python benchmarks/thinking.py`; every number: [thinking.json](thinking.json). A stand-in, and no thinking
model: the embedded model, taught to think with detours, which are drawn at random (it looks again at {LOOKS_AGAIN:.0%}
of the steps, and doubts {DOUBTS_IT:.0%}):

```
{example}
```

Greedily it solves {pct(original["accuracy"])} of {original["n"]:,} held-out problems, in
{original["cot_tokens_mean"]:.0f} tokens of thought. Then one training for each of

{listed}

"rows" is on how many thoughts a ratio is trained. A recipe that has none at a ratio is asked for the nearest that it
has.

{table(("recipe", "γ", "accuracy", "tokens of thought", "achieved ratio", "rows"), cells, 1)}
How far the length follows the ratio:

{dials}

Against `prune` at the same γ: problems gained and lost, and the exact one-sided p of the larger. One training each: a
point or two may be the seed's.

{table(("recipe", "γ", "gained / lost", "p"), pairs, 1)}""".rstrip()
        + "\n"
    )


def _dial(recipe: str, rows: Sequence[Row]) -> str:
    """The lengths that a recipe writes below 1, and whether they follow what is asked for."""
    own = sorted((row["ratio"], row["achieved_ratio"]) for row in rows
                 if (row["recipe"], row["arm"]) == (recipe, "tokenskip") and row["ratio"] < 1)  # fmt: skip
    achieved = [one for _, one in own]
    error = max(abs(asked - one) for asked, one in own)
    return (
        f"- `{recipe}`: {min(achieved):.2f} to {max(achieved):.2f} of the thought for a γ of {own[0][0]:g} to "
        f"{own[-1][0]:g}; off by {error:.2f} at most"
    )


def publish(found: Row, folder: Path) -> None:
    """thinking.md and thinking.json in `folder`, once something is finished."""
    if any(row["arm"] == "original" for row in found["rows"]):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "thinking.json", json.dumps(found, indent=1) + "\n")
        write_atomically(folder / "thinking.md", page(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help=f"a recipe of {', '.join(RECIPES)}; may repeat")
    parser.add_argument("--n", type=int, default=Size().test, help="held-out problems")
    parser.add_argument("--train", type=int, default=Size().train, help="problems whose thoughts are shortened")
    parser.add_argument("--publish", action="store_true", help="only write the page of what is finished")
    parser.add_argument("--out", type=Path, help="where the runs are (default: runs/thinking)")
    args = parser.parse_args(arguments)
    size = Size(train=args.train, test=args.n)
    out = (args.out or ROOT / "runs" / "thinking").resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        for name in args.only or ():
            if name not in RECIPES:
                raise TokenskipError(unknown_name("recipe", name, RECIPES))
        for name in [] if args.publish else args.only or RECIPES:
            train(out, size, taught(out, size), name)
            publish(collect(out), RESULTS)
        publish(collect(out), RESULTS)
    except TokenskipError as error:
        print(f"thinking: {error}", file=sys.stderr)
        sys.exit(2)
    print(RESULTS / "thinking.md")


if __name__ == "__main__":
    main()
