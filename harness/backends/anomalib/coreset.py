"""`coreset: exact`: the harness's coreset selection in anomalib's PatchCore."""

from __future__ import annotations

import torch
from anomalib.models import Patchcore

from harness.detectors.bank import coreset_size
from harness.detectors.coreset import k_center, start_row


def exact_coreset(cls: type[Patchcore], seed: int) -> type[Patchcore]:
    """Return a PatchCore class with an exact greedy k-center coreset, selected in the space of the embedding.

    Its state has the same names and shapes as anomalib's, so plain anomalib loads its checkpoints.

    Args:
        cls: anomalib's PatchCore class.
        seed: seed for the first patch of the coreset.
    """

    class ExactCoresetPatchcore(cls):
        """anomalib's PatchCore, with another coreset selection."""

        def fit(self) -> None:
            """Reduce the collected embedding to the coreset."""
            embedding = torch.vstack(self.model.embedding_store)
            self.model.embedding_store.clear()
            size = coreset_size(len(embedding), self.coreset_sampling_ratio)
            order = k_center(embedding, size, start_row(embedding, seed))
            self.model.memory_bank = embedding[torch.from_numpy(order.rows).to(embedding.device)]

    # Checkpoints and logs then contain anomalib's name of the class.
    ExactCoresetPatchcore.__name__ = cls.__name__
    ExactCoresetPatchcore.__qualname__ = cls.__qualname__
    ExactCoresetPatchcore.__module__ = cls.__module__
    return ExactCoresetPatchcore
