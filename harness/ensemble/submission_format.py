"""What the format of a data set's submission offers, and what images lack of the data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.ensemble.submission_maps import Float16


class SubmissionFormat(Protocol):
    """What a data set asks for; `SUBMISSIONS` of the registry lists the formats."""

    @property
    def kind(self) -> str:
        """The kind of data of its runs."""

    @property
    def parts(self) -> Sequence[str]:
        """Folders of the images, below the folder of a category."""

    @property
    def categories(self) -> Mapping[str, int]:
        """The number of images in each part, by category."""

    def names(self, category: str, image: str) -> tuple[str, str]:
        """The paths of the files of an image in the archive.

        Args:
            category: of the image.
            image: path of the image below the folder of the category.

        Returns:
            The path of the map, and of the mask.
        """

    def files(self, anomaly_map: Float16, mask: npt.NDArray[np.bool_]) -> tuple[bytes, bytes]:
        """The content of the files of an image.

        Args:
            anomaly_map: (height, width) of the image; larger is more anomalous.
            mask: same shape, True is anomalous.

        Returns:
            The file of the map, and of the mask.
        """

    def problem(self, name: str, content: bytes, size: tuple[int, int]) -> str:
        """Check a file of an archive.

        Args:
            name: its path in the archive.
            content: of the file.
            size: (height, width) of its image in pixels.

        Returns:
            A sentence about what is wrong; empty for a good file.
        """


def submission_format(name: str) -> SubmissionFormat:
    """The format of a name.

    Raises:
        UnknownNameError: there is no such format.
    """
    form: SubmissionFormat = registry.lookup(registry.SUBMISSIONS, "format of a submission", name)()
    return form


def categories_without_run(form: SubmissionFormat, categories: Collection[str]) -> list[str]:
    """The categories of the data set that are not in `categories`.

    Args:
        form: the format.
        categories: those with a run.
    """
    return [name for name in form.categories if name not in categories]


def count_problems(form: SubmissionFormat, category: str, images: Sequence[str]) -> Iterator[str]:
    """A sentence without a full stop for each part whose number of images is not that of the data set.

    Args:
        form: the format.
        category: of the images.
        images: paths of the images below the folder of the category.
    """
    expected = form.categories.get(category)
    if expected is None:
        yield f"{category}: no category of the data set, which has {', '.join(form.categories)}"
        return
    for part in form.parts:
        count = sum(name.startswith(f"{part}/") for name in images)
        if count != expected:
            yield f"{category}: {count} images of {part} found; the data set has {expected}"
