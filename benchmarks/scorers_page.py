"""The page docs/results/scorers.md, from what `scorers.py` measured. Pure: results in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenskip.report.text import pct

Results = Mapping[str, Any]
KINDS = {"number": "numbers", "operator": "operators", "filler": "fillers", "word": "other words"}
CONTROL = 0.05
"""How far from γ an achieved ratio may be for a model to count as following it."""
ABOUT = {
    "corpus": "One threshold per γ for all chains, atoms whole: what the embedded recipes do.",
    "chain": "Every chain cut to γ by itself (the paper's cut), atoms whole.",
    "corpus, no atoms": "As the first, but the target's single tokens are kept or dropped: a number or an equation "
    "can come apart. `leave_one_out` and `random` give an atom one value, so for them little changes.",
}


def page(results: Results) -> str:
    """The whole page."""
    gammas = " / ".join(f"{ratio:g}" for ratio in results["gammas"])
    cuts = "\n".join(f"## Cut `{cut}`\n\n{about}\n\n{cut_table(results, cut)}" for cut, about in ABOUT.items())
    return f"""# The scorers on the embedded model's chains

Made by `python benchmarks/scorers.py` from {results["n_chains"]:,} correct chains that the embedded model wrote itself
(weights {results["model"]}); every number: [scorers.json](scorers.json). Cells with three numbers are for
γ = {gammas}. The two `leave_one_out` rows are the yardstick, exact and slow, on the first {results["n_reference"]}
chains only. `: numbers` stands for the option `goal=numbers`: how much the answer *and* the later numbers of the chain
depend on a unit, not the answer alone; with `: steps`, its operators and how its lines begin too. `llmlingua2` uses
the compressor that ships with the package (weights {results["compressor"]}).

## Reading

{reading(results)}

## Cost, and agreement with leaving a unit out

Seconds are CPU-seconds for 1,000 chains on one thread, loading excluded. The correlation is Spearman's over the units
of a chain, averaged over chains, ± its standard error.

{cost_table(results)}
{cuts}
Kept shares count characters: numbers are digits with their separators, operators `- + * / × ÷ = < > ^ %`, fillers the
{len(results["fillers"])} function words and discourse markers that scorers.json lists, other words the rest (names,
things, verbs). A chain is rejected when the equation check finds a new or a false equation in it.

{accuracy(results)}
## The same chain at γ = 0.5

