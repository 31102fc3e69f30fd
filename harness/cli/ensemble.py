"""The commands `submit` and `blend`. Each returns the exit status."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from harness.common.errors import ConfigError, StoreError
from harness.common.terminal import Terminal, plain_table, progress_bar
from harness.execution.log_capture import capture_logs

SHOWN = 5  # labels in the summary of a submission


def submit(paths: Sequence[Path], out: Path | None, form: str | None, partial: bool, device: str, trust: bool) -> int:
    """Write a submission, and print a summary: labels of classifications, or with a format the maps of detections.

    Args:
        paths: folders of runs, or of sweeps.
        out: the file; None for submission.csv, or for submission.tar.gz with a format.
        form: name of the format; None for labels.
        partial: whether categories and images of the format's data set may be missing.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether a checkpoint may execute code.

    Raises:
        ConfigError: `partial` without a format, or a wrong suffix.
        DataError: images are missing.
        UnknownNameError: there is no such format.
        StoreError: the folder of `out` is missing, or a run can't be used.
    """
    if form is not None:
        return _submit_maps(paths, out or Path("submission.tar.gz"), form, partial, device, trust)
    if partial:
        raise ConfigError("--partial: found without --format; expected both. Remove --partial, or add --format.")
    return _submit_labels(paths, out or Path("submission.csv"))


def _submit_maps(paths: Sequence[Path], out: Path, name: str, partial: bool, device: str, trust: bool) -> int:
    from harness.ensemble.map_submission import SUFFIX, category_runs
    from harness.ensemble.submission_format import submission_format

    form = submission_format(name)
    if not out.name.endswith(SUFFIX):
        raise ConfigError(f"--out: {out} found; expected a file with the suffix {SUFFIX}. Change the name.")
    _check_folder(out)
    console, errors = Terminal(sys.stdout), Terminal(sys.stderr)
    with capture_logs(io.StringIO(), show=False):
        from harness.ensemble.map_submission import submit_maps

        runs = category_runs(paths, form, partial)
        for run in runs:
            console.print(escape(f"{run.category}: {run.saved.record.run_id}, pixel threshold {run.threshold:g}"))
        with progress_bar(errors) as bar:
            task = bar.add_task("", total=sum(len(run.images) for run in runs))
            submission = submit_maps(runs, form, out, device, trust, lambda: bar.advance(task))
    for note in submission.notes:
        console.print(f"[yellow]{escape(note)}[/]")
    if submission.missing:
        console.print(f"[yellow]Categories without a run: {escape(', '.join(submission.missing))}[/]")
    counts = ", ".join(f"{images} of {category}" for category, images in submission.images.items())
    total = sum(submission.images.values())
    console.print(escape(f"{total} images: {counts}. The archive was read again and has all of them."))
    console.print(f"[bold]{escape(str(out))}[/]")
    return 0


def _submit_labels(paths: Sequence[Path], out: Path) -> int:
    from harness.ensemble.runs import class_run
    from harness.ensemble.submit import submit

    console = Terminal(sys.stdout)
    _check_folder(out)
    submission = submit([class_run(path) for path in dict.fromkeys(paths)], out)
    common = ", ".join(f"{count} {label}" for label, count in submission.counts.most_common(SHOWN))
    more = len(submission.counts) - SHOWN
    rest = f" and {more} more labels" if more > 0 else ""
    console.print(f"{submission.rows} rows, {len(submission.counts)} labels: {common}{rest}")
    console.print(
        f"Checked against {escape(str(submission.like))}: the same images in the same order."
        if submission.like
        else f"No sample submission found, so the order was not checked. Columns: {' and '.join(submission.header)}."
    )
    if submission.marked:
        console.print(
            f"{submission.marked} cells begin with an apostrophe, because their labels begin with =, +, - or @. So no "
            "spreadsheet reads them as formulas."
        )
    console.print(f"[bold]{escape(str(out))}[/]")
    return 0


def blend(config: Path, out: Path | None, device: str) -> int:
    """Blend classifications by a recipe, print each step, and write the blend as a run.

    Args:
        config: the recipe's YAML file.
        out: file of a submission; None for none.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: the recipe has a mistake.
        StoreError: the folder of `out` is missing, or a run can't be used.
    """
    from harness.ensemble.recipe import load_recipe

    console = Terminal(sys.stdout)
    if out is not None:
        _check_folder(out)
    recipe = load_recipe(config)
    with capture_logs(io.StringIO(), show=False):
        from harness.ensemble.blend import blend
        from harness.ensemble.submit import submit
        from harness.ensemble.write import write_blend

        result = blend(recipe, device, lambda text: console.print(escape(text)))
        folder, run_id = write_blend(recipe, result)
    table = plain_table(("run",))
    for name in ("macro F1", "share"):
        table.add_column(name, justify="right")
    for name, value in result.alone.items():
        table.add_row(escape(name), "-" if value is None else f"{value:.4f}", f"{result.shares[name]:.2f}")
    console.print(table)
    for step in result.steps:
        console.print(
            f"{escape(step.text)}: macro F1 {step.before:.4f} -> [bold]{step.after:.4f}[/] ({step.changed} labels "
            f"changed: {step.better} corrected, {step.worse} made wrong; {step.test_changed} test images)"
        )
    for warning in result.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    from harness.cli.reports import remake

    remake(folder, console)
    if out is not None:
        from harness.ensemble.runs import class_run

        submit([class_run(folder.run_folder(run_id))], out)
        console.print(f"[bold]{escape(str(out))}[/]")
    return 0


def _check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise StoreError(f"--out: no folder found at {out.parent.absolute()}; expected an existing one. Create it.")
