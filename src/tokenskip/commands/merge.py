"""`tokenskip merge`: an adapter becomes a plain model folder that every server loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenskip.commands.console import quiet, say


def merge(
    run: Annotated[str, typer.Argument(help="Run folder, adapter folder, or 'embedded' for the shipped adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the merged model; must not exist.")],
    base: Annotated[str | None, typer.Option(help="The adapter's base model, where it moved.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights (default: as the base is stored).")] = None,
) -> None:
    """Fold an adapter into its model: a plain model folder, ratio control in its chat template."""
    from tokenskip.serving.merge import find_adapter
    from tokenskip.serving.merge import merge as fold

    quiet()
    agreement = fold(find_adapter(run, base, dtype), output)
    if agreement is None:
        say(f"{run} was trained on all weights: nothing to merge, copied")
    else:
        say(
            f"merged and adapter logits agree: {agreement.difference:.1e} apart (relative, root mean square), "
            f"the same top token at {agreement.same_top:.2%} of {agreement.n_tokens} places"
        )
    say(f"model: {output}")
