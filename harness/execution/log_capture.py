"""Output of libraries goes to a log file, so that the terminal shows the sweep only.

Lightning and anomalib log, print, warn and draw progress bars. This module captures all of this output.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class _Tee(io.TextIOBase):
    """Writes to a file and to a terminal."""

    def __init__(self, file: TextIO, terminal: TextIO) -> None:
        self._targets = (file, terminal)

    def write(self, text: str) -> int:
        for target in self._targets:
            target.write(text)
        return len(text)

    def flush(self) -> None:
        for target in self._targets:
            target.flush()


@contextmanager
def capture_logs(log: TextIO, show: bool) -> Iterator[None]:
    """Send stdout, stderr, logging and warnings to `log`.

    Args:
        log: an open text stream.
        show: whether the terminal shows the output too (`-v`).
    """
    # The handler must exist before the import of Lightning and anomalib. Otherwise these libraries add handlers to
    # their own loggers. tqdm reads its variable once, at its import.
    if not show:
        os.environ.setdefault("TQDM_DISABLE", "1")
    stream: Any = _Tee(log, sys.stderr) if show else log
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
