"""docs/results/families.md of the rows that `families.py` has measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pages import table

from tokenskip.report.text import num, p_value_text, pct, signed

Row = dict[str, Any]
LEVEL = 0.05
HEAD = (
    *("family", "setting", "accuracy", "interval", "CoT tokens", "on the critical path", "prompt", "s / answer"),
    "training, CPU s",
)
GIVES_UP = (
    ("filtering the prompt", "nothing to train; any server", "the question itself: what is cut is gone"),
    ("internalised steps", "any server; fewest tokens", "the chain: nothing to read, check or grade but the answer"),
    ("skipping steps", "any server; a readable chain; a control in whole steps", "ratios between two numbers of steps"),
    ("latent thoughts", "few forward passes", "a readable chain, and every server: hidden states have to be fed back"),
    ("parallel steps", "waiting time; a readable chain", "every server (masks, positions); tokens are not saved"),
    ("budget predictor", "any server; an untouched model", "the caller's choice: the predictor has it"),
    ("gist tokens", "cache of the prompt", "the prompt's own words, and every server: the cache has to be cut"),
    ("TokenSkip", "any server; a readable chain; the ratio", "a training on the lengths that it is to write"),
)
PARTS = {
    "reference": "the untouched model and the shipped adapter",
    "filter": "filtering the prompt",
    "internalise": "internalised steps",
    "skip": "skipping steps",
    "latent": "latent thoughts",
    "parallel": "parallel steps",
    "budget": "a budget for each question",
    "gist": "gist tokens",
}


UNLEARNED = (
    "Tried: 900 updates of 32 chains after those of the explicit chain, with the papers' stages and resets of the "
    "optimizer, one and two thoughts a step. Answers without a chain are no clean bottom line here: the embedded model "
    "was pretrained on some."
)


def page(results: Row) -> str:
    """The page, whatever of it is measured."""
    one = [row for row in results["rows"] if row["owners"] == 1]
    several = [row for row in results["rows"] if row["owners"] > 1]
    sections = [
        f"""# The other families, on the same bench

Made by `python benchmarks/families.py`: small references of TokenSkip's relatives
(`src/tokenskip/baselines`, each with its paper), on the embedded model, {results["n"]:,} held-out problems, greedily;
one training each, so a point or two between trained rows may be the seed ([seeds.md](seeds.md)). Every number:
[families.json](families.json). Tokens are those of the chain; a latent thought counts as one. The prompt's are what the
answer may look at. Seconds are CPU seconds of one answer alone on one thread, the median of a few on a busy machine:
they tell apart what differs twofold, not less. Training is in CPU seconds, too: with that of the model that a family
starts from (`explicit`), and without the chains, which all share.

{in_short(one)}

{table(HEAD, [line(row) for row in one], 2)}""",
        against(one, "the shipped adapter's row that is nearest in tokens"),
    ]
    if several:
        sections.append(
            f"""## Independent parts: stories of two owners

Problems that the embedded model has never seen, so all rows but the first are trained on them (12% of all questions, by
the usual hash; none of the held-out ones).

{table(HEAD, [line(row) for row in several], 2)}"""
        )
        sections.append(against(several, "the same chain in one piece"))
    sections.append(listed(results["rows"]))
    sections.append(verdicts(results["rows"]))
    sections.append(
        f"""## What each gives up

{table(("family", "gives", "gives up"), GIVES_UP, 3)}"""
    )
    if results["missing"]:
        names = "; ".join(f"{PARTS[one['part']]} ({one['rows']} of {one['of']} rows)" for one in results["missing"])
        sections.append(
            f"""## Not measured yet

