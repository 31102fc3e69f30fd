"""Returns memory that the libraries keep, between runs and within one run, to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from anomalib.models.components import KCenterGreedy

M_MMAP_THRESHOLD = -3  # of mallopt(3)
LOW_THRESHOLD = 2**20  # bytes; larger blocks go back to the system as soon as they are freed
USUAL_THRESHOLD = 32 * 2**20  # bytes; the limit of glibc's dynamic threshold, reached with larger blocks in use


@contextmanager
def steady_selection() -> Iterator[None]:
    """Keep the memory of anomalib's coreset selection independent of the coreset's size, inside this context.

    Each step of the greedy selection allocates one tensor as large as the embedding, and some tiny tensors that stay.
    glibc serves blocks of up to 32 MB from its heap, once such sizes occurred. There the tiny tensors prevent the reuse
    of freed blocks, so that every step leaves a hole. Without this context, 225 selections from 22,528 x 448 took
    4.4 GB and 4.5 s, with it 0.05 GB and 2.4 s. A PatchCore sweep at 128 x 128 pixels was killed at 24 GB. A low
    threshold for the whole process makes feature extraction up to 1.5 times slower, so only the selection has it.
    """
    original = KCenterGreedy.select_coreset_idxs

    def select(sampler: KCenterGreedy) -> list[int]:
        _return_blocks_from(LOW_THRESHOLD)
        try:
            return original(sampler)
        finally:
            _return_blocks_from(USUAL_THRESHOLD)

    KCenterGreedy.select_coreset_idxs = select
    try:
        yield
    finally:
        KCenterGreedy.select_coreset_idxs = original


def _return_blocks_from(size: int) -> None:
    """Set the threshold of glibc; other systems have no such threshold."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)


def release_memory() -> None:
    """Free the memory of the last run.

    A trainer, its model and its callbacks refer to each other. Python frees such a reference cycle only after a number
    of new objects, whatever the cycle's size. Otherwise a sweep holds several models with all their embeddings.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
