"""The end of a command: its exit status, and a line for each expected error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from harness.common.errors import HarnessError
from harness.common.secrets import concealed
from harness.common.terminal import printable
from harness.execution.interrupt import Interrupt

CLOSED_PIPE = 141  # 128 + SIGPIPE


def guard(work: Callable[[], int], debug: bool) -> NoReturn:
    """Run a command; each expected error becomes one line, with exit status 2.

    Args:
        work: the command; returns its exit status.
        debug: whether an error shows its traceback instead.

    Raises:
        typer.Exit: always, with the exit status.
    """
    try:
        # SIGTERM too must leave no half-written file.
        with Interrupt():
            status = work()
        sys.stdout.flush()
    except HarnessError as error:
        if debug:
            raise
        for problem in error.problems:
            print(f"error: {printable(concealed(problem))}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        # The reader closed the pipe, as `| head` does: a shell gives this status to programs that a closed pipe ends.
        # Without the redirection Python would report the closed pipe again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    except OSError as error:
        # A full disk, a path that is too long, or a folder without permission is no bug of the harness.
        if debug or not error.strerror:
            raise
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
        print(f"error: {printable(concealed(names))}{': ' if names else ''}{error.strerror}.", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        status = 130
    raise typer.Exit(status)
