"""Ctrl-C and SIGTERM end a sweep cleanly, and no signal is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupt:
    """A context that records Ctrl-C and SIGTERM, and raises KeyboardInterrupt at once.

    Python drops an exception inside a finaliser, and Lightning turns KeyboardInterrupt into SystemExit. So `check()`
    raises a dropped interrupt between two runs. The end of the context restores the earlier handlers, since Lightning
    replaces them too.

    Args:
        raises: whether the first signal raises; otherwise the first is only recorded, and the second raises.

    Attributes:
        requested: whether a signal has arrived.
    """

    def __init__(self, raises: bool = True) -> None:
        self._raises = raises
        self.requested = False
        self._handlers: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Interrupt:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._stop)
        except ValueError:
            # Only the main thread may set handlers of signals.
            self._handlers.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        repeated, self.requested = self.requested, True
        if self._raises or repeated:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Stop the program if a signal has arrived.

        Raises:
            KeyboardInterrupt: a signal has arrived.
        """
        if self.requested:
            raise KeyboardInterrupt
