"""A labelled validation part of the test set, for `threshold: f1_on_val`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.base import Sample


def validation_part(samples: Sequence[Sample], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which samples are taken out of the test set: a share of each type of defect and of the normal images.

    The same for every run on the same test images. A type with a single image stays in the test set; of any other at
    least one is taken and at least one stays.

    Raises:
        DataError: validation part or test set would lack normal or anomalous images.
    """
    chosen = np.zeros(len(samples), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    types = [(sample.label, sample.defect) for sample in samples]
    for kind in sorted(set(types)):
        members = np.flatnonzero([one == kind for one in types])
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    labels = np.array([sample.label == 1 for sample in samples], dtype=np.bool_)
    for name, of_kind in (("normal", ~labels), ("anomalous", labels)):
        if not (chosen & of_kind).any():
            raise DataError(
                f"threshold f1_on_val: {int(of_kind.sum())} {name} test images found, none of which can be taken for "
                "validation; expected at least 2 (of one type of defect). Add images, or choose another method."
            )
    return chosen
