"""The method on a real LLM: SmolLM2-135M-Instruct, taught a task, then trained with LoRA to obey the ratio.

Needs the extra `smollm2` and the package that carries the model (docs/own-model.md). Each part goes on where it
stopped, in folders under `--out`; docs/results/smollm2.md and smollm2.json get whatever is finished there.

- `teach`: the recipe `teach` on stories of the embedded family, written in one wordy register by the generator;
- `stories`: the recipe `small-llm` on the taught model's own chains, and what it is compared with;
- `random`, `seed`, `paper`: the same on random cuts, with another seed, and the recipe `paper` as it stands;
- `surprisal`, `goal_gradient`: other scorers, under the taught model itself, at a third of the training;
- `gsm8k-teach`, `gsm8k`: the first two on GSM8K (`--data`, a folder with train.jsonl and test.jsonl).

    python benchmarks/smollm2.py                        # parts in this order; on a GPU all of it, at its full size
    python benchmarks/smollm2.py --part teach --part stories
    python benchmarks/smollm2.py --size small --out runs/small   # an hour or two of one core
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline import Lines
from pages import RESULTS, ROOT, fill_file
from paper import measured
from smollm2_page import page, readme_section

from tokenskip import pipeline
from tokenskip.config import RunConfig, load_recipe
from tokenskip.embedded.family import stories
from tokenskip.errors import ConfigError, TokenskipError
from tokenskip.models.gguf import SMOLLM2
from tokenskip.models.loading import pick_device
from tokenskip.recipes import find_recipe
from tokenskip.run import Run
from tokenskip.serving.merge import find_adapter, merge
from tokenskip.storage.store import ADAPTER, TRAIN, RunFolder, read_manifest, read_rows, write_atomically, write_rows

Row = dict[str, Any]
PREPARE = ("generate", "grade", "score", "prune", "train")
TRAINED = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BETWEEN = (0.55, 0.65, 0.75)
RATIOS = tuple(sorted(TRAINED + BETWEEN))


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything: taught problems, problems that make chains, held-out problems, rows decoded together."""

    taught: int
    chains: int
    test: int
    batch: int


SIZES = {
    "small": Size(taught=2000, chains=240, test=40, batch=40),
    "cpu": Size(taught=3000, chains=600, test=500, batch=250),
    "gpu": Size(taught=7473, chains=3000, test=1319, batch=512),
}
Pass = tuple[tuple[str, ...], tuple[float, ...]]
PASSES: tuple[Pass, ...] = (
    (("tokenskip",), (0.5, 0.7, 1.0)),
    (("prompt_be_concise",), (1.0,)),
    (("tokenskip",), (0.6, 0.8, 0.9)),
    (("truncation", "truncation_forced"), (0.6,)),
    (("prompt_lc",), (0.5,)),
    (("tokenskip",), BETWEEN),
    (("prompt_lc",), (0.7,)),
    (("truncation", "truncation_forced"), (0.5, 0.7, 0.8, 0.9)),
)
"""Arms and ratios in the order in which hours are spent on them; a page can be written after each."""
SHORT: tuple[Pass, ...] = ((("tokenskip",), (0.5, 0.7, 1.0)),)
VARIANTS: dict[str, tuple[str, tuple[str, ...], tuple[Pass, ...]]] = {
    "stories": ("small-llm", (), PASSES),
    "random": ("small-llm", ("score.scorer=random", "score.model=null"), SHORT),
    "paper": ("paper", ('prompt.template="{question}"', "prompt.answer=trigger", "score.model=embedded"), SHORT),
    "seed": ("small-llm", ("seed=1",), PASSES[:3]),
    "surprisal": ("small-llm", ("score.scorer=surprisal", "score.model=null"), SHORT),
    "goal_gradient": ("small-llm", ("score.scorer=goal_gradient", "score.model=null"), SHORT),
    "gsm8k": ("small-llm", (), PASSES),
}
"""Part -> recipe, what it is changed in, and what is evaluated."""
THIRD = ("surprisal", "goal_gradient")
PARTS = ("teach", "stories", "random", "seed", "paper", *THIRD, "gsm8k-teach", "gsm8k")


