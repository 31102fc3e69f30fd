"""What data contain: numbers of images by role and type of defect, sizes, modes and masks. For the command `data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.data.base import DataOptions
from harness.data.images import header
from harness.data.samples import Sample

MOST = 500  # images of a category whose headers are read


@dataclass(frozen=True)
class Part:
    """The images of one role and type.

    Attributes:
        category: of the images; "" without categories.
        role: train, validation, test or unlabelled.
        defect: type of defect; "good" for normal images, "" without a label.
        images: their number.
        masks: number of images with a mask.
    """

    category: str
    role: str
    defect: str
    images: int
    masks: int


@dataclass(frozen=True)
class Survey:
    """The content of data.

    Attributes:
        categories: of the data; `[""]` without categories.
        parts: in the order of categories and roles.
        sizes: number of images by (width, height), in pixels, the most common first.
        modes: number of images by Pillow's mode, such as RGB or L.
        headers: number of images whose size and mode were read.
        notes: decisions of the reader, one sentence each.
        problems: one sentence for each problem.
    """

    categories: tuple[str, ...]
    parts: tuple[Part, ...]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    headers: int
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def survey(options: DataOptions, work_dir: Path) -> Survey:
    """Look at data. Problems of one category do not hide the others.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.

    Raises:
        DataError: the categories can't be listed.
    """
    categories = options.categories(work_dir)
    parts: list[Part] = []
    notes: list[str] = []
    problems: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    for category in categories:
        try:
            lists = options.load(category, work_dir)
        except DataError as error:
            problems += error.problems
            continue
        notes += lists.notes
        roles = {"train": lists.train, "validation": lists.val, "test": lists.test, "unlabelled": lists.unlabelled}
        parts += [part for role, samples in roles.items() for part in _parts(category, role, samples)]
        for sample in lists.all_samples[:: max(1, len(lists.all_samples) // MOST)]:
            try:
                width, height, mode = header(Path(sample.path))
            except DataError as error:
                problems += error.problems
                continue
            sizes[width, height] += 1
            modes[mode] += 1
    return Survey(
        tuple(categories),
        tuple(parts),
        sizes,
        modes,
        modes.total(),
        tuple(dict.fromkeys(notes)),
        tuple(dict.fromkeys(problems)),
    )


def _parts(category: str, role: str, samples: Sequence[Sample]) -> list[Part]:
    """The parts of one role, normal images first."""
    types = sorted({(sample.label, sample.defect) for sample in samples})
    by_type = {defect: [sample for sample in samples if sample.defect == defect] for _, defect in types}
    return [
        Part(category, role, defect, len(of_type), sum(bool(sample.masks) for sample in of_type))
        for defect, of_type in by_type.items()
    ]
