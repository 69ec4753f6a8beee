"""`tokenskip calibrate RUN`: what comes out becomes what was asked for; see `tokenskip.evaluation.calibrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenskip.commands.console import RunDir, bars, read_recipe, say


def calibrate(
    run_dir: RunDir,
    n: Annotated[int, typer.Option("-n", min=20, help="Development problems; half fit, half check.")] = 300,
    grid: Annotated[list[str] | None, typer.Option(help="Ratio to prompt with and measure; may repeat.")] = None,
    clamp: Annotated[bool, typer.Option("--clamp", help="Out of reach: the nearest instead of an error.")] = False,
) -> None:
    """Measure achieved ratios, fit asked -> prompted, and store that map in the adapter's chat template."""
    from tokenskip.evaluation.calibrate import calibrate as measure
    from tokenskip.ratio import Ratio
    from tokenskip.run import Run

    ratios = [Ratio.parse(ratio) for ratio in grid or []]
    config = read_recipe(run_dir / "config.json", [], None)
    with bars() as progress, Run(run_dir, config, progress) as run:
        found = measure(run, n=n, grid=ratios, clamp=clamp)
    say("asked   prompted   achieved before   after")
    for row in found["checks"]:
        say(f"{row['asked']:<7g} {row['prompted']:<10g} {row['before']:<17.3f} {row['after']:.3f}")
    if found["out_of_reach"]:
        verb = "get the nearest that was" if clamp else "are refused"
        say(f"not reached, {verb}: {', '.join(f'{ratio:g}' for ratio in found['out_of_reach'])}")
    if found["misread"]:
        read = f"read as something else: {', '.join(f'{ratio:g}' for ratio in found['misread'])}"
        say(f"{read}{'; the map prompts with none between the trained ones' if found['steps'] else ''}")
    if found["budgets"]:
        budgets = ", ".join(f"{ratio}: {budget['answer']}" for ratio, budget in found["budgets"].items())
        say(f"tokens that {found['budget_quantile']:.0%} of the answers need, for a server's limit: {budgets}")
    if found["error_before"] is not None:
        change = f"{found['error_before']:.3f} -> {found['error_after']:.3f}"
        say(f"mean error {change} on {found['n_check']} other problems")
    say(f"problems: {found['problems']}; the map is in {run_dir / 'adapter' / 'chat_template.jinja'}")
