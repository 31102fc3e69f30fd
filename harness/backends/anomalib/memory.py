"""Memory between runs and within one: what the libraries leave behind is given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from anomalib.models.components import KCenterGreedy

M_MMAP_THRESHOLD = -3  # of mallopt(3)
AT_ONCE = 2**20  # bytes; larger blocks go back to the system as soon as they are freed
AS_EVER = 32 * 2**20  # what glibc's own rule arrives at, with larger blocks in use


@contextmanager
def steady_selection() -> Iterator[None]:
    """While it is open, memory does not grow with the size of the coreset that anomalib selects.

    Each step of anomalib's greedy selection allocates one tensor as large as the embedding, and some tiny ones that
    stay. glibc serves blocks of up to 32 MB from its heap once it has seen such sizes, and there the tiny ones keep
    the holes from being used again: every step leaves a hole. 225 selections from 22,528 x 448 grew by 4.4 GB and
    took 4.5 s (0.05 GB and 2.4 s so), and a PatchCore sweep at 128 x 128 pixels was killed at 24 GB. Fixing the
    threshold for the whole process instead made feature extraction up to 1.5 times slower, so it is done around the
    selection only.
    """
    original = KCenterGreedy.select_coreset_idxs

    def select(sampler: KCenterGreedy) -> list[int]:
        _return_blocks_from(AT_ONCE)
        try:
            return original(sampler)
        finally:
            _return_blocks_from(AS_EVER)

    KCenterGreedy.select_coreset_idxs = select
    try:
        yield
    finally:
        KCenterGreedy.select_coreset_idxs = original


def _return_blocks_from(size: int) -> None:
    """Tell glibc; other systems have no such rule."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)


def release_memory() -> None:
    """Give back what the last run held.

    A trainer, its model and its callbacks refer to each other. Python frees such a ring when it has counted enough
    new objects, however large the few in the ring are: without this, a sweep holds several models and all the
    embeddings they gathered.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
