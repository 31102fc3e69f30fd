"""The prediction of a classifier for one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import LabelSpec

DONT_KNOW = "don't know"


@dataclass(frozen=True)
class ClassResult:
    """The prediction of a classifier for one image.

    Attributes:
        labels: all labels of the run.
        label_specs: class and condition of each label.
        probabilities: shape (labels,), summing to 1; calibrated by the run's temperature.
        raw_probabilities: shape (labels,), summing to 1; the mean over folds and test-time augmentation.
        path: path of the image; None for an image in memory.
        reading: conversions during reading, a few words each.
        label_set: the labels that the image may have, the most probable first. The set contains the true label with the
            promised coverage. None where the run has no calibration.
    """

    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    probabilities: npt.NDArray[np.float64]
    raw_probabilities: npt.NDArray[np.float64]
    path: str | None = None
    reading: tuple[str, ...] = ()
    label_set: tuple[str, ...] | None = None

    @property
    def answer(self) -> str:
        """The label where the label set has one label, else "don't know"; empty without a label set."""
        if self.label_set is None:
            return ""
        return self.label_set[0] if len(self.label_set) == 1 else DONT_KNOW

    @property
    def position(self) -> int:
        """The position of the most probable label in `labels`. Rounding in the calibration can't change it."""
        return int(self.raw_probabilities.argmax())

    @property
    def second(self) -> int:
        """The position of the second most probable label in `labels`."""
        return int(np.argsort(-self.raw_probabilities, kind="stable")[1])

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[self.position]

    @property
    def probability(self) -> float:
        """The calibrated probability of the most probable label."""
        return float(self.probabilities[self.position])

    @property
    def part(self) -> str:
        """The class of the most probable label."""
        return self.label_specs[self.position][0]

    @property
    def state(self) -> str:
        """The condition of the most probable label."""
        return self.label_specs[self.position][1]

    @property
    def kind(self) -> str:
        """The group in which the command `predict` counts this image: its answer, or its label without an answer."""
        return self.answer or self.label

    def cells(self) -> list[str]:
        """The cells of a row that depend on the task: the two most probable labels, the answer and the label set."""
        first, second = self.position, self.second
        return [
            self.labels[first],
            f"{self.probabilities[first]:.6f}",
            self.labels[second],
            f"{self.probabilities[second]:.6f}",
            self.answer,
            "; ".join(self.label_set or ()),
            f"{self.raw_probabilities[first]:.6f}",
        ]
