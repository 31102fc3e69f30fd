"""The program: all commands under one name. Heavy libraries are imported where a command needs them."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from harness import __version__
from harness.cli.commands import models, results, runs, start
from harness.common import threads
from harness.common.compiler import without_compiler

app = typer.Typer(
    name="harness",
    help="Find the anomaly detector to trust on your images: sweeps over models with equal tests, in one workbook.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The help lists the commands in this order.
for _group in (runs, results, models, start):
    for _name, _command in _group.COMMANDS.items():
        app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of `python -m harness`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # If the encoding of a terminal lacks a letter, the terminal shows its code, and the sweep continues.
            stream.reconfigure(errors="backslashreplace")
    # Torch reads this when it is imported.
    os.environ.setdefault(threads.WAITING, threads.PASSIVE)
    # A second less for each command that computes. What compiles a network imports the compiler.
    with without_compiler():
        app()
