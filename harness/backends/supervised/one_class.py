"""A network a class, each telling the states of its own class apart with everything else as null; then the merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import LabelSpec

Floats = npt.NDArray[np.float64]


def classes(label_specs: Sequence[LabelSpec]) -> dict[str, list[int]]:
    """Positions of each class's labels, by class and state of each label."""
    found: dict[str, list[int]] = {}
    for position, (part, _) in enumerate(label_specs):
        found.setdefault(part, []).append(position)
    return found


def own_targets(targets: npt.NDArray[np.int64], own: Sequence[int]) -> npt.NDArray[np.int64]:
    """Targets of one class's network: its labels in order, then null.

    Args:
        targets: (n,) positions of labels.
        own: positions of the class's labels.
    """
    place = {label: output for output, label in enumerate(own)}
    return np.array([place.get(int(target), len(own)) for target in targets], dtype=np.int64)


def merge(answers: Mapping[str, Floats], parts: Mapping[str, Sequence[int]], labels: int) -> tuple[Floats, Floats]:
    """Probabilities of all labels from those of each class's network.

    A network claims an image if it does not find null likeliest. Where networks claim an image, their labels share all
    probability; where none does, those of all networks. Shares are in proportion to each network's own probability.

    Args:
        answers: by class (n, its labels + 1), null last.
        parts: by class the positions of its labels.
        labels: how many.

    Returns:
        (n, labels) probabilities, and (n,) how many networks claim each image: 1 is no conflict.
    """
    images = len(next(iter(answers.values())))
    found, claims = np.zeros((images, labels)), np.zeros(images)
    claimed = {part: answer.argmax(axis=1) < answer.shape[1] - 1 for part, answer in answers.items()}
    for mine in claimed.values():
        claims += mine
    for part, answer in answers.items():
        counts = claimed[part] | (claims == 0)
        found[:, list(parts[part])] = answer[:, :-1] * counts[:, None]
    total = found.sum(axis=1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / labels), claims
