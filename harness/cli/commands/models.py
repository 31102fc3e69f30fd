"""Commands that use the models of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness import registry
from harness.cli.guard import guard
from harness.cli.options import Category, Debug, Device, Run, Trust


def threshold(
    run: Run,
    false_alarms: Annotated[
        float | None, typer.Option("--false-alarms", help="Share of normal images above the threshold, such as 0.02.")
    ] = None,
    miss: Annotated[
        float | None, typer.Option("--miss", help="Share of anomalous test images below the threshold, such as 0.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the threshold of the test.")] = False,
    category: Category = None,
    debug: Debug = False,
) -> None:
    """Change the threshold of a finished run, without a new training: predict, export and demo use it."""
    from harness.cli import inference as commands

    guard(lambda: commands.threshold(run, false_alarms, miss, reset, category), debug)


def predict(
    run: Run,
    images: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, folders, patterns, or - for a list on standard input."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for overlay, map and outline of each image.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="File for the rows. Default: standard output, or predictions.csv in --out."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in one batch.")] = 8,
    device: Device = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", help="Include images in folders below.")] = False,
    maps: Annotated[
        str, typer.Option("--map", help="tiff: raw values; png: 16 bits, 32768 at the pixel threshold.")
    ] = "tiff",
    category: Category = None,
    trust: Trust = False,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", min=1, help="Limit of an image. Default: 100 million."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="Of a classification: promised coverage. Default: that of the sweep."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Of a classification: read images at N x N pixels. Default: as the run."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Predict images with the model of a run: a CSV row for each image, and pictures with --out."""
    from harness.cli import inference as commands

    guard(
        lambda: commands.predict(
            run, images, out, csv, batch, device, recursive, maps, category, trust, max_pixels, coverage, image_size
        ),
        debug,
    )


def export(
    run: Run,
    file_format: Annotated[str, typer.Option("--format", help="torchscript, onnx or openvino.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file. Default: exported/model.<suffix> in the run's folder."),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Images for the check. Default: test images of the run."),
    ] = None,
    category: Category = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write the model of a run, with its preprocessing, to one file for other programs. Check it against the run."""
    from harness.cli import inference as commands

    guard(lambda: commands.export(run, file_format, out, check or [], category, trust), debug)


def submit(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or of sweeps (their best).", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file. Default: submission.csv, or submission.tar.gz with --format."),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help=f"Format for maps of detections: {', '.join(registry.SUBMISSIONS)}.")
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="With --format: write the archive even if categories or images are missing."),
    ] = False,
    device: Device = "auto",
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write averaged predictions of classifications for their test images, in the form of the sample submission.

    With --format, write the maps of detections for the images without a label.
    """
    from harness.cli import ensemble as commands

    guard(lambda: commands.submit(runs, out, file_format, partial, device, trust), debug)


def blend(
    config: Annotated[Path, typer.Argument(help="The blend's YAML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="File of a submission to write too.")] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Blend classifications: an average, then rules and votes, each with macro F1 before and after."""
    from harness.cli import ensemble as commands

    guard(lambda: commands.blend(config, out, device), debug)


def demo(
    results: Annotated[Path, typer.Argument(metavar="[RESULTS]", help="Folder of result folders.")] = Path("results"),
    port: Annotated[int, typer.Option("--port", min=1024, max=65535, help="Port of localhost.")] = 8501,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    debug: Debug = False,
) -> None:
    """Open a local web page: a run predicts dropped images, or a few normal images train a new detector."""
    from harness.demo.launch import serve

    guard(lambda: serve(results, port, not no_browser), debug)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "threshold": threshold,
    "predict": predict,
    "export": export,
    "submit": submit,
    "blend": blend,
    "demo": demo,
}
