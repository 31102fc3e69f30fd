"""Near copies: the same picture encoded again, resized or slightly cropped.

Each image becomes a small grey thumbnail without its local mean, so that light and shading do not count. A matrix
product compares all thumbnails, also those of 25 cropped boxes, by normalised correlation (Lewis, Fast Normalized
Cross-Correlation, 1995). The best pairs are compared again at twice the resolution, after a search for the exact box.

Parts of one kind look alike, so a fixed limit is not enough. A pair must also be much closer than other images. This is
the idea of the ratio test of Lowe, Distinctive Image Features from Scale-Invariant Keypoints, 2004, section 7.1. The
square in `is_copy` makes it stricter where all images look alike; `python -m benchmarks audit` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 96  # pixels of a thumbnail
COARSE, FINE = 16, 32  # pixels of the two comparisons
MARGINS = ((0.0, 0.0), (0.0, 0.04), (0.04, 0.0), (0.04, 0.04), (0.02, 0.02))  # cut on both sides of an axis
STEPS = (0.02, 0.01, 0.005)  # of the search for the box
LARGEST_MARGIN = 0.08
NEIGHBOURS = 8  # of each image; half of them may be copies
LIKELY = 0.6  # correlation of the first comparison
SAME = 0.85  # correlation of the second comparison
RATIO = 0.3  # of the distance to a copy, and the squared distance to another image
FLAT = 0.3  # grey levels; a flatter thumbnail has nothing to compare
LEAST_FOR_MEAN = 12  # images whose mean is subtracted
BLOCK = 512  # rows of one matrix product

Thumbs = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]  # shares cut at left, right, top and bottom
WHOLE: Box = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class NearCopy:
    """Two images with the same picture.

    Attributes:
        first, second: positions; the box of the first is the second.
        similarity: normalised correlation, at most 1.
        box: shares of the first image that the second lacks at left, right, top and bottom.
    """

    first: int
    second: int
    similarity: float
    box: Box


def near_copies(thumbs: Thumbs) -> list[NearCopy]:
    """Find near copies among all pairs.

    Args:
        thumbs: (n, SIDE, SIDE) grey.

    Returns:
        Each pair once, the most similar first. Rotated and mirrored copies are not found.
    """
    if len(thumbs) < 2:
        return []
    neighbours = _neighbours(thumbs)
    copies = {**_cropped(thumbs, neighbours), **_whole(thumbs, neighbours)}
    return sorted(copies.values(), key=lambda copy: (-copy.similarity, copy.first, copy.second))


def vectors(thumbs: Thumbs, side: int, box: Box = WHOLE) -> Vectors:
    """Boxes of thumbnails as vectors whose products are normalised correlations.

    Args:
        thumbs: (n, SIDE, SIDE).
        side: pixels after resizing.
        box: see `NearCopy.box`.

    Returns:
        (n, side * side) of length 1; 0 for a flat image.
    """
    return _unit(np.stack([_detail(thumb, side, box) for thumb in thumbs]))


def _detail(thumb: Thumbs, side: int, box: Box) -> Vectors:
    """A box without its local mean, shape (side * side,)."""
    left, right, top, bottom = (SIDE * share for share in box)
    edges = (left, top, SIDE - right, SIDE - bottom)
    small = np.asarray(Image.fromarray(thumb).resize((side, side), Image.Resampling.BOX, edges), dtype=np.float32)
    detail: Vectors = (small - cv2.blur(small, (5, 5), borderType=cv2.BORDER_REFLECT)).reshape(-1)
    return detail


def _unit(details: Vectors) -> Vectors:
    centred = details - details.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = lengths < FLAT * np.sqrt(details.shape[1])
    unit: Vectors = np.where(flat, 0, centred / np.maximum(lengths, 1e-6)).astype(np.float32)
    return unit


def is_copy(similarity: Any, usual: Any) -> Any:
    """Whether images are copies, element by element.

    Args:
        similarity: normalised correlation of the images.
        usual: normalised correlation with another image of the same kind.
    """
    return (similarity >= SAME) & (1 - similarity <= RATIO * (1 - usual) ** 2)


@dataclass(frozen=True)
class _Neighbours:
    """The most similar images of each image, the best first.

    Attributes:
        images: (n, k) positions.
        similarity: (n, k), of the best box.
        boxes: (n, k) positions in `_boxes()`.
    """

    images: npt.NDArray[np.intp]
    similarity: Vectors
    boxes: npt.NDArray[np.uint8]


def _boxes() -> list[Box]:
    return [(*across, *down) for across, down in product(MARGINS, MARGINS)]


def _neighbours(thumbs: Thumbs) -> _Neighbours:
    whole = vectors(thumbs, COARSE)
    cropped = [vectors(thumbs, COARSE, box) for box in _boxes()]
    parts = list(_by_block(whole, cropped, min(NEIGHBOURS, len(thumbs) - 1)))
    images, similarity, boxes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Neighbours(images, similarity, boxes)


def _by_block(
    whole: Vectors, cropped: Sequence[Vectors], count: int
) -> Iterator[tuple[npt.NDArray[np.intp], Vectors, npt.NDArray[np.uint8]]]:
    """Neighbours of a block of rows: only one block of all similarities is in memory."""
    for start in range(0, len(whole), BLOCK):
        rows = slice(start, start + BLOCK)
        best = cropped[0][rows] @ whole.T
        box = np.zeros(best.shape, dtype=np.uint8)
        for number, variant in enumerate(cropped[1:], 1):
            similarity = variant[rows] @ whole.T
            better = similarity > best
            np.copyto(best, similarity, where=better)
            np.copyto(box, np.uint8(number), where=better)
        own = np.arange(len(best))
        best[own, start + own] = -1
        images = np.argpartition(-best, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(best, images, axis=1), axis=1, kind="stable")
        images = np.take_along_axis(images, order, axis=1)
        yield images, np.take_along_axis(best, images, axis=1), np.take_along_axis(box, images, axis=1)


def _whole(thumbs: Thumbs, neighbours: _Neighbours) -> dict[tuple[int, int], NearCopy]:
    """Pairs of whole images. The mean image does not count, since parts in one place have the same outline."""
    details = np.stack([_detail(thumb, FINE, WHOLE) for thumb in thumbs])
    similarity = _products(_unit(details), neighbours.images)
    if len(thumbs) >= LEAST_FOR_MEAN:
        similarity = np.minimum(similarity, _products(_unit(details - details.mean(axis=0)), neighbours.images))
    usual = np.median(similarity, axis=1) if similarity.shape[1] > 2 else np.zeros(len(thumbs))
    same = is_copy(similarity, usual[:, None])
    copies = {}
    for first, column in zip(*np.nonzero(same), strict=True):
        second = int(neighbours.images[first, column])
        pair = (min(int(first), second), max(int(first), second))
        copies[pair] = NearCopy(*pair, float(similarity[first, column]), WHOLE)
    return copies


def _products(unit: Vectors, images: npt.NDArray[np.intp]) -> Vectors:
    """The product of each vector with those of its neighbours, (n, k)."""
    columns = [np.einsum("nd,nd->n", unit, unit[column]) for column in images.T]
    stacked: Vectors = np.stack(columns, axis=1)
    return stacked


def _cropped(thumbs: Thumbs, neighbours: _Neighbours) -> dict[tuple[int, int], NearCopy]:
    """Pairs of an image and a box of it."""
    boxes, last = _boxes(), neighbours.images.shape[1] - 1
    fine = vectors(thumbs, FINE)
    copies: dict[tuple[int, int], NearCopy] = {}
    for first, second in enumerate(neighbours.images[:, 0]):
        if neighbours.similarity[first, 0] < LIKELY or not fine[second].any():
            continue
        box, similarity = _search(thumbs[first], fine[second], boxes[neighbours.boxes[first, 0]])
        usual = 0.0
        if similarity >= SAME and last > 1:
            other = neighbours.images[first, last]
            usual = _search(thumbs[first], fine[other], boxes[neighbours.boxes[first, last]])[1]
        if not is_copy(np.float32(similarity), np.float32(usual)):
            continue
        pair = (min(first, int(second)), max(first, int(second)))
        if pair not in copies or copies[pair].similarity < similarity:
            copies[pair] = NearCopy(first, int(second), similarity, box)
    return copies


def _search(thumb: Thumbs, target: Vectors, box: Box) -> tuple[Box, float]:
    """The box of a thumbnail that is most similar to another image, by steps along each edge."""
    best = float(_similarity(thumb, target, box))
    for step in STEPS:
        for edge, sign in product(range(4), (-1, 1)):
            share = box[edge] + sign * step
            if not 0 <= share <= LARGEST_MARGIN:
                continue
            moved: Box = (*box[:edge], share, *box[edge + 1 :])  # type: ignore[assignment]
            similarity = _similarity(thumb, target, moved)
            if similarity > best:
                best, box = similarity, moved
    return box, best


def _similarity(thumb: Thumbs, target: Vectors, box: Box) -> float:
    return float(_unit(_detail(thumb, FINE, box)[None])[0] @ target)
