"""What `submit` and `blend` do, in terms of the modules that do it. Each gives the exit status."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from harness.common.errors import StoreError
from harness.common.terminal import Terminal
from harness.execution.log_capture import capture_logs

SHOWN = 5


def submit(paths: Sequence[Path], out: Path) -> int:
    """Write the labels of the images to be named, and say what they are."""
    from harness.ensemble.runs import class_run
    from harness.ensemble.submit import submit

    console = Terminal(sys.stdout)
    _check_folder(out)
    found = submit([class_run(path) for path in dict.fromkeys(paths)], out)
    common = ", ".join(f"{count} {label}" for label, count in found.counts.most_common(SHOWN))
    more = len(found.counts) - SHOWN
    console.print(
        f"{found.rows} rows, {len(found.counts)} labels: {common}" + (f" and {more} more labels" if more > 0 else "")
    )
    console.print(
        f"checked against {escape(str(found.like))}: the same images in the same order."
        if found.like
        else f"There is no sample submission to check against: columns are {' and '.join(found.header)}."
    )
    if found.marked:
        console.print(
            f"{found.marked} cells begin with an apostrophe, so that no spreadsheet takes them for formulas; labels of "
            "your data begin with =, +, - or @."
        )
    console.print(f"[bold]{escape(str(out))}[/]")
    return 0


def blend(config: Path, out: Path | None, device: str) -> int:
    """Follow the recipe, show each step, and write the blend as a run."""
    from harness.ensemble.recipe import load_recipe

    console = Terminal(sys.stdout)
    if out is not None:
        _check_folder(out)
    recipe = load_recipe(config)
    with capture_logs(io.StringIO(), show=False):
        from harness.ensemble.blend import blend, write_blend
        from harness.ensemble.submit import submit

        found = blend(recipe, device, lambda text: console.print(escape(text)))
        folder, run_id = write_blend(recipe, found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "macro F1", "share"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for name, value in found.alone.items():
        table.add_row(escape(name), "-" if value is None else f"{value:.4f}", f"{found.shares[name]:.2f}")
    console.print(table)
    for step in found.steps:
        console.print(
            f"{escape(step.text)}: macro F1 {step.before:.4f} -> [bold]{step.after:.4f}[/] ({step.changed} labels "
            f"changed: {step.better} mended, {step.worse} spoilt; {step.test_changed} test images)"
        )
    for warning in found.warnings:
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
        raise StoreError(f"--out: no folder found at {out.parent.absolute()}; expected one that is there.")
