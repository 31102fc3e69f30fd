"""Predictions: the scores and maps that a backend returns, checked once, in the same way for all backends.

- Scores and maps are raw: neither normalised nor clamped.
- The folder of an image gives its label. A normal image has no anomalous pixels.
- Maps have the size of the model's input and are stored so. A `Protocol` says how maps and masks meet: which values of
  a mask are anomalous, and which of the two is resized. See `pairs.py`.
- An image or pixel with a score above its threshold is anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.common.errors import PredictionsError
from harness.data.mask_images import ABOVE_0, union
from harness.data.samples import Sample

Floats = npt.NDArray[np.float32]
# path -> (raw score, anomaly map (height, width) or None)
Raw = Mapping[str, tuple[float, Floats | None]]
INPUT, ORIGINAL = "input", "original"


@dataclass(frozen=True)
class Protocol:
    """How anomaly maps and masks meet in the pixel metrics.

    Attributes:
        size: `INPUT`: a mask is resized to its map by nearest neighbour, and cut to the centre where the model's input
            is a centre crop. `ORIGINAL`: a map is resized bilinearly to its mask, as in the evaluation code of MVTec
            AD (Bergmann et al., IJCV 2021).
        mask: rule for the anomalous pixels of a mask: `ABOVE_0` or `ABOVE_HALF` of `harness.data.mask_images`.
        min_area: smallest region that the metrics of regions count, in pixels at this size.
    """

    size: str = INPUT
    mask: str = ABOVE_0
    min_area: int = 1

    @property
    def original(self) -> bool:
        """Whether maps are resized, and not masks."""
        return self.size == ORIGINAL


@dataclass(frozen=True)
class Predictions:
    """Raw scores and maps, in the order of `samples`.

    Attributes:
        samples: n samples.
        scores: shape (n,); larger is more anomalous; not normalised, not clamped.
        maps: shape (n, height, width), or None for a model without maps.
        masks: shape (n, height, width), True is anomalous; None where there is no ground truth.
        resized: (height, width) of the images before the centre crop to the size of the maps; None without a crop.
        protocol: of the pixel metrics. `masks` follows its rule, and has the size of the maps under every protocol.
    """

    samples: tuple[Sample, ...]
    scores: npt.NDArray[np.float64]
    maps: Floats | None
    masks: npt.NDArray[np.bool_] | None
    resized: tuple[int, int] | None = None
    protocol: Protocol = Protocol()

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """Labels, shape (n,); True is anomalous."""
        return np.array([sample.label == 1 for sample in self.samples], dtype=np.bool_)

    def part(self, selection: npt.NDArray[np.bool_]) -> Predictions:
        """The predictions of a subset of the samples.

        Args:
            selection: shape (n,), True for each sample of the subset.
        """
        samples = tuple(sample for sample, included in zip(self.samples, selection, strict=True) if included)
        maps = None if self.maps is None else self.maps[selection]
        masks = None if self.masks is None else self.masks[selection]
        return replace(self, samples=samples, scores=self.scores[selection], maps=maps, masks=masks)

    def of(self, samples: Sequence[Sample]) -> Predictions:
        """The predictions for some of the samples, with masks only if some of these have a mask.

        Args:
            samples: some of the samples.
        """
        positions = {sample.path: position for position, sample in enumerate(self.samples)}
        raw = {
            sample.path: (float(self.scores[position]), None if self.maps is None else self.maps[position])
            for sample in samples
            for position in [positions[sample.path]]
        }
        return join(samples, raw, self.resized).under(self.protocol)

    def under(self, protocol: Protocol) -> Predictions:
        """The same predictions under a protocol; masks are read again where its rule is another one.

        Args:
            protocol: of the pixel metrics.
        """
        masks = self.masks
        if protocol.mask != self.protocol.mask:
            masks = _masks(self.samples, self.maps, self.resized, protocol.mask)
        return replace(self, masks=masks, protocol=protocol)

    def without_unlabelled(self) -> tuple[Predictions, Predictions | None]:
        """The predictions for the other samples, and for those without a label; None without such samples."""
        selection = np.array([sample.unlabelled for sample in self.samples], dtype=np.bool_)
        return (self.part(~selection), self.part(selection)) if selection.any() else (self, None)


def join(samples: Sequence[Sample], raw: Raw, resized: tuple[int, int] | None = None) -> Predictions:
    """Put predictions in the order of `samples`, by path.

    Args:
        samples: all images of the predictions.
        raw: scores and maps by path.
        resized: (height, width) of the images before the centre crop to the size of the maps; None without a crop.

    Raises:
        PredictionsError: a sample has no prediction, a path has no sample, shapes differ, or a score is NaN or
            infinite.
    """
    expected = {sample.path for sample in samples}
    if set(raw) != expected:
        missing, extra = expected - set(raw), set(raw) - expected
        names = ", ".join(sorted(missing or extra)[:3])
        raise PredictionsError(
            f"predictions for {len(raw)} images found, {len(expected)} expected: "
            f"{len(missing)} missing, {len(extra)} of other images ({names})."
        )
    scores = np.array([raw[sample.path][0] for sample in samples], dtype=np.float64)
    bad = [sample.name for sample, score in zip(samples, scores, strict=True) if not np.isfinite(score)]
    if bad:
        raise PredictionsError(f"NaN or infinite scores for {len(bad)} of {len(scores)} images ({', '.join(bad[:3])}).")
    maps = _stack([raw[sample.path][1] for sample in samples], samples)
    return Predictions(tuple(samples), scores, maps, _masks(samples, maps, resized), resized)


def _stack(maps_by_sample: list[Floats | None], samples: Sequence[Sample]) -> Floats | None:
    present = [map_ for map_ in maps_by_sample if map_ is not None]
    if not present:
        return None
    shapes = {map_.shape for map_ in present}
    if len(present) < len(maps_by_sample) or len(shapes) > 1 or len(present[0].shape) != 2:
        raise PredictionsError(
            f"anomaly maps for {len(present)} of {len(maps_by_sample)} images with shapes {sorted(shapes)} found; "
            "expected one (height, width) for all."
        )
    maps = np.stack(present).astype(np.float32, copy=False)
    names = [sample.name for sample, map_ in zip(samples, maps, strict=True) if not np.isfinite(map_).all()]
    if names:
        raise PredictionsError(f"NaN or infinite values in {len(names)} anomaly maps ({', '.join(names[:3])}).")
    return maps


def _masks(
    samples: Sequence[Sample], maps: Floats | None, resized: tuple[int, int] | None, rule: str = ABOVE_0
) -> npt.NDArray[np.bool_] | None:
    if maps is None or not any(sample.masks for sample in samples):
        return None
    masks = np.zeros(maps.shape, dtype=np.bool_)
    size = (maps.shape[1], maps.shape[2])
    whole = resized or size
    top, left = centre(whole, size)
    for index, sample in enumerate(samples):
        if sample.masks:
            masks[index] = union(sample.masks, whole, rule)[top : top + size[0], left : left + size[1]]
    return masks


def centre(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the centre crop, rounded as torchvision does.

    Args:
        whole: (height, width) before the crop.
        size: (height, width) of the crop.
    """
    return round((whole[0] - size[0]) / 2), round((whole[1] - size[1]) / 2)
