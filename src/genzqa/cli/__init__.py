"""The ``genzqa`` program.

What is imported here is what ``--help`` costs, so torch, numpy and Pillow are imported inside the commands.

Exit status: 0 all is well; 1 some inputs failed; 2 usage, model, setting or output error; 130 interrupted;
141 the reader of our output went away; 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from genzqa import __version__
from genzqa.allocator import keep_freed_memory
from genzqa.cli.batch import batch_command
from genzqa.cli.benchmark import benchmark_command
from genzqa.cli.data import data_app
from genzqa.cli.distill import distill_command
from genzqa.cli.evaluate import evaluate_command
from genzqa.cli.export import export_command
from genzqa.cli.models import models_command, pull_command, verify_command
from genzqa.cli.reference import import_reference_command
from genzqa.cli.report import report_command
from genzqa.cli.score import score_command
from genzqa.cli.serve import serve_command
from genzqa.cli.train import adapt_command, train_command
from genzqa.errors import GenzqaError, InputError
from genzqa.text import printable

INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143


class _Program(TyperGroup):
    """The one place where errors become a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GenzqaError as error:
            report(error)
            raise typer.Exit(1 if isinstance(error, InputError) else 2) from None
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            # Typer's own exceptions carry an exit status or are Abort; they are for its machinery.
            if sys.flags.dev_mode or hasattr(error, "exit_code") or isinstance(error, typer.Abort):
                raise
            _red(f"error[internal]: {type(error).__name__}: {printable(str(error))}")
            typer.echo("hint: this is a fault of genzqa; please report it with what PYTHONDEVMODE=1 shows", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    name="genzqa",
    cls=_Program,
    help="How good a photo or a video looks, without a reference, the way people would say it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: quicker, and brackets in help texts stay as they are
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"genzqa {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Only what all commands share."""


app.command("score", short_help="Score photos and videos.")(score_command)
app.command("batch", short_help="Score folders of millions.")(batch_command)
app.command("report", short_help="A page about a batch's scores.")(report_command)
app.command("models", short_help="List the registered models.")(models_command)
app.command("pull", short_help="Download a model.")(pull_command)
app.command("verify", short_help="Check a model's files.")(verify_command)
app.add_typer(data_app, name="data", short_help="List and check databases of human scores.")
app.command("evaluate", short_help="Measure a model on databases.")(evaluate_command)
app.command("benchmark", short_help="Compare models.")(benchmark_command)
app.command("serve", short_help="Score over HTTP, with a web page.")(serve_command)
app.command("train", short_help="Train on databases.")(train_command)
app.command("adapt", short_help="Tune to your own scores.")(adapt_command)
app.command("distill", short_help="Train a small, fast student.")(distill_command)
app.command("export", short_help="Write a model as a graph for other runtimes.")(export_command)
app.command("import-reference", short_help="Convert parts of the research release.")(import_reference_command)


def main() -> None:
    """Entry point of the ``genzqa`` program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end the run
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _terminated)  # an exception, so that temporary files are removed
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(PIPE_CLOSED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def report(error: GenzqaError) -> None:
    """Print an error to stderr: one line, red on a terminal, and its hint."""
    subject = f"{printable(error.subject)}: " if error.subject else ""
    _red(f"error[{error.code}]: {subject}{printable(error.reason)}")
    if error.hint:
        typer.echo(f"hint: {printable(error.hint)}", err=True)


def _red(line: str) -> None:
    typer.secho(line, err=True, fg=None if os.environ.get("NO_COLOR") else "red")


def _terminated(*_: object) -> NoReturn:
    sys.exit(TERMINATED)


def _discard_output() -> None:
    """Let the interpreter's last flush succeed: what is still in the buffer has no reader."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (open until the process ends)
