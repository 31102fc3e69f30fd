"""Predictions: what a backend hands over and metrics are computed from, checked once, here, the same for all.

What meets what:
- Scores and maps are raw: neither normalised nor clamped.
- An image is anomalous if its folder says so; a pixel, if the mask is not 0 there. A normal image has no such pixels.
- Maps and masks meet at the map's own size, that of the model's input. Maps are never resized; masks are brought to it
  by nearest neighbour, and cut to the centre where the model saw no more.
- What is above a threshold is called anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.common.errors import PredictionsError
from harness.data.base import Sample
from harness.data.images import read_mask

Floats = npt.NDArray[np.float32]
# path -> (raw score, anomaly map (height, width) or None)
Raw = Mapping[str, tuple[float, Floats | None]]


@dataclass(frozen=True)
class Predictions:
    """Raw scores and maps, in the order of `samples`.

    Attributes:
        samples: n samples.
        scores: shape (n,); larger is more anomalous; not normalised, not clamped.
        maps: shape (n, height, width), or None for a model without maps.
        masks: shape (n, height, width), True is anomalous; None where there is no ground truth.
        resized: (height, width) images had before their centre was cut out to the size of the maps; None: as the maps.
    """

    samples: tuple[Sample, ...]
    scores: npt.NDArray[np.float64]
    maps: Floats | None
    masks: npt.NDArray[np.bool_] | None
    resized: tuple[int, int] | None = None

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """Shape (n,); True is anomalous."""
        return np.array([sample.label == 1 for sample in self.samples], dtype=np.bool_)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Predictions:
        """Those of the chosen samples.

        Args:
            chosen: shape (n,), True for each that is wanted.
        """
        samples = tuple(sample for sample, wanted in zip(self.samples, chosen, strict=True) if wanted)
        maps = None if self.maps is None else self.maps[chosen]
        masks = None if self.masks is None else self.masks[chosen]
        return Predictions(samples, self.scores[chosen], maps, masks, self.resized)

    @property
    def vanished(self) -> list[str]:
        """Names of anomalous images whose mask has no pixel left at the size of the maps."""
        if self.masks is None:
            return []
        return [s.name for s, mask in zip(self.samples, self.masks, strict=True) if s.mask and not mask.any()]


def join(samples: Sequence[Sample], raw: Raw, resized: tuple[int, int] | None = None) -> Predictions:
    """Put predictions in the order of `samples`, by path.

    Args:
        samples: what was to be predicted.
        raw: scores and maps by path.
        resized: (height, width) images had before their centre was cut out to the size of the maps.

    Raises:
        PredictionsError: a sample has none, a path is not among the samples, shapes differ, or a score is NaN or
            infinite.
    """
    expected = {sample.path for sample in samples}
    if set(raw) != expected:
        lost, extra = expected - set(raw), set(raw) - expected
        names = ", ".join(sorted(lost or extra)[:3])
        raise PredictionsError(
            f"predictions for {len(raw)} images found, {len(expected)} expected: "
            f"{len(lost)} missing, {len(extra)} of other images ({names})."
        )
    scores = np.array([raw[sample.path][0] for sample in samples], dtype=np.float64)
    bad = [sample.name for sample, score in zip(samples, scores, strict=True) if not np.isfinite(score)]
    if bad:
        raise PredictionsError(f"NaN or infinite scores for {len(bad)} of {len(scores)} images ({', '.join(bad[:3])}).")
    maps = _stack([raw[sample.path][1] for sample in samples], samples)
    return Predictions(tuple(samples), scores, maps, _masks(samples, maps, resized), resized)


def _stack(found: list[Floats | None], samples: Sequence[Sample]) -> Floats | None:
    present = [m for m in found if m is not None]
    if not present:
        return None
    shapes = {m.shape for m in present}
    if len(present) < len(found) or len(shapes) > 1 or len(present[0].shape) != 2:
        raise PredictionsError(
            f"anomaly maps for {len(present)} of {len(found)} images with shapes {sorted(shapes)} found; "
            "expected one (height, width) for all."
        )
    maps = np.stack(present).astype(np.float32, copy=False)
    names = [sample.name for sample, one in zip(samples, maps, strict=True) if not np.isfinite(one).all()]
    if names:
        raise PredictionsError(f"NaN or infinite values in {len(names)} anomaly maps ({', '.join(names[:3])}).")
    return maps


def _masks(
    samples: Sequence[Sample], maps: Floats | None, resized: tuple[int, int] | None
) -> npt.NDArray[np.bool_] | None:
    if maps is None or not any(sample.mask for sample in samples):
        return None
    masks = np.zeros(maps.shape, dtype=np.bool_)
    size = (maps.shape[1], maps.shape[2])
    whole = resized or size
    top, left = centre(whole, size)
    for index, sample in enumerate(samples):
        if sample.mask:
            masks[index] = read_mask(sample.mask, whole)[top : top + size[0], left : left + size[1]]
    return masks


def centre(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the centre of that (height, width), as torchvision cuts it out."""
    return round((whole[0] - size[0]) / 2), round((whole[1] - size[1]) / 2)
