"""Commands that read the results of sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.guard import guard
from harness.cli.options import Debug


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Result folders of sweeps.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for several sweeps together. Default: combined/."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Rebuild models_comparing.xlsx and report.html from the records of one or several sweeps."""
    from harness.cli import reports as commands

    guard(lambda: commands.report(folders, output), debug)


def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: DIR's name and .zip or .html.")] = None,
    single: Annotated[bool, typer.Option("--single", help="One HTML file with all plots, without pictures.")] = False,
    debug: Debug = False,
) -> None:
    """Write page, workbook and pictures of a sweep as one file to send, without models."""
    from harness.cli import reports as commands

    guard(lambda: commands.pack(folder, out, single), debug)


def recommend(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    max_ms: Annotated[str | None, typer.Option(help="Largest median time of a single image, in ms.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Largest peak memory, such as 500MB.")] = None,
    max_model: Annotated[str | None, typer.Option(help="Largest size of the model, such as 100MB.")] = None,
    max_fit: Annotated[str | None, typer.Option(help="Longest training, such as 60s.")] = None,
    min_recall: Annotated[str | None, typer.Option(help="Smallest share of detected anomalous images.")] = None,
    margin: Annotated[str | None, typer.Option(help="AUROC lower by less than this is as good as the best.")] = None,
    debug: Debug = False,
) -> None:
    """Print the recommended configuration inside limits, and what the limits cost."""
    from harness.cli import reports as commands

    options = {
        "max_ms": max_ms,
        "max_memory": max_memory,
        "max_model": max_model,
        "max_fit": max_fit,
        "min_recall": min_recall,
        "margin": margin,
    }
    guard(lambda: commands.recommend(folder, options), debug)


def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    metric: Annotated[str, typer.Option(help="The metric, such as pixel_AUPRO. Default: the first of the task.")] = "",
    rows: Annotated[str, typer.Option(help="Axes of the rows, with commas: category, backbone ...")] = "category",
    columns: Annotated[str, typer.Option(help="Axes of the columns: model, layers, configuration ...")] = "model",
    table_format: Annotated[str, typer.Option("--format", help="markdown, latex, csv or html.")] = "markdown",
    digits: Annotated[int, typer.Option(min=0, max=8, help="Digits after the decimal point.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: the terminal.")] = None,
    debug: Debug = False,
) -> None:
    """Print a table of one metric for a paper, with mean and standard deviation over seeds."""
    from harness.cli import reports as commands

    guard(lambda: commands.table(folder, metric, rows, columns, table_format, digits, out), debug)


def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures.")] = Path("figures"),
    file_format: Annotated[str, typer.Option("--format", help="svg, pdf or png.")] = "svg",
    metric: Annotated[str, typer.Option(help="The quality to show. Default: the one that the page shows first.")] = "",
    debug: Debug = False,
) -> None:
    """Draw all figures of report.html as files, for a paper or a presentation."""
    from harness.cli import reports as commands

    guard(lambda: commands.figures(folder, out, file_format, metric), debug)


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of another run.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Print two runs side by side, with DeLong's paired test of their image AUROC."""
    from harness.cli import reports as commands

    guard(lambda: commands.compare(first, second), debug)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "report": report,
    "pack": pack,
    "recommend": recommend,
    "table": table,
    "figures": figures,
    "compare": compare,
}
