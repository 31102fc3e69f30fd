"""Progress of a detector that a Python program calls: one line on the terminal, removed at the end."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import TracebackType

from rich.markup import escape
from rich.status import Status

from harness.common.terminal import Terminal


class Reporter:
    """A progress line on the terminal.

    Args:
        shown: whether the line is shown.
        name: name of the detector, the first word of the line.
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

    def show(self, text: str) -> None:
        """Replace the text of the line."""
        if self._status:
            self._status.update(escape(f"{self._name}: {text}"))

    @staticmethod
    def warn(texts: Iterable[str]) -> None:
        """Emit a Python warning for each text."""
        for text in texts:
            warnings.warn(text, stacklevel=3)
