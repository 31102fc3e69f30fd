"""Commands for a start: weights, data, configurations, detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.guard import guard
from harness.cli.options import Debug


def weights(
    backbones: Annotated[list[str] | None, typer.Argument(help="timm names. Default: those of the configs.")] = None,
    folder: Annotated[Path, typer.Option("--weights", help="Folder of weights.")] = Path("weights"),
    debug: Debug = False,
) -> None:
    """List the source of the weights of each backbone, with their hash."""
    from harness.cli import inventory as commands

    guard(lambda: commands.weights(backbones or [], folder), debug)


def data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of images.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Look at a folder: its kind of data, its images, sizes and masks, and the `data:` block to paste."""
    from harness.cli import data as commands

    guard(lambda: commands.data(folder), debug)


def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A folder of images. Without one, init writes the sample configs."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented config for your images, or the sample configs to configs/."""
    from harness.cli import start as commands

    guard(lambda: commands.init(folder), debug)


def import_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file of anomalib.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="The new file. Default: the terminal.")] = None,
    debug: Debug = False,
) -> None:
    """Convert a configuration of `anomalib train` or `anomalib benchmark`, and say what was left out."""
    from harness.cli import start as commands

    guard(lambda: commands.import_config(file, out), debug)


def models(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, without this machine's files.")] = False,
    debug: Debug = False,
) -> None:
    """List all detectors with training, image sizes and needed files, and whether the files are on this machine."""
    from harness.cli import inventory as commands

    guard(lambda: commands.models(markdown), debug)


def make_data(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Height and width in pixels.")] = 128,
    train: Annotated[
        int | None, typer.Option(min=2, help="Normal training images of each category (100); labelled: in total (400).")
    ] = None,
    good: Annotated[int, typer.Option(min=1, help="Normal test images of each category.")] = 30,
    bad: Annotated[int, typer.Option(min=1, help="Test images of each type of defect.")] = 10,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Labelled data for classification, in a competition's layout.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the toy data in the layout of MVTec AD, or labelled for classification."""
    from harness.cli import start as commands

    guard(lambda: commands.make_data(folder, seed, size, train, good, bad, labelled), debug)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "weights": weights,
    "data": data,
    "init": init,
    "import": import_config,
    "models": models,
    "make-data": make_data,
}
