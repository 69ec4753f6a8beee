"""Would γ="auto" pay? A ratio per request, chosen by the question's predicted difficulty, against one fixed ratio.

The shipped adapter answers development problems of the embedded family at every ratio. On one half of them each policy
is fitted: questions fall into classes (by length, by sentences, or by their true number of steps), and a class gets the
ratio with the highest `accuracy - price × tokens`; the price is the one whose mean tokens come nearest to a budget from
below. On the other half the policy is compared with the fixed ratios at its own mean tokens: a coin between the two
neighbouring ratios costs as much and needs no policy. Writes docs/results/auto.md; answers are kept in `--rows`.

    python benchmarks/auto.py                # 2,000 problems × 6 ratios, some minutes on one core
    python benchmarks/auto.py --n 100 --out /tmp/auto.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pages import RESULTS

from tokenskip.config import PAPER_RATIOS, check_config
from tokenskip.embedded import adapter_path, family
from tokenskip.evaluation.stats import bootstrap_mean
from tokenskip.generation.generate import complete
from tokenskip.generation.grade import grade_trajectory
from tokenskip.models.loading import load_tokenizer
from tokenskip.plugins import make_backend
from tokenskip.prompting.prompts import Prompts
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.tokens import token_counter
from tokenskip.types import Sampling

BUDGETS = (0.55, 0.65, 0.75, 0.85)
"""Shares of the whole chain's mean tokens that a policy may spend."""
PRICES = np.concatenate(([0.0], np.geomspace(1e-5, 0.1, 400)))
"""Accuracy that a token must bring."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Measured:
    """Per problem and ratio, (problems, ratios): 1 for a right answer, and CoT tokens. Per problem: its classes."""

    right: Array
    tokens: Array
    classes: Mapping[str, Sequence[int]]

    def half(self, first: bool) -> Measured:
        """Every other problem, so that both halves are alike."""
        chosen = slice(0 if first else 1, None, 2)
        classes = {name: values[chosen] for name, values in self.classes.items()}
        return Measured(self.right[chosen], self.tokens[chosen], classes)


def answer_all(n: int, file: Path) -> list[dict[str, Any]]:
    """One row a problem: `{id, question, level, right, tokens}`, the last two per ratio; goes on from `file`."""
    problems = list(family.problems("dev", n))
    rows = [{"id": one.id, "question": one.question, "level": one.level, "right": [], "tokens": []} for one in problems]
    if file.exists():
        known = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows = known if [row["id"] for row in known] == [row["id"] for row in rows] else rows
    missing = PAPER_RATIOS[len(rows[0]["right"]) :]
    if not missing:
        return rows
    config = check_config({"generate": {"max_new_tokens": 224, "batch_size": 128}, "model": {"device": "cpu"}}, "auto")
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    backend, task = make_backend(config, prompts, adapter_path()), EmbeddedTask(config.task)
    sampling = Sampling(max_new_tokens=config.generate.max_new_tokens)
    file.parent.mkdir(parents=True, exist_ok=True)
    for ratio in missing:
        asked = [prompts.prompt(one.question, ratio) for one in problems]
        done = complete(problems, asked, backend, sampling, config.prompt, token_counter(prompts.tokenizer))
        for row, one in zip(rows, done, strict=True):
            grade = grade_trajectory(one, task).grade
            row["right"].append(bool(grade and grade.correct))
            row["tokens"].append(one.n_cot_tokens)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"ratio {ratio}: {sum(row['right'][-1] for row in rows) / n:.1%}", flush=True)
    return rows


def measured(rows: Sequence[Mapping[str, Any]]) -> Measured:
    """What the policies read."""
    words = np.array([len(row["question"].split()) for row in rows])
    edges = np.quantile(words, [0.2, 0.4, 0.6, 0.8])
    return Measured(
        right=np.array([row["right"] for row in rows], dtype=float),
        tokens=np.array([row["tokens"] for row in rows], dtype=float),
        classes={
            "length of the question (5 classes)": np.searchsorted(edges, words).tolist(),
            "sentences of the question": [len(re.findall(r"[.?!](?:\s|$)", row["question"])) for row in rows],
            "true number of steps": [int(row["level"]) for row in rows],
        },
    )


def fit(data: Measured, classes: Sequence[int], budget: float) -> dict[int, int]:
    """Class -> index of its ratio: the best that spends at most `budget` tokens a problem on `data`."""
    labels = np.array(classes)
    known = sorted(set(classes))
    right = np.array([data.right[labels == one].mean(axis=0) for one in known])
    tokens = np.array([data.tokens[labels == one].mean(axis=0) for one in known])
    share = np.array([(labels == one).mean() for one in known])
    best: tuple[float, float, list[int]] | None = None
    for price in PRICES:
        chosen = (right - price * tokens).argmax(axis=1)
        spent = float((share * tokens[np.arange(len(known)), chosen]).sum())
        accuracy = float((share * right[np.arange(len(known)), chosen]).sum())
        if spent <= budget and (best is None or (accuracy, -spent) > best[:2]):
            best = accuracy, -spent, chosen.tolist()
    return dict(zip(known, best[2] if best else tokens.argmin(axis=1).tolist(), strict=True))


def fixed_at(data: Measured, tokens: float) -> tuple[Array, str]:
    """Expected rightness per problem of a coin between the two fixed ratios around `tokens`, and which they are."""
    means = data.tokens.mean(axis=0)
    above = int(np.searchsorted(means, tokens))
    if above in (0, len(means)):
        at = min(above, len(means) - 1)
        return data.right[:, at], f"{PAPER_RATIOS[at]}"
    weight = (tokens - means[above - 1]) / (means[above] - means[above - 1])
    mixed = (1 - weight) * data.right[:, above - 1] + weight * data.right[:, above]
    return mixed, f"{PAPER_RATIOS[above - 1]} / {PAPER_RATIOS[above]}"


def compare(data: Measured, chosen: Sequence[int]) -> dict[str, Any]:
    """A choice of ratio per problem beside the fixed ratios at its own mean tokens."""
    rows = np.arange(len(chosen))
    right, tokens = data.right[rows, chosen], float(data.tokens[rows, chosen].mean())
    fixed, between = fixed_at(data, tokens)
    low, high = bootstrap_mean(right - fixed)
    return {
        "tokens": tokens,
        "accuracy": float(right.mean()),
        "fixed": float(fixed.mean()),
        "between": between,
        "difference": float((right - fixed).mean()),
        "low": low,
        "high": high,
    }


def oracle(data: Measured) -> list[int]:
    """The shortest right answer of each problem, known afterwards only; the shortest where none is right."""
    cost = np.where(data.right > 0, data.tokens, data.tokens + 1e6)
    return [int(at) for at in cost.argmin(axis=1)]


def page(data: Measured) -> tuple[str, bool]:
    """The document, and whether a policy that a server could follow is better with certainty at some budget."""
    train, test = data.half(True), data.half(False)
    whole = float(train.tokens[:, -1].mean())
    lines, wins = [], 0
    for name in data.classes:
        for budget in BUDGETS:
            policy = fit(train, train.classes[name], budget * whole)
            found = compare(test, [policy.get(one, len(PAPER_RATIOS) - 1) for one in test.classes[name]])
            ratios = ", ".join(f"{PAPER_RATIOS[at]}" for at in policy.values())
            wins += name != "true number of steps" and found["low"] > 0
            lines.append(_row(name, f"{budget:.0%}", ratios, found))
    lines.append(_row("oracle (shortest right answer)", "–", "per problem", compare(test, oracle(test))))
    n = len(test.right)
    fixed = "\n".join(
        f"| {ratio} | {test.right[:, at].mean():.1%} | {test.tokens[:, at].mean():.1f} |"
        for at, ratio in enumerate(PAPER_RATIOS)
    )
    verdict = (
        f"{wins} of {2 * len(BUDGETS)} comparisons have an interval above zero."
        if wins
        else 'None of the policies beats a fixed ratio at equal mean tokens with certainty, so γ="auto" is left out.'
    )
    text = TEXT.format(n=n, n_fit=len(train.right), verdict=verdict, fixed=fixed, rows="\n".join(lines))
    return text, bool(wins)


def _row(name: str, budget: str, ratios: str, found: Mapping[str, Any]) -> str:
    points = [f"{100 * found[key]:+.1f}".replace("-", "−") for key in ("difference", "low", "high")]
    return (
        f"| {name} | {budget} | {ratios} | {found['tokens']:.1f} | {found['accuracy']:.1%} | {found['fixed']:.1%} "
        f"({found['between']}) | {points[0]} [{points[1]}, {points[2]}] |"
    )


TEXT = """# γ = "auto": not offered, and why

