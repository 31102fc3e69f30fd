"""What the terminal shows while a sweep runs: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from harness.common.secrets import concealed
from harness.common.terminal import Terminal
from harness.registry import HEADLINES
from harness.results.record import RunRecord


class SweepProgress:
    """Progress over runs, with the current one, its stage, elapsed and remaining time.

    Args:
        total: how many runs there are.
        live: draw a bar; otherwise print a line a run.
    """

    def __init__(self, total: int, live: bool) -> None:
        # The stream is taken now: while runs go on, sys.stdout is the log file.
        self.console = Terminal(sys.stdout, wrap=live)
        self._total = total
        self._count = 0
        self._label = ""
        self._start = time.monotonic()
        self._said: set[str] = set()
        self._bar = _bar(self.console) if live else None
        self._task = self._bar.add_task("", total=total, stage="", left="") if self._bar else None

    def __enter__(self) -> SweepProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """How many runs there are, now that it is known which are left out."""
        self._total = total
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=total)

    def start(self, label: str, stage: str = "starting") -> None:
        """A run begins (or, before the first, the checks)."""
        if not self._count:
            # What came before the first run says nothing about how long the others take.
            self._start = time.monotonic()
        self._label = concealed(label)
        self.stage(stage)

    def stage(self, stage: str, label: str | None = None) -> None:
        """What goes on in the current run, or of several at once in the one named."""
        self._label = self._label if label is None else concealed(label)
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=escape(self._label), stage=stage)

    def note(self, text: str) -> None:
        """Something to say; once, however many runs it is true of."""
        text = concealed(text)
        if text not in self._said:
            self.console.print(escape(text))
        self._said.add(text)

    def done(self, label: str, record: RunRecord) -> None:
        """A run ended well."""
        figures = [
            f"{name} {value:.3f}" for name in HEADLINES[record.task] if (value := record.metrics.get(name)) is not None
        ]
        self.ended(label, ", ".join([*figures, f"{record.seconds['total']:.1f} s"]), "green")
        for warning in record.warnings:
            self.note(f"  warning: {warning}")

    def failed(self, label: str, record: RunRecord) -> None:
        """A run failed."""
        error = record.error or {}
        first = error.get("message", "").split("\n", maxsplit=1)[0]
        self.ended(label, f"FAILED: {error.get('type')}: {first}", "red")

    def ended(self, label: str, text: str, style: str) -> None:
        """One more is over."""
        label, text = concealed(label), concealed(text)
        self._count += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self._count * (self._total - self._count)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._count, left=f"{_duration(left)} left" if left else "")
        tail = "" if self._bar or not left else f" ({_duration(left)} left)"
        self.console.print(
            f"[{style}]{escape(f'[{self._count}/{self._total}]')}[/] {escape(label)}: {escape(text)}{tail}"
        )


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[left]}[/]"),
        TextColumn("{task.description}"),
        TextColumn("[dim]{task.fields[stage]}[/]"),
        console=console,
        transient=True,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
