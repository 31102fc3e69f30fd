"""Ctrl-C and SIGTERM end a sweep cleanly, and none is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupt:
    """While it is open, either signal raises KeyboardInterrupt where the program is, and is remembered.

    Remembering matters: Python drops an exception that is raised inside a finaliser, where a signal may well arrive,
    and Lightning turns it into SystemExit. `check()` between runs raises what was dropped. On leaving, the handlers
    of before are put back, which Lightning too replaces.

    Args:
        raises: otherwise the first signal is only remembered, and the second one raises.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self, raises: bool = True) -> None:
        self._raises = raises
        self.requested = False
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Interrupt:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        except ValueError:
            # Not in the main thread: signals are somebody else's.
            self._before.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._raises or again:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Stop here, if a signal has come.

        Raises:
            KeyboardInterrupt: it has.
        """
        if self.requested:
            raise KeyboardInterrupt
