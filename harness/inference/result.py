"""The prediction of a detector for one image."""

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
        thresholds: raw thresholds and scales of the model.
        image_size: (height, width) of the image, upright.
        resized: (height, width) before the centre crop; None without a crop.
        path: path of the image; None for an image in memory.
        reading: conversions during reading, a few words each.
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
        """The image threshold, raw. A larger score is anomalous."""
        return self.thresholds.image

    @property
    def label(self) -> bool | None:
        """Whether the image is anomalous; None without a threshold."""
        return None if self.thresholds.image is None else self.score > self.thresholds.image

    @property
    def normalized_score(self) -> float | None:
        """The score normalised to 0 ... 1, with the threshold at 0.5; None without threshold or scale."""
        if self.thresholds.image is None or self.thresholds.image_scale is None:
            return None
        return normalize(self.score, self.thresholds.image, self.thresholds.image_scale)

    @property
    def kind(self) -> str:
        """The group in which the command `predict` counts this image: normal, anomalous, or scored."""
        return UNLABELLED if self.label is None else ANOMALOUS if self.label else NORMAL

    def cells(self) -> list[str]:
        """The cells of a row that depend on the task: score, label, threshold and normalised score."""
        normalized = self.normalized_score
        return [
            repr(self.score),
            "" if self.label is None else str(int(self.label)),
            "" if self.threshold is None else repr(self.threshold),
            "" if normalized is None else f"{normalized:.6f}",
        ]

    def map_at_image_size(self) -> Floats | None:
        """The raw map at the image's (height, width), NaN outside the centre crop; None for a model without maps."""
        return None if self.anomaly_map is None else at_image_size(self.anomaly_map, self.image_size, self.resized)

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """(height, width) of the image; True is above the pixel threshold. None without maps or threshold."""
        full_map = self.map_at_image_size()
        return None if full_map is None or self.thresholds.pixel is None else full_map > self.thresholds.pixel
