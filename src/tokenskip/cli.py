"""The command line: thin, and the only place that prints, exits, or catches our errors.

A user's mistake is one line on standard error and exit code 2; an interrupted run says how to continue and exits 130.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenskip import tracking
from tokenskip.commands.calibrate import calibrate
from tokenskip.commands.candidates import candidates
from tokenskip.commands.compare import compare
from tokenskip.commands.console import Limit, Out, RunDir, Set, bars, quiet, read_recipe, run_stage, say
from tokenskip.commands.doctor import doctor
from tokenskip.commands.effort import effort
from tokenskip.commands.export import export
from tokenskip.commands.grpo import grpo
from tokenskip.commands.merge import merge
from tokenskip.commands.playground import playground
from tokenskip.commands.prune import prune
from tokenskip.commands.push import push
from tokenskip.commands.rounds import rounds
from tokenskip.commands.serve import serve
from tokenskip.errors import ConfigError, TokenskipError
from tokenskip.storage.outputs import check_folder
from tokenskip.terminal import console, printable, replace_unencodable

app = typer.Typer(
    help="Teach a language model to think in fewer tokens, and choose how few.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, STAGES, SERVE, FILES = "Start here", "Stages of a run, in order", "Use a trained model", "Compare and export"
"""The groups of `tokenskip --help`."""

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""click's `UsageError`, of the click that this typer uses: newer ones bring their own."""

_DISK = "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ENOENT ENAMETOOLONG ELOOP ENOTDIR EISDIR ENOTEMPTY ESTALE ENXIO"
DISK_ERRORS = tuple(getattr(errno, name) for name in _DISK.split())
"""A disk that is full, read-only or failing, a name that it does not take, or a file that somebody removed: not bugs,
wherever they are met."""


def main() -> None:
    """Entry point of the `tokenskip` script."""
    replace_unencodable()
    tracking.switch_telemetry_off()
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)  # of typer.Exit; 130 for an interrupt
        if code == 130:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except USAGE_ERROR as error:
        _fail(" ".join(error.format_message().split()) + " (tokenskip COMMAND --help shows the options)", 2)
    except TokenskipError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; everything computed is kept: the same command continues from here", 130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_ERRORS or (not error.filename and error.errno == errno.ENOENT):
            raise
        name = str(error.filename or "")
        where = f" {name[:80]}…" if len(name) > 80 else f" {name}" if name else ""
        _fail(f"cannot use the file{where}: {error.strerror}; what is written is kept, the same command continues", 2)


@app.command(rich_help_panel=START)
def demo(out: Out = None, limit: Limit = None) -> None:
    """Run the whole method on the built-in model in a few minutes, and show the report."""
    _run_all(read_recipe(Path("demo"), [], limit), out or Path("runs/demo"))


@app.command(rich_help_panel=START)
def run(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, or the name of a shipped one.")],
    set_: Set = None,
    out: Out = None,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show everything, run nothing.")] = False,
) -> None:
    """Run a recipe from the questions to the report; a stopped run continues where it was."""
    config = read_recipe(recipe, set_ or [], limit)
    if dry_run:
        from tokenskip.commands.dry_run import dry_run as show

        quiet()
        show(config)
        return
    _run_all(config, out or Path("runs") / config.name)


@app.command(rich_help_panel=STAGES)
def generate(
    run_dir: RunDir,
    recipe: Annotated[Path | None, typer.Option(help="Recipe of a new run folder.")] = None,
    set_: Set = None,
    limit: Limit = None,
) -> None:
    """Stage 1: let the model answer the training problems (starts a run folder)."""
    run_stage("generate", run_dir, recipe, set_, limit)


@app.command(rich_help_panel=STAGES)
def grade(
    source: Annotated[Path, typer.Argument(help="Run folder, or a JSONL file of {id, gold, output}.")],
    task: Annotated[str, typer.Option(help="For a file: how answers are compared.")] = "gsm8k",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="For a file: where results go.")] = None,
) -> None:
    """Stage 2: grade the completions of a run, or of your own file."""
    if source.is_dir():
        run_stage("grade", source)
        return
    from tokenskip.commands.files import grade_file

    counts = grade_file(source, task, _needed(output))
    say(", ".join(f"{n} {what}" for what, n in counts.items()) + f" -> {output}")


