"""Pairs of an anomaly map and its mask, at the size that the protocol asks for. All pixel metrics count these pairs."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from harness.data.images import upright_size
from harness.data.mask_images import ABOVE_0, Mask, marked_pixels, union
from harness.predictions.detection import Floats, Predictions, centre
from harness.predictions.drawing import seen_part


def measurable(predictions: Predictions) -> bool:
    """Whether the predictions have maps and masks, so that pixel metrics are defined."""
    return predictions.maps is not None and predictions.masks is not None


def counted(predictions: Predictions) -> Predictions:
    """The predictions that pixel metrics count: without anomalous images whose mask is empty by the protocol's rule.

    Such a mask has faint values only, as a small defect with smooth edges has. The image shows a defect, so that its
    pixels are no normal pixels either. Under the rule `ABOVE_0` all images count, as in earlier versions.

    Args:
        predictions: `measurable` ones.
    """
    rule = predictions.protocol.mask
    if rule == ABOVE_0:
        return predictions
    empty = [bool(sample.masks) and not marked_pixels(sample.masks, rule) for sample in predictions.samples]
    return predictions.part(~np.array(empty, dtype=np.bool_)) if any(empty) else predictions


def pairs(predictions: Predictions) -> Iterator[tuple[Floats, Mask]]:
    """The map and the mask of each sample, in the order of the samples, one pair in memory at a time.

    Under the protocol `input` these are the arrays of the predictions. Under `original` each map is resized bilinearly
    to its mask, with pixel centres as in Torch's `interpolate(align_corners=False)`. A normal image has the size of its
    file. Where the model's input is a centre crop, only the part of the image that the model sees counts.

    Args:
        predictions: `measurable` ones.
    """
    assert predictions.maps is not None
    assert predictions.masks is not None
    if not predictions.protocol.original:
        yield from zip(predictions.maps, predictions.masks, strict=True)
        return
    for index, anomaly_map in enumerate(predictions.maps):
        mask = _mask_of(predictions, index)
        yield _resized(anomaly_map, (mask.shape[0], mask.shape[1])), mask


def resized_maps(predictions: Predictions) -> Iterator[Floats]:
    """The map of each sample at the size of the protocol, without the masks.

    Args:
        predictions: with maps.
    """
    assert predictions.maps is not None
    for anomaly_map, size in zip(predictions.maps, sizes(predictions), strict=True):
        yield _resized(anomaly_map, size)


def _resized(anomaly_map: Floats, size: tuple[int, int]) -> Floats:
    if anomaly_map.shape == size:
        return anomaly_map
    return np.asarray(cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def sizes(predictions: Predictions) -> list[tuple[int, int]]:
    """(height, width) of each pair.

    Args:
        predictions: `measurable` ones.
    """
    assert predictions.maps is not None
    if not predictions.protocol.original:
        return [(one.shape[0], one.shape[1]) for one in predictions.maps]
    parts = (_part(predictions, upright_size(sample.path)) for sample in predictions.samples)
    return [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in parts]


def mask_size(predictions: Predictions) -> tuple[int, int] | None:
    """(height, width) of a mask before a centre crop; None for the size of its file.

    Args:
        predictions: with maps.
    """
    if predictions.protocol.original:
        return None
    assert predictions.maps is not None
    return predictions.resized or (predictions.maps.shape[1], predictions.maps.shape[2])


def counted_part(predictions: Predictions, whole: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a mask that count: all, or those inside a centre crop.

    Args:
        predictions: with maps.
        whole: (height, width) of the mask, at the size of `mask_size`.
    """
    if predictions.protocol.original:
        return _part(predictions, whole)
    assert predictions.maps is not None
    height, width = predictions.maps.shape[1:]
    top, left = centre(whole, (height, width))
    return slice(top, top + height), slice(left, left + width)


def vanished(predictions: Predictions) -> list[str]:
    """Names of counted anomalous images whose mask has no anomalous pixel at the size of the protocol."""
    if not measurable(predictions):
        return []
    predictions = counted(predictions)
    samples = zip(predictions.samples, pairs(predictions), strict=True)
    return [sample.name for sample, (_, mask) in samples if sample.masks and not mask.any()]


def _mask_of(predictions: Predictions, index: int) -> Mask:
    sample = predictions.samples[index]
    if sample.masks:
        whole = union(sample.masks, None, predictions.protocol.mask)
        return np.ascontiguousarray(whole[_part(predictions, (whole.shape[0], whole.shape[1]))])
    rows, columns = _part(predictions, upright_size(sample.path))
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)


def _part(predictions: Predictions, image: tuple[int, int]) -> tuple[slice, slice]:
    assert predictions.maps is not None
    return seen_part(image, predictions.resized, (predictions.maps.shape[1], predictions.maps.shape[2]))
