"""`tokenskip prune`: a stage of a run, or a file of yours, cut by our rule or by the `llmlingua` package's.

tokenskip prune runs/NAME --into runs/OTHER --set 'prune.ratios=[0.4, 0.7, 1.0]'
tokenskip prune FILE.jsonl --scorer llmlingua2 --model MODEL --rule llmlingua --ratio 0.5 --ratio 0.7 -o OUT.jsonl
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenskip.commands.console import Set, bars, read_recipe, run_stage, say
from tokenskip.errors import ConfigError, RunError, unknown_name
from tokenskip.storage.disk import link_or_copy
from tokenskip.storage.layout import COMPLETIONS, MANIFEST, SCORES, TRAJECTORIES
from tokenskip.storage.store import RunFolder

if TYPE_CHECKING:
    from tokenskip.commands.files import LinePruner

RULES = ("tokenskip", "llmlingua")
_FILE = "For a file: "
_RULE = "With rule llmlingua: "
Rule = Annotated[
    str | None,
    typer.Option(help=_FILE + "tokenskip (exact budget, whole equations; default) or llmlingua (as the package cuts)."),
]
Preset = Annotated[
    str | None, typer.Option(help=_FILE + "rule llmlingua as the paper's code has it: official-qwen, official-llama3.")
]
ForceTokens = Annotated[
    list[str] | None, typer.Option(help=_RULE + r"a token that always stays (\n: a line break); may repeat.")
]
ForceReserveDigit = Annotated[bool, typer.Option("--force-reserve-digit", help=_RULE + "tokens with a digit stay.")]
DropConsecutive = Annotated[
    bool, typer.Option("--drop-consecutive", help=_RULE + "a forced token is not kept twice in a row.")
]

Into = Annotated[
    Path | None, typer.Option(help="For a run folder: a new one, which shares its scored chains under other settings.")
]


def prune(
    source: Annotated[Path, typer.Argument(help="Run folder, or a JSONL file of {id, cot}.")],
    ratio: Annotated[list[str] | None, typer.Option(help="For a file: share of tokens to keep; may repeat.")] = None,
    scorer: Annotated[str | None, typer.Option(help="For a file: the scorer (default: surprisal).")] = None,
    model: Annotated[str, typer.Option(help="For a file: the scorer's model.")] = "embedded",
    tokenizer: Annotated[str | None, typer.Option(help="For a file: the target's tokenizer.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="For a file: where results go.")] = None,
    set_: Set = None,
    preview: Annotated[int, typer.Option(min=0, help="For a file: rows shown in colour.")] = 2,
    rule: Rule = None,
    preset: Preset = None,
    force_tokens: ForceTokens = None,
    force_reserve_digit: ForceReserveDigit = False,
    drop_consecutive: DropConsecutive = False,
    into: Into = None,
) -> None:
    """Stages 4 and 5: prune the chains of a run and build its training rows, or prune a file of your own."""
    if source.is_dir():
        run_stage("prune", share_scores(source, into, set_ or []) if into else source, None, set_, then="candidates")
        return
    if into:
        raise ConfigError(f"--into goes with a run folder; for the file {source} give -o OUT.jsonl")
    from tokenskip.commands.files import prune_file
    from tokenskip.commands.preview import show_pruned

    if output is None:
        raise ConfigError("a file needs an output: -o OUT.jsonl")
    make = pruner_of(
        scorer,
        model,
        tokenizer,
        set_ or [],
        rule=rule,
        preset=preset,
        force_tokens=force_tokens or (),
        force_reserve_digit=force_reserve_digit,
        drop_consecutive=drop_consecutive,
    )
    with bars() as progress:
        summary = prune_file(source, output, ratio or ["0.5"], make, progress=progress)
    show_pruned(source, output, preview)
    say(f"{summary} -> {output}")


def share_scores(source: Path, target: Path, overrides: list[str]) -> Path:
    """The new run folder `target` with the scored chains of the run `source`; it is whole or not there.

    `overrides` are its other settings. The files are linked where the disk can do that: no stage ever changes a file
    that is complete.

    Raises:
        RunError: `target` is there already. StageError: chains of `source` are not scored yet.
    """
    if target.exists():
        raise RunError(f"{target} is there already: give --into a folder that is not")
    before = read_recipe(source / MANIFEST, [], None, asks=False)
    config = read_recipe(source / MANIFEST, overrides, None, asks=False)
    draft = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    with RunFolder(source, before) as folder:
        for _ in folder.trajectories(SCORES):  # every row is there
            pass
        try:
            draft.mkdir(parents=True)
            for name in (COMPLETIONS, TRAJECTORIES, SCORES):
                link_or_copy(folder.file(name), draft / name)
            shutil.copyfile(folder.file(MANIFEST), draft / MANIFEST)
            with RunFolder(draft, config):  # settings that the chains depend on are refused here
                pass
            draft.replace(target)
        except RunError as error:
            raise RunError(str(error).replace(str(draft), str(source))) from None
        except OSError as error:
            raise RunError(f"cannot write {target}: {error.strerror}") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def pruner_of(
    scorer: str | None,
    model: str,
    tokenizer: str | None,
    overrides: Sequence[str],
    *,
    rule: str | None,
    preset: str | None,
    force_tokens: Sequence[str],
    force_reserve_digit: bool,
    drop_consecutive: bool,
) -> Callable[[], LinePruner]:
    """What makes the pruner that the options describe; nothing is loaded yet.

    Raises:
        ConfigError: options that do not go together.
    """
    rule = rule or ("llmlingua" if preset else "tokenskip")
    if rule not in RULES:
        raise ConfigError(unknown_name("rule", rule, RULES))
    given = {
        "--preset": preset,
        "--force-tokens": force_tokens,
        "--force-reserve-digit": force_reserve_digit,
        "--drop-consecutive": drop_consecutive,
    }
    if rule == "tokenskip":
        for option, value in given.items():
            if value:
                raise ConfigError(f"{option} belongs to --rule llmlingua; our own rule protects numbers by itself")
        from tokenskip.commands.files import FilePruner

        return partial(FilePruner, scorer or "surprisal", model, tokenizer=tokenizer, overrides=overrides)
    if scorer not in (None, "llmlingua2"):
        raise ConfigError(f"--rule llmlingua cuts by a token classifier: it needs --scorer llmlingua2; given: {scorer}")
    from tokenskip.commands.rules import RulePruner

    return partial(
        RulePruner,
        model,
        tokenizer=tokenizer,
        overrides=overrides,
        preset=preset,
        force_tokens=tuple(token.replace("\\n", "\n") for token in force_tokens),
        force_reserve_digit=force_reserve_digit,
        drop_consecutive=drop_consecutive,
    )
