"""`coreset: exact`: our selection in anomalib's PatchCore."""

from __future__ import annotations

import torch
from anomalib.models import Patchcore

from harness.detectors.bank import coreset_size
from harness.detectors.coreset import k_center, start_row


def exact_coreset(cls: type[Patchcore], seed: int) -> type[Patchcore]:
    """anomalib's PatchCore with an exact greedy k-center coreset, in the embedding's own space.

    What it learns has the same names and shapes, so plain anomalib loads its checkpoints.

    Args:
        cls: anomalib's class.
        seed: draws the first patch.
    """

    class ExactCoresetPatchcore(cls):
        """Differs in the selection only."""

        def fit(self) -> None:
            """Thin the gathered embedding out to the coreset."""
            embedding = torch.vstack(self.model.embedding_store)
            self.model.embedding_store.clear()
            size = coreset_size(len(embedding), self.coreset_sampling_ratio)
            order = k_center(embedding, size, start_row(embedding, seed))
            self.model.memory_bank = embedding[torch.from_numpy(order.rows).to(embedding.device)]

    # It goes by anomalib's name, in checkpoints and logs too.
    ExactCoresetPatchcore.__name__ = cls.__name__
    ExactCoresetPatchcore.__qualname__ = cls.__qualname__
    ExactCoresetPatchcore.__module__ = cls.__module__
    return ExactCoresetPatchcore
