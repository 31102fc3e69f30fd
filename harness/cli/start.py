"""The commands `init`, `import` and `make-data`, for a first config and first data. Each returns the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.markup import escape

from harness.common.errors import ConfigError, DataError
from harness.common.terminal import terminal

LEAST_LABELLED = 40  # least number of training images of labelled toy data


def init(folder: Path | None) -> int:
    """Write a config for the images of a folder, or without a folder the sample configs."""
    from harness.config.first import write_config, write_samples

    console = terminal()
    if folder is None:
        files = write_samples(Path("configs"))
        console.print(f"{len(files)} sample configs written to configs/")
        console.print("Next: python -m harness sweep configs/patchcore.yaml", highlight=False)
        return 0
    file = write_config(folder)
    console.print(f"[bold]{escape(str(file))}[/] written for the images in {escape(str(folder))}")
    console.print(escape(f"Next: python -m harness sweep {file}"))
    return 0


def import_config(file: Path, out: Path | None) -> int:
    """Convert a configuration of anomalib.

    Args:
        file: a YAML file of `anomalib train` or `anomalib benchmark`.
        out: the new file; None to print it.

    Raises:
        ConfigError: the file is no configuration of anomalib, or `out` exists.
        StoreError: the new file can't be written.
    """
    from harness.common.files import make_folder, write_atomic
    from harness.planning.from_anomalib import from_anomalib

    imported = from_anomalib(file)
    console = terminal(stderr=True)
    if out is None:
        sys.stdout.write(imported.text)
    elif out.exists():
        raise ConfigError(f"--out: {out} exists; expected a new file. Remove it, or choose another name.")
    else:
        make_folder(out.absolute().parent, "--out")
        write_atomic(out, imported.text)
    for sentence in imported.left_out:
        console.print(f"[yellow]left out: {escape(sentence)}[/]")
    if out is not None:
        console.print(f"[bold]{escape(str(out))}[/]")
        console.print(escape(f"Next: python -m harness plan {out}"))
    return 0


def make_data(folder: Path, seed: int, size: int, train: int | None, good: int, bad: int, labelled: bool) -> int:
    """Write the toy data.

    Args:
        folder: a new or an empty folder.
        seed: of all random numbers.
        size: height and width of the images, pixels.
        train: number of training images; None for the default.
        good: normal test images of a category.
        bad: test images of each type of defect.
        labelled: whether to write data for classification.

    Raises:
        DataError: the folder is not empty or can't be written, or `train` is too small.
    """
    from harness.data.labelled.toy_images import LABELS, write_labelled_toy
    from harness.data.toy_images import CATEGORIES, write_toy

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: already exists and is not empty; expected a new or an empty folder.")
    if labelled and (train or 400) < LEAST_LABELLED:
        raise DataError(
            f"--train: {train} found; expected {LEAST_LABELLED} or more for {len(LABELS)} labels. Use a larger number."
        )
    try:
        if labelled:
            folder.mkdir(parents=True, exist_ok=True)
            write_labelled_toy(folder, seed=seed, size=size, train=train or 400)
        else:
            write_toy(folder, seed=seed, size=size, train=train or 100, good=good, bad=bad)
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror}).") from error
    console = terminal()
    if labelled:
        console.print(f"{len(LABELS)} labels, long-tailed, written to {escape(str(folder))}")
        console.print(f"Use them with: task: classification, data: {{kind: labelled, root: {escape(str(folder))}}}")
        return 0
    console.print(f"{len(CATEGORIES)} categories ({', '.join(CATEGORIES)}) written to {escape(str(folder))}")
    console.print(f"Use them with: data: {{kind: mvtec, root: {escape(str(folder))}}}")
    return 0
