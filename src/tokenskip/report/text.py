"""A run's results in words and single figures: what the page, the card and the README say above their tables. Pure."""

from __future__ import annotations

import math

from tokenskip.evaluation.comparisons import best_win, control_wins, headline, match_of
from tokenskip.evaluation.schema import ArmResult, Results


def pct(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}%"


def num(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 1) -> str:
    """A number that carries its sign."""
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}".replace("-", "−")


def points(value: float | None) -> float | None:
    """A fraction in points, times 100; None stays None."""
    return None if value is None else 100 * value


def p_value_text(p_value: float | None) -> str:
    """A p-value to three digits."""
    return "< 0.001" if p_value is not None and p_value < 0.001 else num(p_value, 3)


def summary(results: Results) -> str:
    """Two sentences for someone who decides: what it cost and saved, and whether something simpler does as well."""
    pair = headline(results.arms)
    if pair is None:
        return "This run has no original model beside a TokenSkip model, so nothing can be compared."
    original, arm = pair
    first = (
        f"Asked to keep {100 * (arm.ratio or 1):.0f}% of its reasoning, the model wrote {pct(arm.achieved_ratio, 0)} "
        f"of the tokens and solved {pct(arm.accuracy)} of {num(arm.n_problems)} problems, "
        f"{_change(original, arm)} the {pct(original.accuracy)} without compression{_certainty(original, arm)}."
    )
    if wins := control_wins(results.arms):
        control, beaten = best_win(wins)
        about = f" ({control.about})" if control.about else ""
        what = "a control that was trained too" if control.trained else "something that needs no training"
        better = "does better" if (match := match_of(control, results.arms)) is None else "does better at some ratios"
        and_yet = (
            f"; at {match.ratio} it solved {pct(match.accuracy)} with {num(match.cot_tokens_mean)}" if match else ""
        )
        return (
            f"{first} But {what} {better}: {control.label}{about} solved {pct(control.accuracy)} with "
            f"{num(control.cot_tokens_mean)} reasoning tokens, where TokenSkip at {beaten.ratio} solved "
            f"{pct(beaten.accuracy)} with {num(beaten.cot_tokens_mean)}{and_yet}."
        )
    cut = next((row for row in results.arms if _is_cut_alike(row, arm)), None)
    if cut is None:
        return f"{first} No control in this run did better with as few tokens."
    return (
        f"{first} Simply cutting the reasoning off at that share of the room solved {pct(cut.accuracy)} "
        f"with {num(cut.cot_tokens_mean)} tokens to TokenSkip's {num(arm.cot_tokens_mean)}."
    )


def _is_cut_alike(row: ArmResult, arm: ArmResult) -> bool:
    return row.shortened_by == "truncation" and row.ratio == arm.ratio and row.n > 0


def _change(original: ArmResult, arm: ArmResult) -> str:
    gap = 100 * ((arm.accuracy or 0) - (original.accuracy or 0))
    return "the same as" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'fewer' if gap < 0 else 'more'} than"


def _certainty(original: ArmResult, arm: ArmResult) -> str:
    if arm.p_value is None or abs((arm.accuracy or 0) - (original.accuracy or 0)) < 0.0005:
        return ""
    return f" (a difference that {'is unlikely to be' if arm.p_value < 0.05 else 'may well be'} chance)"


def tiles(results: Results) -> list[tuple[str, str, str]]:
    """(what, value, note) of the figures at the top: the headline row beside the original's."""
    pair = headline(results.arms)
    if pair is None:
        return []
    original, arm = pair
    shown = []
    if arm.achieved_ratio is not None:
        saved = signed(100 * (arm.achieved_ratio - 1), 0) + "%"
        shown.append(("Reasoning tokens", saved, f"asked for γ = {arm.ratio}"))
    if arm.difference is not None:
        change = f"{pct(original.accuracy)} → {pct(arm.accuracy)}"
        shown.append(("Accuracy, points", signed(100 * arm.difference), change))
    before, after = original.latency_s, arm.latency_s
    if before and after and original.latency_batch_size == arm.latency_batch_size:
        note = f"{num(1000 * before)} → {num(1000 * after)} ms, batch {arm.latency_batch_size}"
        shown.append(("Time per answer", signed(100 * (after / before - 1), 0) + "%", note))
    if arm.tokens_saved_per_1000 is not None:
        shown.append(("Tokens saved", num(arm.tokens_saved_per_1000), "per 1,000 requests"))
    return shown


def conditions(results: Results) -> str:
    """What the times were measured on, and how long answers could get: a sentence or two for under the table."""
    said = []
    timed = [arm for arm in results.arms if arm.latency_s is not None]
    if timed:
        device = " and ".join(dict.fromkeys(arm.latency_device or "a server" for arm in timed))
        warm = all(arm.latency_warm for arm in timed)
        said.append(
            f"Times are of the {results.backend} backend on {device}, a sample's share of its batch, "
            f"{'warm-up left out' if warm else 'warm-up included where there was one batch only'}."
        )
    caps = {arm.token_cap for arm in results.arms if arm.length == "full"}
    if len(caps) == 1:
        shortened = dict.fromkeys(arm.arm for arm in results.arms if arm.length == "paper")
        less = f"; that of {', '.join(shortened)} shrinks with the ratio" if shortened else ""
        said.append(f"The token cap is {num(caps.pop())}{less}.")
    return " ".join(said)
