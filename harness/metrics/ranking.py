"""Ranking: the scores of one level, split by truth and sorted once, from which every metric here is counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Ranking:
    """Sorted raw scores of images or of pixels.

    Attributes:
        positives: scores of what is anomalous, ascending, shape (p,).
        negatives: scores of what is normal, ascending, shape (n,).
        threshold: what is above it is called anomalous; None where none is fixed.
    """

    positives: npt.NDArray[np.floating]
    negatives: npt.NDArray[np.floating]
    threshold: float | None

    @classmethod
    def of(
        cls, scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_], threshold: float | None = None
    ) -> Ranking:
        """From scores and truth of the same shape."""
        return cls(np.sort(scores[truth]), np.sort(scores[~truth]), threshold)

    @property
    def both_classes(self) -> bool:
        """Whether there is anything to tell apart."""
        return len(self.positives) > 0 and len(self.negatives) > 0

    @cached_property
    def false_positives(self) -> npt.NDArray[np.int64]:
        """For each positive, taken as the threshold (score >= it is anomalous): how many negatives pass it."""
        return len(self.negatives) - np.searchsorted(self.negatives, self.positives, side="left")

    @cached_property
    def true_positives(self) -> npt.NDArray[np.int64]:
        """For each positive, taken as the threshold: how many positives pass it."""
        return len(self.positives) - np.searchsorted(self.positives, self.positives, side="left")