Would a ratio per request, chosen by the question's predicted difficulty, do better than one ratio for all? Made by
`python benchmarks/auto.py` with the shipped adapter of the embedded model, greedily, on development problems that were
not trained on: policies are fitted on {n_fit:,} of them and compared on {n:,} others. A policy gives each class of
questions the ratio with the best accuracy for its tokens, under a budget (a share of the whole chain's tokens). It is
compared with the fixed ratios at its own mean tokens: a coin between the two neighbours costs as much and needs no
policy. Differences in points with a 95% bootstrap interval over problems.

**{verdict}**

| policy by | budget | ratios of the classes | CoT tokens | accuracy | fixed, at equal tokens | difference |
| --- | --: | --- | --: | --: | --: | --: |
{rows}

The oracle knows afterwards which ratios would have been right; it bounds what any policy could gain. What holds for
this family of questions, whose difficulty hardly depends on what can be seen of it, need not hold for others.

## The fixed ratios, on the same {n:,} problems

| γ | accuracy | CoT tokens |
| --: | --: | --: |
{fixed}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Would a ratio per request pay?")
    parser.add_argument("--n", type=int, default=2000, help="development problems, half of them to fit on")
    parser.add_argument("--rows", type=Path, default=Path("runs/auto.jsonl"), help="where the answers are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "auto.md")
    args = parser.parse_args(arguments)
    text, pays = page(measured(answer_all(args.n, args.rows)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"{args.out}: {'pays somewhere' if pays else 'does not pay'}")


if __name__ == "__main__":
    main()