{names[0].upper()}{names[1:]}. `python benchmarks/families.py` goes on with what is missing.
"""
        )
    return "\n".join(sections).rstrip() + "\n"


def in_short(rows: Sequence[Row]) -> str:
    """Who wins where, in sentences that follow from the rows."""
    original = next(row for row in rows if row["family"] == "original")
    others = [row for row in rows if row is not original]
    level = [row for row in others if not _worse(row["to_original"])]
    said = []
    if level:
        shortest = min(level, key=lambda row: row["tokens"])
        said.append(
            f"Of the rows that are not surely worse than the untouched model ({pct(original['accuracy'])}; paired, "
            f"p < {LEVEL:g}), the shortest is {_named(shortest)}."
        )
    if ours := [row for row in others if row["family"] == "tokenskip"]:
        least = min(ours, key=lambda row: row["tokens"])
        shorter = [row for row in others if row["tokens"] < least["tokens"]]
        kept = [row for row in shorter if not _worse(row["to_rival"])]
        families, as_good = (_listed({row["family"] for row in some}) for some in (shorter, kept))
        said.append(
            f"The shipped adapter's shortest is {_named(least)}; shorter still are {families}, and of these not "
            f"surely worse than it {as_good}."
        )
    trained = [row for row in others if row["train_cpu_s"]]
    if len({row["train_cpu_s"] for row in trained}) > 1:
        cheap, dear = (pick(trained, key=lambda row: row["train_cpu_s"]) for pick in (min, max))
        said.append(
            f"Training cost from {cheap['train_cpu_s']:.0f} CPU s ({cheap['family']}, {cheap['setting']}) to "
            f"{dear['train_cpu_s']:.0f} ({dear['family']}, {dear['setting']})."
        )
    return " ".join(said)


def _worse(paired: Row | None) -> bool:
    """Whether accuracy is lower, surely; a row without a test is worse."""
    return paired is None or (paired["difference"] < 0 and paired["p_value"] < LEVEL)


def _named(row: Row) -> str:
    return f"{row['family']}, {row['setting']} ({pct(row['accuracy'])} at {row['tokens']:.1f} tokens)"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def listed(rows: Sequence[Row]) -> str:
    """What each setting is."""
    lines = "".join(f"- {row['family']}, {row['setting']}: {row['about']}\n" for row in rows)
    return f"## The settings\n\n{lines}"


def line(row: Row) -> tuple[str, ...]:
    """One row of the main table."""
    return (
        row["family"],
        row["setting"],
        pct(row["accuracy"]),
        f"[{pct(row['accuracy_low'])}, {pct(row['accuracy_high'])}]",
        f"{row['tokens']:.1f}",
        f"{row['critical_tokens']:.1f}",
        f"{row['prompt_tokens']:.0f}",
        num(row["latency_s"], 3) if row["latency_s"] is not None else "–",
        f"{row['train_cpu_s']:.0f}" if row["train_cpu_s"] else "–",
    )


def against(rows: Sequence[Row], rival: str) -> str:
    """The paired tests: points against the untouched model, and against a rival of about the same length."""
    lines = []
    for row in rows:
        if row["to_original"] is None:
            continue
        pairs = [cell(row["to_original"])]
        other = row["to_rival"]
        pairs += [f"{other['rival']} ({other['rival_tokens']:.0f} tokens)", cell(other)] if other else ["–", "–"]
        lines.append((row["family"], row["setting"], *pairs))
    head = ("family", "setting", "to the untouched model", "rival", "to the rival")
    return f"""Paired by problem, in points, with a 95% interval and McNemar's exact p; the rival is {rival}:

