"""The images whose features a group computes, and the images of each run among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.config.spec import RunSpec
from harness.data.samples import Sample, Split
from harness.data.subset import Subset, positions_of
from harness.detectors.folds import on_positions
from harness.detectors.stages import Stage


class GroupImages:
    """The images of a group of runs on parts of the same data: some of the images, or those of one category.

    A group without a run on all images needs some features only. It computes them in the same batches as a group with
    all images, because the batch of an image changes the last bits of its features.

    Args:
        specs: the runs.
        split: all images.
        batch_size: number of images in a batch.
        cached: whether a cache keeps the features for later groups, which may need all of them.

    Attributes:
        roles: samples by role; roles without samples are missing.
    """

    def __init__(self, specs: Iterable[RunSpec], split: Split, batch_size: int, cached: bool) -> None:
        self._split = split
        self._subsets = {spec: Subset.of(split, spec.n_train, spec.seed, spec.category) for spec in specs}
        subsets = self._subsets.values()
        samples: dict[str, Sequence[Sample]] = {"train": split.train, "val": split.val}
        needed = {"train": [one.train for one in subsets], "val": [one.val for one in subsets]}
        # The position among all images -> the position among the images of the group.
        self._positions: dict[str, dict[int, int]] = {}
        for role, positions in needed.items():
            chosen = (
                range(len(samples[role])) if cached else in_whole_batches(positions, len(samples[role]), batch_size)
            )
            self._positions[role] = {position: index for index, position in enumerate(chosen)}
            samples[role] = [samples[role][position] for position in chosen]
        self._positions["test"] = {position: position for position in range(len(split.test))}
        samples["test"] = split.test
        self.roles = {role: role_samples for role, role_samples in samples.items() if role_samples}

    def split(self, spec: RunSpec) -> Split:
        """The data of a run.

        Args:
            spec: of the group.
        """
        return self._subsets[spec].part(self._split, spec.category)

    def own_training_images(self, spec: RunSpec) -> list[bool] | None:
        """Which training images of a run are of its category; None where all of them are.

        Args:
            spec: of the group.
        """
        if not self._split.parts:
            return None
        own = set(positions_of(self._split, spec.category, "train"))
        return [position in own for position in range(len(self._split.train))]

    def stages(self, spec: RunSpec, stages: Sequence[Stage]) -> list[Stage]:
        """The stages of a run on its own images.

        Args:
            spec: of the group.
            stages: the same on all images of the group.
        """
        subset = self._subsets[spec]
        positions: dict[str, Sequence[int]] = {}
        for role, indices in (("train", subset.train), ("val", subset.val), ("test", subset.test)):
            of_role = [self._positions[role][position] for position in indices]
            # Stages on all images stay as they are, so that runs share them.
            if of_role != list(range(len(self.roles.get(role, ())))):
                positions[role] = of_role
        return [on_positions(stage, positions) for stage in stages] if positions else list(stages)


def in_whole_batches(positions: Iterable[Sequence[int]], count: int, batch_size: int) -> list[int]:
    """The positions of all images in the batches that hold a needed image.

    Args:
        positions: needed positions, of each run.
        count: number of all images.
        batch_size: number of images in a batch.
    """
    batches = {position // batch_size for of_run in positions for position in of_run}
    return [position for position in range(count) if position // batch_size in batches]
