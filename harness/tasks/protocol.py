"""Checks of a protocol against the test images, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from harness.common import threads
from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.images import pixels_of
from harness.data.mask_images import ABOVE_0, union
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
    if protocol.mask != ABOVE_0:
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


def _without_pixels(split: Split, rule: str) -> Iterator[str]:
    """The problem of masks without an anomalous pixel under a rule, such as masks with 0 and 1."""
    samples = [sample for sample in split.real_test if sample.masks]

    def is_empty(paths: tuple[str, ...]) -> bool:
        try:
            return not union(paths, None, rule).any()
        # The check of the data says what is wrong with a damaged mask.
        except DataError:
            return False

    with ThreadPoolExecutor(threads.count()) as pool:
        empty = list(pool.map(is_empty, [sample.masks for sample in samples]))
    names = [sample.masks[0] for sample, has_none in zip(samples, empty, strict=True) if has_none]
    if names:
        yield (
            f"protocol.mask: {rule} found, but {len(names)} of {len(samples)} masks have no value above half of "
            f"their range: {listed(names)}; expected such a value in each. Correct the masks, or set protocol.mask to "
            "above_0."
        )