@app.command(rich_help_panel=STAGES)
def score(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 3: score how much each part of every correct chain matters."""
    run_stage("score", run_dir, None, set_)


app.command(rich_help_panel=STAGES)(prune)
app.command(rich_help_panel=STAGES)(candidates)


@app.command(rich_help_panel=STAGES)
def train(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 6: fine-tune the model on the pruned chains."""
    run_stage("train", run_dir, None, set_, then="controls")


app.command(rich_help_panel=STAGES)(rounds)
app.command(rich_help_panel=STAGES)(grpo)
app.command(rich_help_panel=STAGES)(calibrate)


@app.command(rich_help_panel=STAGES)
def evaluate(run_dir: RunDir, set_: Set = None) -> None:
    """Stage 7: answer the test problems in every way the recipe compares."""
    run_stage("evaluate", run_dir, None, set_)


@app.command(rich_help_panel=STAGES)
def report(run_dir: RunDir) -> None:
    """Stage 8: write results.json, report.html and the pictures."""
    run_stage("report", run_dir)
    _show_results(run_dir)


@app.command(rich_help_panel=STAGES)
def distill(
    run_dir: RunDir,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the compressor.")],
    teacher: Annotated[
        list[str] | None, typer.Option(help="Scorer whose importance is learned, goal_gradient by default; may repeat.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder to start from (default: tiny, from scratch).")] = None,
    epochs: Annotated[float, typer.Option(min=0.1, help="Passes over the chains.")] = 3.0,
    pool: Annotated[bool, typer.Option("--pool", help="A word has one importance, wherever it occurs.")] = False,
    option: Annotated[list[str] | None, typer.Option(help="key=value or TEACHER.key=value; may repeat.")] = None,
) -> None:
    """Train your own compressor on a run's chains; use it by --set score.scorer=llmlingua2 score.model=DIR."""
    from tokenskip.recipes import lay_over
    from tokenskip.run import Run
    from tokenskip.training.teachers import distill_run

    check_folder(output, or_empty=True)
    options: dict[str, Any] = {}
    for setting in option or []:
        lay_over(options, setting)
    config = read_recipe(run_dir / "config.json", [], None, asks=False)
    with bars() as progress, Run(run_dir, config, progress) as run:
        teachers = teacher or ["goal_gradient"]
        metrics = distill_run(run, teachers, output, encoder=encoder, epochs=epochs, pool=pool, **options)
    rank = metrics["held_out_spearman"]
    agreement = "not measured" if rank is None else f"{rank:.3f}"
    say(f"{metrics['n_parameters']:,} parameters, rank correlation on unseen chains: {agreement}")
    say(f"compressor: {output}")


@app.command(rich_help_panel=START)
def ask(
    question: Annotated[str, typer.Argument(help="A question.")],
    ratio: Annotated[str, typer.Option(help="Share of the chain's tokens to keep.")] = "0.6",
    base: Annotated[str, typer.Option(help="'embedded', 'smollm2', a folder or .gguf file, or a hub id.")] = "embedded",
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder (default: the embedded one).")] = None,
    set_: Set = None,
) -> None:
    """Ask one question, with the whole and with a shortened chain, side by side."""
    from tokenskip.commands.preview import ask as show

    quiet()
    show(question, ratio, base, adapter, set_ or [])


app.command(rich_help_panel=SERVE)(merge)
app.command(rich_help_panel=SERVE, context_settings={"allow_extra_args": True})(serve)
app.command(rich_help_panel=SERVE)(doctor)
app.command(rich_help_panel=SERVE)(effort)
app.command(rich_help_panel=SERVE)(playground)
app.command(rich_help_panel=SERVE)(push)
app.command(rich_help_panel=FILES)(compare)
app.command(rich_help_panel=FILES)(export)


def _run_all(config: Any, out: Path) -> None:
    from tokenskip import pipeline

    with bars() as progress, pipeline.Run(out, config, progress) as run:
        pipeline.run(run)
    _show_results(out)


def _show_results(path: Path) -> None:
    from tokenskip.evaluation.schema import load_results
    from tokenskip.report.tables import terminal_table

    results = load_results(path)
    screen = console()
    screen.print(terminal_table(results))
    for warning in results.warnings:
        screen.print(f"! {warning}", style="yellow", markup=False, highlight=False)
    screen.print(f"report: {path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _needed(output: Path | None) -> Path:
    if output is None:
        raise ConfigError("a file needs an output: -o OUT.jsonl")
    return output


def _fail(text: str, code: int) -> None:
    print(f"tokenskip: {' '.join(printable(text).split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