{examples(results)}"""


def _three(found: Mapping[str, Any], gammas: Sequence[float], value: Callable[[Mapping[str, Any]], str]) -> str:
    return " / ".join(value(found[str(ratio)]) for ratio in gammas)


def cut_table(results: Results, cut: str) -> str:
    """One row per scorer: achieved ratio, rejects and kept shares at every γ."""
    lines = [
        "| scorer | n | achieved ratio | rejected | " + " | ".join(KINDS.values()) + " |",
        "| --- | --: | --: | --: |" + " --: |" * len(KINDS),
    ]
    gammas = results["gammas"]
    for name, found in results["scorers"].items():
        own, n = found["cuts"][cut], found["n"]
        cells = [_three(own, gammas, lambda c: f"{c['achieved']:.2f}")]
        cells.append(_three(own, gammas, lambda c, n=n: pct(c["rejected"] / n)))  # type: ignore[misc]
        cells += [_three(own, gammas, lambda c, kind=kind: f"{c['kept'][kind]:.2f}") for kind in KINDS]  # type: ignore[misc]
        lines.append(f"| {name} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cost_table(results: Results) -> str:
    """One row per scorer: seconds, and the rank correlation with both yardsticks."""
    yardsticks = next(iter(results["scorers"].values()))["spearman"]
    lines = [
        "| scorer | s per 1,000 | " + " | ".join(f"correlation with `{one}`" for one in yardsticks) + " |",
        "| --- | --: |" + " --: |" * len(yardsticks),
    ]
    for name, found in results["scorers"].items():
        cells = ["–" if one == name else _correlation(value) for one, value in found["spearman"].items()]
        lines.append(f"| {name} | {found['cpu_s_per_1000']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _correlation(value: Mapping[str, Any]) -> str:
    return "–" if value["mean"] is None else f"{value['mean']:.2f} ± {value['error']:.2f}"


def accuracy(results: Results) -> str:
    """The accuracy after fine-tuning, or how to measure it."""
    title = "## Accuracy after fine-tuning\n\n"
    trained = {name: found["trained"] for name, found in results["scorers"].items() if found.get("trained")}
    if not trained:
        return title + "Not measured here: `python benchmarks/scorers.py` without `--no-train`.\n"
    first = next(iter(trained.values()))
    training, gammas = first["training"], ", ".join(f"{ratio:g}" for ratio in results["gammas"])
    rows = sorted({one["training"]["n_rows"] for one in trained.values()})
    span = f"{rows[0]:,} rows" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,} rows, the others rejected"
    weights = "all weights" if training["method"] == "full" else f"LoRA of rank {training['rank']}"
    lines = [
        f"The ordinary pipeline, once per scorer and alike but for it: the {results['n_chains']:,} chains at γ = "
        f"{gammas} under the cut `corpus` ({span}), {training['epochs']:g} "
        f"epochs in batches of {training['batch_size']}, {weights} at {training['learning_rate']:g}, one seed. That is "
        "a small part of the shipped adapter's training ([embedded.md](embedded.md)): it compares scorers and says "
        "nothing about how well the method can do. Held-out problems, greedy; 95% Wilson intervals. An achieved ratio "
        "far from γ means that the model did not learn to leave out what this scorer leaves out; its accuracy is then "
        "that of longer chains.\n",
        "| scorer | γ | n | accuracy | achieved ratio |",
        "| --- | --: | --: | --: | --: |",
    ]
    lines += [_arm("original", arm) for arm in first["arms"] if arm["arm"] == "original"]
    lines += [_arm(name, arm) for name, one in trained.items() for arm in one["arms"] if arm["arm"] == "tokenskip"]
    return title + "\n".join(lines) + "\n"


def _arm(name: str, arm: Mapping[str, Any]) -> str:
    ratio = "–" if arm["ratio"] is None else f"{arm['ratio']:g}"
    achieved = "–" if arm["achieved_ratio"] is None else f"{arm['achieved_ratio']:.3f}"
    return f"| {name} | {ratio} | {arm['n']} | {_accuracy(arm)} | {achieved} |"


def _accuracy(arm: Mapping[str, Any]) -> str:
    return f"{pct(arm['accuracy'])} [{pct(arm['accuracy_low'])}, {pct(arm['accuracy_high'])}]"


def reading(results: Results) -> str:
    """Which scorer leads in what, the yardsticks aside; computed, so that it cannot contradict the tables."""
    ratio = str(results["gammas"][0])
    own = {name: one for name, one in results["scorers"].items() if not name.startswith("leave_one_out")}
    if not own:
        return "Only the yardstick was measured."

    def best(value: Callable[[Mapping[str, Any]], float | None], sign: int = 1) -> str:
        known = {name: found for name, one in own.items() if (found := value(one)) is not None}
        return max(known, key=lambda name: sign * known[name]) if known else "none"

    def at_half(one: Mapping[str, Any]) -> Mapping[str, Any]:
        cut: Mapping[str, Any] = one["cuts"]["corpus"][ratio]
        return cut

    yardsticks = next(iter(own.values()))["spearman"]
    lines = [_nearest(own, yardstick) for yardstick in yardsticks]
    lines += [
        f"- most numbers kept at γ = {ratio}: **{best(lambda o: at_half(o)['kept']['number'])}**; "
        f"fewest fillers: **{best(lambda o: at_half(o)['kept']['filler'], -1)}**",
        f"- fewest rejects at γ = {ratio}: **{best(lambda o: at_half(o)['rejected'] / o['n'], -1)}**",
    ]
    apart = {name: 100 * one["cuts"]["corpus, no atoms"][ratio]["rejected"] / one["n"] for name, one in own.items()}
    whole = {name: 100 * at_half(one)["rejected"] / one["n"] for name, one in own.items()}
    lines.append(
        f"- what atoms are for: chains rejected at γ = {ratio} with them / without: "
        + ", ".join(f"{name} {whole[name]:.1f}% / {apart[name]:.1f}%" for name in own)
    )
    costs = {name: one["cpu_s_per_1000"] for name, one in own.items() if name != "random"}
    if costs:
        lines.append(f"- cheapest, `random` aside: **{min(costs, key=lambda name: costs[name])}**")
    lines += verdict({name: one["trained"] for name, one in own.items() if one["trained"]}, results["default"])
    return "\n".join(lines)


def verdict(trained: Mapping[str, Mapping[str, Any]], default: str) -> list[str]:
    """Which scorer the default should be: of those whose models follow γ, the most accurate at the smallest γ.

    Control comes first, since a model that writes whatever length it likes cannot be asked for one; a lead in accuracy
    counts only where the paired test against the default says so.
    """
    if default not in trained:
        return [f"- no verdict: nothing was fine-tuned on the cuts of the default, `{default}`"]
    arms = {name: [arm for arm in one["arms"] if arm["arm"] == "tokenskip"] for name, one in trained.items()}
    follow = {name: own for name, own in arms.items() if all(map(follows, own))}
    deaf = ", ".join(f"{name} ({_three_achieved(arms[name])})" for name in arms if name not in follow) or "none"
    ratio = arms[default][0]["ratio"]
    lines = [f"- does not follow γ, off by more than {CONTROL:g} of it somewhere: {deaf}"]
    if not follow:
        return [*lines, "- no verdict: no model follows γ"]
    first = max(follow, key=lambda name: follow[name][0]["accuracy"])
    at = ", ".join(f"{name} {_accuracy(own[0])}" for name, own in follow.items())
    who = f"- of the others at γ = {ratio:g}: {at}. "
    if first == default:
        return [*lines, f"{who}**{default} wins**, and is the embedded recipes' default"]
    paired = trained[first]["to_default"]
    apart = f"{100 * paired['difference']:+.1f} points to `{default}`, p = {paired['p_value']:.3g}"
    if default in follow and paired["p_value"] >= 0.05:
        return [*lines, f"{who}**No winner**: {first} leads by {apart}; the default stays `{default}`"]
    return [*lines, f"{who}**{first} wins** ({apart}); the embedded recipes' default is `{default}`"]


def follows(arm: Mapping[str, Any]) -> bool:
    """Whether an arm's achieved ratio is within `CONTROL` of γ."""
    return bool(abs(arm["achieved_ratio"] - arm["ratio"]) <= CONTROL)


