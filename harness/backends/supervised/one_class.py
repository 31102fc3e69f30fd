"""One network for each class, with the conditions of its class and "null" for all other images; and their merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import LabelSpec

Floats = npt.NDArray[np.float64]


def classes(label_specs: Sequence[LabelSpec]) -> dict[str, list[int]]:
    """Return the positions of the labels of each class, from the class and condition of each label."""
    positions: dict[str, list[int]] = {}
    for position, (class_name, _) in enumerate(label_specs):
        positions.setdefault(class_name, []).append(position)
    return positions


def class_targets(targets: npt.NDArray[np.int64], positions: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the targets of a one-class network: the labels of its class in order, then null.

    Args:
        targets: (n,) positions of labels.
        positions: positions of the labels of the class.
    """
    outputs = {label: output for output, label in enumerate(positions)}
    return np.array([outputs.get(int(target), len(positions)) for target in targets], dtype=np.int64)


def merge(by_class: Mapping[str, Floats], positions: Mapping[str, Sequence[int]], labels: int) -> tuple[Floats, Floats]:
    """Merge the probabilities of all one-class networks.

    A network claims an image if null is not its most probable output. Only the networks that claim an image contribute
    to its probabilities; without a claim all networks contribute. The sum is normalised to 1.

    Args:
        by_class: probabilities (n, labels of the class + 1) of each class, null last.
        positions: positions of the labels of each class.
        labels: number of all labels.

    Returns:
        Probabilities (n, labels), and the number of networks that claim each image, (n,); 1 is no conflict.
    """
    images = len(next(iter(by_class.values())))
    merged, claims = np.zeros((images, labels)), np.zeros(images)
    claimed = {name: values.argmax(axis=1) < values.shape[1] - 1 for name, values in by_class.items()}
    for claim in claimed.values():
        claims += claim
    for name, values in by_class.items():
        contributes = claimed[name] | (claims == 0)
        merged[:, list(positions[name])] = values[:, :-1] * contributes[:, None]
    total = merged.sum(axis=1, keepdims=True)
    return np.where(total > 0, merged / np.where(total > 0, total, 1), 1 / labels), claims
