"""Some of a split's normal images, for runs with `n_train`: subsets of a seed are nested, and equal for all detectors.

A subset has a prefix of one random order of the training images. With held-out images, it has a prefix of a random
order of these images too, so that their share stays about the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.data.samples import Sample, Split


@dataclass(frozen=True)
class Subset:
    """Positions of the images of a subset, ascending.

    Attributes:
        train: among the training images.
        val: among the held-out images.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]

    @classmethod
    def of(cls, split: Split, images: int | None, seed: int) -> Subset:
        """Choose the images.

        Args:
            split: all images.
            images: number of normal images, training and held-out; None for all.
            seed: of the random order.
        """
        train, val = len(split.train), len(split.val)
        if images is None:
            return cls(tuple(range(train)), tuple(range(val)))
        # At least one held-out image, and at least one for the training.
        held_out = min(max(1, round(images * val / (train + val))), images - 1) if val else 0
        return cls(_prefix(train, images - held_out, [seed, 0]), _prefix(val, held_out, [seed, 1]))

    def part(self, split: Split) -> Split:
        """The split with the images of the subset; its fingerprints and its test images stay those of all images.

        Args:
            split: all images.
        """
        return replace(split, train=_chosen(split.train, self.train), val=_chosen(split.val, self.val))


def part_of(split: Split, images: int | None, seed: int) -> Split:
    """The split of a run.

    Args:
        split: all images.
        images: number of normal images of the run, training and held-out; None for all.
        seed: of the run.
    """
    return split if images is None else Subset.of(split, images, seed).part(split)


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


def _prefix(count: int, length: int, seed: Sequence[int]) -> tuple[int, ...]:
    order = np.random.default_rng(list(seed)).permutation(count)
    return tuple(sorted(order[:length].tolist()))


def _chosen(samples: Sequence[Sample], positions: Sequence[int]) -> tuple[Sample, ...]:
    return tuple(samples[position] for position in positions)
