"""What a model says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.predictions.decision import Thresholds, normalize
from harness.predictions.detection import Floats
from harness.predictions.drawing import at_image_size

NORMAL, ANOMALOUS, UNLABELLED = "normal", "anomalous", "scored"


@dataclass(frozen=True)
class Result:
    """The prediction for one image; a larger score is more anomalous.

    Attributes:
        score: raw, as in scores.csv.
        anomaly_map: (height, width) at the size of the network's input, raw; None for a model without maps.
        thresholds: see `harness.predictions.decision.Thresholds`.
        image_size: (height, width) of the image, upright.
        resized: (height, width) after resizing and before the centre crop; None without a crop.
        path: of the image; None for an image in memory.
        reading: changes to the image in reading, a few words each.
    """

    score: float
    anomaly_map: Floats | None
    thresholds: Thresholds
    image_size: tuple[int, int]
    resized: tuple[int, int] | None = None
    path: str | None = None
    reading: tuple[str, ...] = ()

    @property
    def threshold(self) -> float | None:
        """The threshold of the image score, raw; a score above it is anomalous."""
        return self.thresholds.image

    @property
    def label(self) -> bool | None:
        """Whether the image is anomalous; None without a threshold."""
        return None if self.thresholds.image is None else self.score > self.thresholds.image

    @property
    def normalized_score(self) -> float | None:
        """The score from 0 to 1, with 0.5 at the threshold; None without threshold or scale."""
        if self.thresholds.image is None or self.thresholds.image_scale is None:
            return None
        return normalize(self.score, self.thresholds.image, self.thresholds.image_scale)

    @property
    def kind(self) -> str:
        """normal, anomalous, or scored (without a threshold)."""
        return UNLABELLED if self.label is None else ANOMALOUS if self.label else NORMAL

    def cells(self) -> list[str]:
        """The columns of the rows that are the task's own."""
        unit = self.normalized_score
        return [
            repr(self.score),
            "" if self.label is None else str(int(self.label)),
            "" if self.threshold is None else repr(self.threshold),
            "" if unit is None else f"{unit:.6f}",
        ]

    def map_at_image_size(self) -> Floats | None:
        """The map at the size of the image, raw; NaN outside the centre crop. None without maps."""
        return None if self.anomaly_map is None else at_image_size(self.anomaly_map, self.image_size, self.resized)

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The map above the pixel threshold, at the size of the image. None without maps or threshold."""
        whole = self.map_at_image_size()
        return None if whole is None or self.thresholds.pixel is None else whole > self.thresholds.pixel