class Bench:
    """The folders of the benchmark and the configuration of each part."""

    def __init__(self, out: Path, size: Size, data: Path | None) -> None:
        self.out, self.size, self.data = out.resolve(), size, data

    def task(self, part: str) -> list[str]:
        """Overrides that name the task of a part."""
        if part.startswith("gsm8k"):
            if self.data is None:
                return ["task.name=gsm8k"]
            files = [f"task.{split}={self.data / split}.jsonl" for split in ("train", "test")]
            return ["task.name=gsm8k", *files]
        if part == "teach":
            train, test = self.out / "stories-train.jsonl", self.out / "stories-test.jsonl"
            for file, split, n in ((train, "pretrain", self.size.taught), (test, "test", self.size.test)):
                if not file.exists():
                    write_rows(file, solved(split, n))
            return ["task.name=jsonl", f"task.train={train}", f"task.test={test}", "task.options.numeric=true"]
        return ["task.name=embedded"]

    def config(self, part: str) -> RunConfig:
        """The configuration of a part; the taught model is its base, unless it is the part that teaches."""
        size, batch = self.size, self.size.batch
        common = ["evaluate.latency_samples=0", f"generate.batch_size={batch}", f"evaluate.batch_size={batch}"]
        if part.endswith("teach"):
            limits = [f"task.train_limit={size.taught}", f"task.test_limit={size.test}"]
            overrides = [f"name=smollm2-{part}", f"model.path={SMOLLM2}", *limits]
            recipe = "teach"
        else:
            recipe, changes, _ = VARIANTS[part]
            chains = size.chains // 3 if part in THIRD else size.chains
            limits = [f"task.train_limit={chains}", f"task.test_limit={size.test}"]
            overrides = [f"name=smollm2-{part}", f"model.path={self.taught(part)}", *limits, *changes]
            overrides += ["generate.max_new_tokens=320"]
        return load_recipe(find_recipe(recipe), [*self.task(part), *common, "model.dtype=bfloat16", *overrides])

    def taught(self, part: str) -> Path:
        """The folder of the base that was taught a part's task."""
        return self.out / ("gsm8k-taught" if part.startswith("gsm8k") else "taught")

    def run(self, part: str) -> None:
        """A part, as far as it is not done."""
        config, folder = self.config(part), self.out / part
        if not part.endswith("teach"):
            if not self.taught(part).exists():
                raise ConfigError(f"{self.taught(part)} is not there yet: --part {'gsm8k-' * (part == 'gsm8k')}teach")
            evaluate(folder, config, ((("original",), (1.0,)), *VARIANTS[part][2]))
            return
        with Run(folder, config, Lines()) as run:
            for stage in PREPARE:
                pipeline.STAGES[stage](run)
        if not self.taught(part).exists():
            merge(find_adapter(str(folder), dtype="float32"), self.taught(part))


def evaluate(folder: Path, config: RunConfig, passes: Sequence[Pass]) -> None:
    """All stages, the evaluation a pass after the other; the untouched model's part is done before the training."""
    for at, (arms, ratios) in enumerate(passes):
        compared = tuple(dict.fromkeys(("original", *arms)))
        settings = config.evaluate.model_copy(update={"arms": compared, "ratios": ratios})
        with Run(folder, config.model_copy(update={"evaluate": settings}), Lines()) as run:
            for stage in ("evaluate",) if at == 0 else (*PREPARE, "evaluate"):
                pipeline.STAGES[stage](run)


def solved(split: str, n: int) -> Iterator[Row]:
    """Stories with a solution in the generator's wordy register: no short one, no ratio."""
    sys.path.append(str(ROOT / "tools"))  # what built the embedded model is in no package
    from embedded_model.registers import document

    for story in stories(split, n):
        problem = story.problem()
        text = document(story, "chatty", random.Random(story.id), bare=True).completion
        yield {"id": problem.id, "question": problem.question, "gold": problem.gold, "level": problem.level,
               "solution": text}  # fmt: skip


def collect(out: Path) -> Row:
    """The rows of every part that has some, how each was trained, and how many problems it was judged on."""
    rows, parts = [], []
    for part in PARTS:
        path = out / part
        if not (path / "config.json").exists():
            continue
        folder = RunFolder(path, RunConfig.model_validate(read_manifest(path)["config"]))
        settings = folder.config
        found = measured(folder, RATIOS) if (path / "eval" / "original.jsonl").exists() else []
        about = {"task": "gsm8k" if part.startswith("gsm8k") else "stories", "recipe": part, "seed": settings.seed}
        rows += [{**about, **row} for row in found]
        finished = (path / ADAPTER).exists() and (path / TRAIN).exists()
        parts.append(
            {
                **about,
                "train_limit": settings.task.train_limit,
                "steps": settings.train.steps(sum(1 for _ in read_rows(path / TRAIN))) if finished else None,
                "train": settings.train.model_dump(mode="json"),
                "prune": settings.prune.model_dump(mode="json"),
            }
        )
    return {"parts": parts, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="work folder")
    parser.add_argument("--part", action="append", choices=PARTS, help="this part only; may repeat")
    parser.add_argument("--size", choices=list(SIZES), help="default: gpu where there is one, else cpu")
    parser.add_argument("--data", type=Path, help="folder with GSM8K's train.jsonl and test.jsonl; default: the hub")
    parser.add_argument("--publish", action="store_true", help="only write the page, from what is there")
    args = parser.parse_args(arguments)
    size = SIZES[args.size or ("cpu" if pick_device("auto") == "cpu" else "gpu")]
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        bench = Bench(args.out, size, args.data.resolve() if args.data else None)
        for part in [] if args.publish else args.part or PARTS:
            print(f"== {part}", file=sys.stderr, flush=True)
            bench.run(part)
    except TokenskipError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 2
    finally:
        publish(collect(args.out), RESULTS if args.size != "small" else args.out)
    return 0


def publish(found: Row, folder: Path) -> None:
    """Write smollm2.json and smollm2.md, and into README.md what the recipe gave on stories."""
    if found["rows"]:
        if folder == RESULTS and any((row["recipe"], row["arm"]) == ("stories", "tokenskip") for row in found["rows"]):
            fill_file(ROOT / "README.md", "smollm2", readme_section(found))
        write_atomically(folder / "smollm2.json", json.dumps(found, indent=1) + "\n")
        write_atomically(folder / "smollm2.md", page(found))


if __name__ == "__main__":
    sys.exit(main())
