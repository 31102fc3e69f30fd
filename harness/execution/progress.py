"""Progress of a sweep: a bar in a terminal, and plain lines in a file or a pipe."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from harness.common.secrets import concealed
from harness.common.terminal import Terminal
from harness.registry import HEADLINES, SYNTHETIC_AUROC
from harness.results.record import RunRecord


class SweepProgress:
    """Shows the number of finished runs, the current run with its stage, and the elapsed and remaining time.

    Args:
        total: number of runs.
        live: whether to draw a bar; otherwise each run is one line.
    """

    def __init__(self, total: int, live: bool) -> None:
        # During the runs, sys.stdout is the log file.
        self.console = Terminal(sys.stdout, wrap=live)
        self._total = total
        self._count = 0
        self._label = ""
        self._start = time.monotonic()
        self._notes: set[str] = set()
        self._bar = _bar(self.console) if live else None
        self._task = self._bar.add_task("", total=total, stage="", left="") if self._bar else None

    def __enter__(self) -> SweepProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """Change the number of runs, when the sweep knows the skipped runs."""
        self._total = total
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=total)

    def start(self, label: str, stage: str = "starting") -> None:
        """Show the start of a run, or of the checks before the first run.

        Args:
            label: short description of the run.
            stage: name of the current step.
        """
        if not self._count:
            # The time of the checks does not predict the time of the runs.
            self._start = time.monotonic()
        self._label = concealed(label)
        self.stage(stage)

    def stage(self, stage: str, label: str | None = None) -> None:
        """Show the current step of a run.

        Args:
            stage: name of the step.
            label: short description of the run, where several runs are in progress; None for the current run.
        """
        self._label = self._label if label is None else concealed(label)
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=escape(self._label), stage=stage)

    def note(self, text: str) -> None:
        """Print a sentence. A sentence that applies to several runs is printed once."""
        text = concealed(text)
        if text not in self._notes:
            self.console.print(escape(text))
        self._notes.add(text)

    def done(self, label: str, record: RunRecord) -> None:
        """Show the metrics and the warnings of a finished run.

        Args:
            label: short description of the run.
            record: of the run.
        """
        metrics = [
            f"{name} {value:.3f}"
            for name in (*HEADLINES[record.task], SYNTHETIC_AUROC)
            if (value := record.metrics.get(name)) is not None
        ]
        self.ended(label, ", ".join([*metrics, f"{record.seconds['total']:.1f} s"]), "green")
        for warning in record.warnings:
            self.note(f"  warning: {warning}")

    def failed(self, label: str, record: RunRecord) -> None:
        """Show the error of a failed run.

        Args:
            label: short description of the run.
            record: of the run.
        """
        error = record.error or {}
        first_line = error.get("message", "").split("\n", maxsplit=1)[0]
        self.ended(label, f"FAILED: {error.get('type')}: {first_line}", "red")

    def ended(self, label: str, text: str, style: str) -> None:
        """Count an ended run or trial, and print its line.

        Args:
            label: short description of the run or trial.
            text: the result.
            style: colour of the line, as Rich names it.
        """
        label, text = concealed(label), concealed(text)
        self._count += 1
        remaining = (time.monotonic() - self._start) / self._count * (self._total - self._count)
        left = f"{_duration(remaining)} left" if remaining else ""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._count, left=left)
        tail = "" if self._bar or not left else f" ({left})"
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
