"""`tokenskip effort`: `reasoning_effort` as a second name of a ratio, in an adapter's or a model's chat template."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenskip.commands.console import quiet, say


def effort(
    run: Annotated[str, typer.Argument(help="Run folder, adapter folder, or the folder of a merged model.")],
    map_: Annotated[
        str | None, typer.Option("--map", help="Such as low=.5,medium=.7,high=1; without it the present map is shown.")
    ] = None,
    over: Annotated[bool, typer.Option("--over", help="Also where the model's own template reads the word.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the map out.")] = False,
) -> None:
    """Let clients that know only reasoning_effort ask for a ratio; compression_ratio wins over it."""
    from tokenskip.embedded import adapter_path
    from tokenskip.errors import ConfigError
    from tokenskip.prompting.effort import parse_effort, read_effort, spell_effort
    from tokenskip.serving.merge import find_adapter
    from tokenskip.serving.template import change_effort, template_of

    if map_ is not None and remove:
        raise ConfigError("--map puts a map in and --remove takes it out: give one of them")
    wanted = {} if map_ is None else parse_effort(map_)
    quiet()
    trained = find_adapter(run)
    if map_ is None and not remove:
        say(spell_effort(read_effort(template_of(trained.folder))) or f"{trained.folder} has no effort map")
        return
    if trained.folder == adapter_path():
        raise ConfigError("the shipped adapter is a part of the package: `tokenskip merge embedded -o DIR`, then DIR")
    file = change_effort(trained.folder, wanted, over=over)
    say(f"{spell_effort(wanted) or 'no effort map any more'}: in {file}")
    if trained.run and (trained.run / "merged").exists():
        say(f"{trained.run / 'merged'} still has the template from before: merge again")
