"""The check of an exported file: images alone and in batches, and the outputs of the file for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.common.errors import ExportError
from harness.data.images import RGB, read
from harness.inference.exported import Exported, as_input

IMAGES = 20  # most images of a check
BATCH = 4


def batches(images: Sequence[Path]) -> Iterator[tuple[list[Path], list[RGB]]]:
    """Read images, and yield each image alone, then batches of images of one size.

    Args:
        images: paths of images.

    Yields:
        The paths of a batch and its images.

    Raises:
        DataError: an image can't be read.
    """
    pixels = [read(path, max_pixels=None).pixels for path in images]
    for group in [*([index] for index in range(len(images))), *_groups([image.shape for image in pixels])]:
        yield [images[index] for index in group], [pixels[index] for index in group]


def _groups(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    groups = []
    for shape in dict.fromkeys(shapes):
        indices = [index for index, other in enumerate(shapes) if other == shape]
        groups += [indices[first : first + BATCH] for first in range(0, len(indices), BATCH)]
    # The check needs a batch. If all sizes differ, one image twice is a batch.
    return [group for group in groups if len(group) > 1] or [[0, 0]]


def outputs_of(exported: Exported, images: Sequence[RGB], first: Path) -> Mapping[str, npt.NDArray[Any]]:
    """Run an exported file on one batch.

    Args:
        exported: the file.
        images: images of one size.
        first: path of the first image, for the error.

    Returns:
        The outputs by name.

    Raises:
        ExportError: the file fails on these images.
    """
    try:
        return exported.answers(as_input(images))
    # A runtime can raise any exception, for example because a traced model holds the sizes of its example.
    except Exception as error:
        message = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")[:200]
        raise ExportError(
            f"{first}: the exported file fails on {len(images)} image{'' if len(images) == 1 else 's'} of this size "
            f"({type(error).__name__}: {message}); the file was removed. Try another --format."
        ) from error