{table(head, lines, 5)}"""


def cell(paired: Row) -> str:
    """`-1.2 [-2.0, -0.4], p = 0.01`."""
    low, difference, high = (signed(100 * paired[key]) for key in ("low", "difference", "high"))
    p = p_value_text(paired["p_value"])
    return f"{difference} [{low}, {high}], p {p if p.startswith('<') else f'= {p}'}"


def verdicts(rows: Sequence[Row]) -> str:
    """Whether each family goes the way that its paper reports, by the rows above."""
    at = {(row["family"], row["setting"]): row for row in rows}
    checks = (_internalised, _latent, _parallel, _filtered, _skipped, _gist)
    lines = "".join(f"- {text}\n" for text in (check(at) for check in checks) if text)
    return f"## Does each go the way of its paper?\n\n{lines}" if lines else ""


def _apart(high: Row, low: Row) -> str:
    """How two rows on the same problems stand to each other, by their intervals."""
    if high["accuracy_low"] > low["accuracy_high"]:
        return "above"
    return "below" if high["accuracy_high"] < low["accuracy_low"] else "not apart from"


def _order(at: dict[tuple[str, str], Row], row: Row, name: str) -> str:
    """The row between the explicit chain and none, in words, with what its paper says."""
    above, below = at.get(("explicit", "short chain")), at.get(("internalised", "at once"))
    if not above or not below:
        return ""
    found = _apart(above, row), _apart(row, below)
    met = "yes" if found == ("above", "above") else "**no**"
    return (
        f"{name} ({pct(row['accuracy'])}) is below the explicit chain and above none: {met}. The explicit "
        f"chain ({pct(above['accuracy'])}) is {found[0]} it, and it is {found[1]} an answer without a chain "
        f"({pct(below['accuracy'])}).{'' if met == 'yes' else f' {UNLEARNED}'}"
    )


def _internalised(at: dict[tuple[str, str], Row]) -> str:
    row = at.get(("internalised", "gradual"))
    return _order(at, row, "Internalised, step by step") if row else ""


def _latent(at: dict[tuple[str, str], Row]) -> str:
    rows = [row for (family, _), row in at.items() if family == "latent"]
    return _order(at, max(rows, key=lambda row: row["accuracy"]), "Latent, the better setting") if rows else ""


def _parallel(at: dict[tuple[str, str], Row]) -> str:
    one, fork = at.get(("parallel", "sequential")), at.get(("parallel", "fork"))
    if not one or not fork:
        return ""
    met = "yes" if fork["critical_tokens"] < one["critical_tokens"] else "**no**"
    told = ""
    if fork.get("alike"):
        told = (
            f" In {pct(fork['alike'])} of its answers two branches tell the same: the untouched model knows stories of "
            "one owner only, and a branch has nothing but its owner's name to find its part of the story by."
        )
    return (
        f"Forks shorten the critical path: {met}, from {one['critical_tokens']:.1f} to "
        f"{fork['critical_tokens']:.1f} tokens, with {fork['tokens']:.1f} in all; accuracy {pct(fork['accuracy'])} "
        f"against {pct(one['accuracy'])} in one piece, seconds {num(fork['latency_s'], 3)} against "
        f"{num(one['latency_s'], 3)}.{told}"
    )


def _filtered(at: dict[tuple[str, str], Row]) -> str:
    pairs = [(row, at.get(("filter", setting.replace(name, "random"))), name)
             for (family, setting), row in at.items() if family == "filter"
             for name in ("surprisal", "compressor") if setting.startswith(name)]  # fmt: skip
    known = [(row, control, name) for row, control, name in pairs if control]
    if not known:
        return ""
    above = sum(_apart(row, control) == "above" for row, control, _ in known)
    met = "yes" if above == len(known) else "**not always**" if above else "**no**"
    share = f"{above} of {len(known)} rows"
    return (
        f"Filtering by information is above filtering at random, at the same ratio: {met} ({share}). The embedded "
        "model never learned to foretell a question, the shipped classifier was made for chains, and a question of "
        "this kind has little to spare: the papers cut documents."
    )


def _skipped(at: dict[tuple[str, str], Row]) -> str:
    rows = {setting: row for (family, setting), row in at.items() if family == "skipping steps"}
    whole, one = rows.get("0 left out"), rows.get("1 left out")
    if not whole or not one:
        return ""
    met = "yes" if one["tokens"] < whole["tokens"] and _apart(one, whole) != "below" else "**no**"
    return (
        f"Steps can be left out without losing accuracy: {met}. One step less takes {one['tokens']:.1f} instead of "
        f"{whole['tokens']:.1f} tokens, at {pct(one['accuracy'])} instead of {pct(whole['accuracy'])}. The paper "
        "trains on the model's own right chains with fewer steps; this one finds hardly any, since every step of these "
        "stories has a sum of its own (see the settings)."
    )


def _gist(at: dict[tuple[str, str], Row]) -> str:
    rows = [row for (family, _), row in at.items() if family == "gist"]
    whole = at.get(("explicit", "short chain"))
    if not rows or not whole:
        return ""
    best = max(rows, key=lambda row: row["accuracy"])
    met = "yes" if _apart(whole, best) != "above" else "**no**"
    return (
        f"Gist tokens do as well as the whole prompt: {met}; {pct(best['accuracy'])} from {best['setting']}, "
        f"{pct(whole['accuracy'])} from the whole question. The paper compresses instructions, "
        "this a question of which every number is needed."
    )