def _three_achieved(arms: Sequence[Mapping[str, Any]]) -> str:
    return " / ".join(f"{arm['achieved_ratio']:.2f}" for arm in arms)


def _nearest(own: Mapping[str, Any], yardstick: str) -> str:
    """Who agrees with a yardstick by more than two standard errors above the random control, best first."""
    found = {name: one["spearman"][yardstick] for name, one in own.items()}
    found = {name: value for name, value in found.items() if value["mean"] is not None}
    chance = found.pop("random", None)
    if chance is None or not found:
        return f"- agreement with `{yardstick}`: needs more scorers, `random` among them"
    clear = [
        name
        for name, value in sorted(found.items(), key=lambda item: -item[1]["mean"])
        if value["mean"] - chance["mean"] > 2 * (value["error"] ** 2 + chance["error"] ** 2) ** 0.5
    ]
    who = ", ".join(f"**{name}** ({found[name]['mean']:.2f})" for name in clear) or "nobody"
    return f"- above chance in agreement with `{yardstick}` (two standard errors over `random`): {who}"


def examples(results: Results) -> str:
    """The chain and each scorer's cut of it (cut `chain`, atoms whole), line by line as they are."""
    shown = results["example"]
    parts = [f"{shown['question']}\n", f"The whole chain:\n\n{_fence(shown['cot'])}"]
    for name, found in results["scorers"].items():
        parts.append(f"`{name}`, {_remark(found['example'])}:\n\n{_fence(found['example']['text'])}")
    if shown["llmlingua"]:
        remark = _remark(shown["llmlingua"])
        parts.append(
            f"`llmlingua2` under `--rule llmlingua` (what that package returns), {remark}:\n\n"
            + _fence(shown["llmlingua"]["text"])
        )
    return "\n".join(parts)


def _remark(example: Mapping[str, Any]) -> str:
    rejected = f", rejected ({example['rejected']})" if example["rejected"] else ""
    return f"{example['achieved']:.2f} of the tokens{rejected}"


def _fence(text: str) -> str:
    return f"```text\n{text}\n```\n"
