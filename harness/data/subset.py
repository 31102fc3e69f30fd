"""The images of a run among those of a split, which several runs share.

- A run with `n_train` uses some of the normal images. The subsets of a seed are nested, and equal for all detectors.
  A subset has a prefix of one random order of the training images. With held-out images, it has a prefix of a random
  order of these images too, so that their share stays about the same.
- A run of one category, on the split of all categories (`harness.data.unify`), learns from the training images of all
  categories. The other images are those of its category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.data.samples import Sample, Split


@dataclass(frozen=True)
class Subset:
    """Positions of the images of a run, ascending.

    Attributes:
        train: among the training images.
        val: among the held-out images.
        test: among the test images.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    @classmethod
    def of(cls, split: Split, images: int | None, seed: int, category: str = "") -> Subset:
        """Choose the images of a run.

        Args:
            split: all images.
            images: number of normal images of the run, training and held-out; None for all.
            seed: of the run.
            category: of the run, on the split of all categories.
        """
        train, val, test = (tuple(range(len(role))) for role in (split.train, split.val, split.test))
        if images is not None:
            # At least one held-out image, and at least one for the training.
            held_out = min(max(1, round(images * len(val) / (len(train) + len(val)))), images - 1) if val else 0
            train = _prefix(len(train), images - held_out, [seed, 0])
            val = _prefix(len(val), held_out, [seed, 1])
        if split.parts:
            val, test = (positions_of(split, category, role) for role in ("val", "test"))
        return cls(train, val, test)

    def part(self, split: Split, category: str = "") -> Split:
        """The split of a run; its fingerprints stay those of all images of its category.

        Args:
            split: all images.
            category: of the run, on the split of all categories.
        """
        own = next((part for part in split.parts if part.category == category), split)
        return replace(
            own,
            train=_chosen(split.train, self.train),
            val=_chosen(split.val, self.val),
            test=_chosen(split.test, self.test),
            unified=max(1, len(split.parts)),
        )


def part_of(split: Split, images: int | None, seed: int, category: str = "") -> Split:
    """The split of a run.

    Args:
        split: all images.
        images: number of normal images of the run, training and held-out; None for all.
        seed: of the run.
        category: of the run, on the split of all categories.
    """
    if images is None and not split.parts:
        return split
    return Subset.of(split, images, seed, category).part(split, category)


def problems_of(splits: Sequence[Split], numbers: Sequence[int]) -> list[str]:
    """The numbers of images that a split can't give, one sentence each.

    Args:
        splits: of all categories.
        numbers: values of `n_train`, ascending.
    """
    problems = []
    for split in splits:
        most = len(split.train) + len(split.val)
        place = f"category {split.category!r}" if split.category else "the data"
        above = ", ".join(str(number) for number in numbers if number > most)
        if above:
            images = f"{most} normal image{'s' if most > 1 else ''}"
            problems.append(
                f"n_train: {above} found, but {place} has {images} beside the test; expected at most {most}. Write all "
                "for all images, or add images."
            )
        if split.val and 1 in numbers:
            problems.append(
                f"n_train: 1 found, but {place} has held-out images; expected 2 or more, since one of them is held "
                "out. Remove the 1, or set data.val to 0."
            )
    return problems


def positions_of(split: Split, category: str, role: str) -> tuple[int, ...]:
    """Positions of a category's images in a role of the split of all categories.

    Args:
        split: of all categories.
        category: name of the category.
        role: train, val or test.

    Raises:
        KeyError: the split has no such category.
    """
    start = 0
    for part in split.parts:
        end = start + len(getattr(part, role))
        if part.category == category:
            return tuple(range(start, end))
        start = end
    raise KeyError(category)


def _prefix(count: int, length: int, seed: Sequence[int]) -> tuple[int, ...]:
    order = np.random.default_rng(list(seed)).permutation(count)
    return tuple(sorted(order[:length].tolist()))


def _chosen(samples: Sequence[Sample], positions: Sequence[int]) -> tuple[Sample, ...]:
    return tuple(samples[position] for position in positions)
