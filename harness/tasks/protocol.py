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
from harness.data.mask_images import ABOVE_0, marked_pixels
from harness.data.samples import Split
from harness.metrics.pixel_ranking import bytes_needed
from harness.predictions.detection import Protocol


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
        problems += (problem for split in masked for problem in _too_large(split, protocol.mask, limit))
    problems += (problem for split in masked for problem in _without_pixels(split, protocol.mask))
    return problems


def _too_large(split: Split, rule: str, limit: int) -> Iterator[str]:
    """The problem of test images whose anomalous pixels do not fit into the memory at their own size."""
    areas = [pixels_of(Path(sample.path)) for sample in split.real_test]
    anomalous = sum(_marked(split, rule).values())
    needed = bytes_needed(areas, anomalous)
    if needed > limit:
        yield (
            f"protocol.size: original found, which needs {needed / 1e9:.3g} GB of memory for {len(areas)} test images "
            f"in {split.root}, with {anomalous / 1e6:.4g} million anomalous pixels; expected at most {limit / 1e9:.3g} "
            "GB. Set a larger memory_limit, or protocol.size to input."
        )


def with_rule_notes(split: Split, rule: str) -> Split:
    """The split, with a note on the defects that have no anomalous pixel under a rule.

    Args:
        split: of one category.
        rule: for the anomalous pixels of a mask.
    """
    if rule == ABOVE_0:
        return split
    marked = _marked(split, rule)
    empty = [mask for mask, pixels in marked.items() if not pixels]
    if not empty:
        return split
    note = (
        f"protocol.mask: by the rule {rule}, the masks of {len(empty)} of {len(marked)} defective images have no "
        f"anomalous pixel, such as {empty[0]}. Image metrics count these images, pixel metrics leave them out."
    )
    return replace(split, notes=(*split.notes, note))


def _without_pixels(split: Split, rule: str) -> Iterator[str]:
    """The problem of masks that have all no anomalous pixel under a rule, such as masks with 0 and 1."""
    marked = {} if rule == ABOVE_0 else _marked(split, rule)
    if marked and not any(marked.values()):
        yield (
            f"protocol.mask: {rule} found, but none of the {len(marked)} masks in {split.root} has a value above half "
            f"of its range: {listed(list(marked))}; expected such values. Set protocol.mask to above_0, or scale the "
            "masks."
        )


def _marked(split: Split, rule: str) -> dict[str, int]:
    """The number of anomalous pixels under a rule of each test image with masks, by its first mask."""
    samples = [sample for sample in split.real_test if sample.masks]
    with ThreadPoolExecutor(threads.count()) as pool:
        pixels = pool.map(lambda sample: marked_pixels(sample.masks, rule), samples)
        return {sample.masks[0]: number for sample, number in zip(samples, pixels, strict=True)}
