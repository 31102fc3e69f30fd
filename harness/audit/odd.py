"""Images of unusual size, mode, exposure or sharpness, and masks that can't be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from harness.audit.finding import MASK, ODD, Finding
from harness.audit.images import UNLABELLED
from harness.audit.scan import Scan
from harness.common.errors import DataError
from harness.data.mask_images import mask_reading

USUAL = 0.8  # share of images with one size or mode, above which another one is odd
LEAST = 8  # images whose median and spread are known
FAR = 6.0  # robust standard deviations from the median
NORMAL = 1.4826  # of the median absolute deviation, to a standard deviation
BORDER = 0.9  # share of the border's pixels in a mask
# Facts with their smallest difference that counts, and words for a low and a high value.
EXPOSURE = (
    ("brightness", 20.0, "dark", "bright"),
    ("contrast", 15.0, "low contrast", "high contrast"),
    ("sharpness", 1.0, "blurred", ""),
    ("clipped", 0.2, "", "much black or white"),
)


def odd_findings(scans: Sequence[Scan]) -> list[Finding]:
    """Images that differ from the others of their category or label.

    The labelled images say what is usual, since unlabelled ones may be more and of other conditions.

    Args:
        scans: of all readable images.
    """
    ordered = sorted(scans, key=lambda one: one.image.place)
    findings = []
    for _, members in groupby(ordered, key=lambda one: one.image.place):
        group = list(members)
        known = [one for one in group if one.image.role != UNLABELLED] or group
        findings += [*_rare(group, known), *_extreme(group, known)]
    return findings


def _rare(group: Sequence[Scan], known: Sequence[Scan]) -> Iterator[Finding]:
    """Images of another size or mode than most known ones."""
    for title, value_of in (("size", _size), ("mode", _mode)):
        usual, count = Counter(map(value_of, known)).most_common(1)[0]
        if count < USUAL * len(known):
            continue
        for one in group:
            if (value := value_of(one)) != usual:
                yield Finding(ODD, one.image, f"{title}: {value}; {count} of {len(known)} images have {usual}")


def _size(one: Scan) -> str:
    return f"{one.width} x {one.height} pixels"


def _mode(one: Scan) -> str:
    return one.mode or "8-bit RGB"


def _extreme(group: Sequence[Scan], known: Sequence[Scan]) -> Iterator[Finding]:
    """Images whose exposure or sharpness is far from the median of the known ones."""
    if len(known) < LEAST:
        return
    for name, least, low, high in EXPOSURE:
        values, usual = (np.array([getattr(one, name) for one in scans]) for scans in (group, known))
        distances = deviations(values, usual, least / FAR)
        for one, value, distance in zip(group, values, distances, strict=True):
            words = (low if distance < 0 else high) if abs(distance) > FAR else ""
            if words:
                reason = f"{words}: {name} {value:.2f}, {float(np.median(usual)):.2f} in the median"
                yield Finding(ODD, one.image, reason, value=float(value))


def deviations(
    values: npt.NDArray[np.float64], usual: npt.NDArray[np.float64], least: float = 1e-12
) -> npt.NDArray[np.float64]:
    """Distances from the median of usual values, in their robust standard deviations.

    The source is Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993: the median absolute deviation.

    Args:
        values: shape (n,).
        usual: values that give median and standard deviation, shape (m,).
        least: smallest standard deviation, for values that are almost equal.
    """
    median = np.median(usual)
    spread = NORMAL * np.median(np.abs(usual - median))
    distances: npt.NDArray[np.float64] = (values - median) / max(float(spread), least)
    return distances


def mask_findings(scans: Sequence[Scan]) -> list[Finding]:
    """Masks that are empty, full, all over the border, unreadable, or of another size than their image.

    Args:
        scans: of all readable images.
    """
    return [
        Finding(MASK, one.image, reason)
        for one in scans
        for file in one.image.masks
        if (reason := _mask_problem(one, file))
    ]


def _mask_problem(one: Scan, file: str) -> str:
    try:
        mask = mask_reading(file, one.image.max_pixels).pixels
    except DataError as error:
        return error.problems[0]
    if mask.shape != (one.height, one.width):
        return f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {one.width} x {one.height}"
    if not mask.any():
        return "the mask is empty: no pixel is anomalous"
    if mask.all():
        return "the mask is full: every pixel is anomalous"
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if border.mean() >= BORDER:
        return f"the mask marks {border.mean():.0%} of the border: is it inverted?"
    return ""
