"""The command line: arguments go in, text and an exit status come out (0; 1: done with failures; 2: bad input)."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

import typer

from llmrank import __version__
from llmrank.cli.ab import ab_app
from llmrank.cli.data import data_app
from llmrank.cli.demo import demo
from llmrank.cli.embed import embed
from llmrank.cli.eval import eval_app
from llmrank.cli.fusion import fusion_app
from llmrank.cli.prompts import prompts_app
from llmrank.cli.rank import rank
from llmrank.cli.train import train
from llmrank.errors import LLMRankError

# What is wrong with the arguments. typer exports one of its subclasses only, and brings click under a name of its own.
USAGE_ERROR: Any = typer.BadParameter.__base__

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""

app = typer.Typer(
    name="llmrank",
    help="Prompt-driven ranking: a history or a sentence and a candidate set go in, an order comes out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(rank)
app.command()(train)
app.command()(embed)
app.add_typer(eval_app, name="eval")
app.add_typer(ab_app, name="ab")
app.add_typer(fusion_app, name="fusion")
app.add_typer(prompts_app, name="prompts")
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line. What is wrong with the input becomes one line on stderr and status 2, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A title that the terminal's encoding lacks a character of is shown escaped, as Python does on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
    except LLMRankError as error:
        _leave(str(error), error.exit_status)
    except USAGE_ERROR as error:
        _leave(error.format_message(), 2)
    except typer.Abort:
        _leave("interrupted", INTERRUPTED)
    if status == INTERRUPTED:  # typer has caught Ctrl-C by itself
        _leave("interrupted", INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _leave(message: str, status: int) -> NoReturn:
    typer.echo(f"llmrank: {' '.join(message.split())}", err=True)
    sys.exit(status)
