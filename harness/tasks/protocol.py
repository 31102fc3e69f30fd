"""Checks of a protocol against the test images, and notes, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil

from harness.common import threads
from harness.data.base import listed
from harness.data.images import pixels_of
from harness.data.mask_images import ABOVE_0, is_empty
from harness.data.samples import Split
from harness.predictions.detection import Protocol

# Bytes for each pixel of the test images at their own size: 4 for its score, and the rest for anomalous pixels, which
# need some 110. This is enough as long as at most a tenth of all pixels is anomalous.
BYTES = 16


def protocol_problems(protocol: Protocol, splits: Sequence[Split], memory_limit: int | None) -> list[str]:
    """One sentence for each test set that does not fit a protocol.

    Args:
        protocol: of the pixel metrics.
        splits: the data of all categories.
        memory_limit: of the config, in bytes; None for half of the free memory.
    """
    masked = [split for split in splits if split.has_masks]
    problems: list[str] = []
    if protocol.original:
        limit = psutil.virtual_memory().available // 2 if memory_limit is None else memory_limit
        problems += (problem for split in masked for problem in _too_large(split, limit))
    problems += (problem for split in masked for problem in _without_pixels(split, protocol.mask))
    return problems


def _too_large(split: Split, limit: int) -> Iterator[str]:
    """The problem of test images whose pixels do not fit into the memory at their own size."""
    pixels = sum(pixels_of(Path(sample.path)) for sample in split.real_test)
    if pixels * BYTES > limit:
        yield (
            f"protocol.size: original found, which needs {pixels * BYTES / 1e9:.3g} GB of memory for the "
            f"{pixels / 1e6:.4g} million pixels of {len(split.real_test)} test images in {split.root}; expected at "
            f"most {limit / 1e9:.3g} GB. Set a larger memory_limit, or protocol.size to input."
        )


def with_rule_notes(split: Split, rule: str) -> Split:
    """The split, with a note on the defects that have no anomalous pixel under a rule.

    Args:
        split: of one category.
        rule: for the anomalous pixels of a mask.
    """
    masked, empty = _masks(split, rule)
    if not empty:
        return split
    note = (
        f"protocol.mask: by the rule {rule}, the masks of {len(empty)} of {masked} defective images have no anomalous "
        f"pixel, such as {empty[0]}. Image metrics count these images, pixel metrics leave them out."
    )
    return replace(split, notes=(*split.notes, note))


def _without_pixels(split: Split, rule: str) -> Iterator[str]:
    """The problem of masks that have all no anomalous pixel under a rule, such as masks with 0 and 1."""
    masked, empty = _masks(split, rule)
    if masked and len(empty) == masked:
        yield (
            f"protocol.mask: {rule} found, but none of the {masked} masks in {split.root} has a value above half of "
            f"its range: {listed(empty)}; expected such values. Set protocol.mask to above_0, or scale the masks."
        )


def _masks(split: Split, rule: str) -> tuple[int, list[str]]:
    """The number of test images with masks, and the first mask of each image that is empty under a rule."""
    samples = [sample for sample in split.real_test if sample.masks] if rule != ABOVE_0 else []
    with ThreadPoolExecutor(threads.count()) as pool:
        empty = pool.map(lambda sample: is_empty(sample.masks, rule), samples)
        names = [sample.masks[0] for sample, has_none in zip(samples, empty, strict=True) if has_none]
    return len(samples), names
