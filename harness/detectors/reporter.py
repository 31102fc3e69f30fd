"""Progress for somebody who calls a detector from Python: one line that is gone in the end."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import TracebackType

from rich.markup import escape
from rich.status import Status

from harness.common.terminal import Terminal


class Reporter:
    """A line on the terminal with what goes on.

    Args:
        shown: False for silence.
        name: what is at work.
    """

    def __init__(self, shown: bool, name: str) -> None:
        self._name = name
        console = Terminal(sys.stderr, wrap=True)
        self._status: Status | None = console.status(name) if shown and console.is_terminal else None

    def __enter__(self) -> Reporter:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """What goes on."""
        if self._status:
            self._status.update(escape(f"{self._name}: {text}"))

    @staticmethod
    def warn(texts: Iterable[str]) -> None:
        """What was done differently from what was asked."""
        for text in texts:
            warnings.warn(text, stacklevel=3)
