"""A labelled validation set, taken out of the test set, for `threshold: f1_on_val`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.base import Sample


def validation_part(samples: Sequence[Sample], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Select the validation samples: a share of each type of defect and of the normal images.

    All runs on the same test images have the same validation set. A type with one image stays in the test set. Of every
    other type, both sets have at least one image.

    Args:
        samples: all test images.
        share: of each type, between 0 and 1.
        seed: of the selection.

    Returns:
        Shape (n,), True is validation.

    Raises:
        DataError: the validation set would have no normal or no anomalous images.
    """
    selection = np.zeros(len(samples), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    types = [(sample.label, sample.defect) for sample in samples]
    for defect_type in sorted(set(types)):
        members = np.flatnonzero([sample_type == defect_type for sample_type in types])
        count = min(max(1, round(share * len(members))), len(members) - 1)
        selection[rng.permutation(members)[:count]] = True
    labels = np.array([sample.label == 1 for sample in samples], dtype=np.bool_)
    for name, of_class in (("normal", ~labels), ("anomalous", labels)):
        if not (selection & of_class).any():
            raise DataError(
                f"threshold f1_on_val: {int(of_class.sum())} {name} test images found, too few for a validation set; "
                "expected at least 2 (of one type of defect). Add images, or choose another method."
            )
    return selection
