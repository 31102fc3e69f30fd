"""Exact and near copies as findings, and which one of two copies to leave out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.audit.finding import CONTRADICTION, COPY, NEAR, Finding
from harness.audit.images import TEST, TRAIN, UNLABELLED, AuditImage
from harness.audit.near import WHOLE, NearCopy, near_copies
from harness.audit.scan import Scan


def copy_findings(scans: Sequence[Scan]) -> list[Finding]:
    """The copies in each data set. An image of two data sets is none: each of them has its own models.

    Args:
        scans: of all readable images.
    """
    by_dataset: dict[str, list[Scan]] = {}
    for one in scans:
        by_dataset.setdefault(one.image.dataset, []).append(one)
    return [finding for members in by_dataset.values() for finding in _of_dataset(members)]


def _of_dataset(scans: Sequence[Scan]) -> list[Finding]:
    """Exact copies first, then near copies among images that are no exact copies."""
    first: dict[str, Scan] = {}
    findings = []
    for one in sorted(scans, key=lambda one: _order(one.image)):
        original = first.setdefault(one.sha256, one)
        if original is not one:
            findings.append(_finding(COPY, original.image, one.image, "the same bytes", 1.0))
    unique = list(first.values())
    if not unique:
        return findings
    for pair in near_copies(np.stack([one.thumb for one in unique])):
        images = [unique[pair.first].image, unique[pair.second].image]
        kept, left_out = sorted(images, key=_order)
        findings.append(_finding(NEAR, kept, left_out, _words(pair, unique), pair.similarity))
    return findings


def _order(image: AuditImage) -> tuple[int, str]:
    """The first of several copies stays. A training image is the last, so that the test does not change."""
    return (TEST, UNLABELLED, TRAIN).index(image.role), image.name


def _finding(kind: str, kept: AuditImage, left_out: AuditImage, words: str, value: float) -> Finding:
    """A contradiction is for a person to decide, so it proposes nothing.

    An unlabelled image stays too: no metric counts it, and a submission needs all of them.
    """
    roles = f"{kept.role} and {left_out.role}" if kept.role != left_out.role else f"both {kept.role}"
    if kept.label and left_out.label and kept.label != left_out.label:
        labels = f"labelled {left_out.label!r} and {kept.label!r}"
        return Finding(CONTRADICTION, left_out, f"{kind}, {words}: {labels} ({roles})", kept, value)
    return Finding(kind, left_out, f"{words} ({roles})", kept, value, exclude=left_out.role != UNLABELLED)


def _words(pair: NearCopy, scans: Sequence[Scan]) -> str:
    first, second = scans[pair.first], scans[pair.second]
    sizes = [f"{one.width} x {one.height}" for one in (first, second)]
    how = f"{sizes[0]} and {sizes[1]} pixels" if sizes[0] != sizes[1] else "encoded again"
    if pair.box != WHOLE:
        how = f"cropped by up to {max(pair.box):.0%}"
    return f"{how}, correlation {pair.similarity:.3f}"
