"""Networks for each class, with the conditions of its class and "null" for all other images; and their merging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from harness.data.labelled.base import LabelSpec
from harness.metrics.classification import confusion, f1_of_labels
from harness.predictions.votes import add_votes, has_winner

Floats = npt.NDArray[np.float64]


def classes(label_specs: Sequence[LabelSpec], only: Sequence[str] = ()) -> dict[str, list[int]]:
    """Return the positions of the labels of each class.

    Args:
        label_specs: class and condition of each label.
        only: names of classes; empty for all.
    """
    positions: dict[str, list[int]] = {}
    for position, (class_name, _) in enumerate(label_specs):
        if not only or class_name in only:
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


def merge(
    outputs: Iterable[tuple[str, Floats]], positions: Mapping[str, Sequence[int]], labels: int, combination: str
) -> tuple[Floats, Floats]:
    """Merge the probabilities of all networks of a fold, as `merge_tensors` does for tensors.

    Args:
        outputs: class and probabilities of each network; shapes as in `merge_tensors`.
        positions: positions of the labels of each class with networks.
        labels: number of all labels.
        combination: how repeated networks of a class decide; see `combine`.

    Returns:
        Probabilities (n, labels), and the number of classes that claim each image, (n,).
    """
    tensors = [(name, torch.from_numpy(np.asarray(values, dtype=np.float64))) for name, values in outputs]
    merged, claims = merge_tensors(tensors, positions, labels, combination)
    return merged.numpy(), claims.numpy()


def merge_tensors(
    outputs: Iterable[tuple[str, torch.Tensor]],
    positions: Mapping[str, Sequence[int]],
    labels: int,
    combination: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the probabilities of all networks of a fold. All operations can be exported.

    A class claims an image if one of its labels is more probable than null. Only the classes that claim an image
    contribute to its probabilities. The sum is normalised to 1.

    Some classes may have no network. Then the probability of null is shared equally by their labels. They share all of
    it where no class claims the image. If all classes have networks, null is left out, and without a claim all classes
    contribute.

    Args:
        outputs: class and probabilities (n, labels of the class + 1) of each network, null last; or "" and (n, labels)
            of one network for all labels.
        positions: positions of the labels of each class with networks.
        labels: number of all labels.
        combination: how repeated networks of a class decide; see `combine`.

    Returns:
        Probabilities (n, labels), and the number of classes that claim each image, (n,); 1 is no conflict.
    """
    repeats: dict[str, list[torch.Tensor]] = {}
    for name, values in outputs:
        repeats.setdefault(name, []).append(values)
    if "" in repeats:
        return repeats[""][0], torch.ones_like(repeats[""][0][:, 0])
    by_class = {name: combine(values, combination) for name, values in repeats.items()}
    claimed = {name: has_winner(values[:, :-1], values[:, -1]) for name, values in by_class.items()}
    claims = torch.stack([claim.double() for claim in claimed.values()]).sum(dim=0)
    without_network = labels - sum(len(positions[name]) for name in by_class)
    unclaimed = claims == 0
    all_contribute = torch.zeros_like(unclaimed) if without_network else unclaimed
    columns: dict[int, torch.Tensor] = {}
    null = unclaimed.to(claims.dtype)
    for name, values in by_class.items():
        contributes = (claimed[name] | all_contribute).to(values.dtype)
        null = null + values[:, -1] * contributes
        for output, position in enumerate(positions[name]):
            columns[position] = values[:, output] * contributes
    share = null / max(without_network, 1)
    merged = torch.stack([columns.get(position, share) for position in range(labels)], dim=1)
    total = merged.sum(dim=1, keepdim=True)
    certain = total > 0
    return torch.where(certain, merged / torch.where(certain, total, 1.0), 1 / labels), claims


def combine(repeats: Sequence[torch.Tensor], combination: str) -> torch.Tensor:
    """Combine the probabilities of repeated networks of a class.

    Args:
        repeats: probabilities (n, labels of the class + 1) of each network, null last.
        combination: `mean` of the probabilities; or `vote`: the shares of the networks' most probable outputs.

    Returns:
        Probabilities (n, labels of the class + 1).
    """
    if combination == "mean":
        return torch.stack(list(repeats)).mean(dim=0)
    labels = repeats[0].shape[1] - 1
    choices = [values.argmax(dim=1) for values in repeats]
    # Whole numbers of votes are exact, so equal numbers are a tie.
    votes, null_votes = add_votes(choices, [choice == labels for choice in choices], [1.0] * len(choices), labels)
    return torch.cat([votes, null_votes[:, None]], dim=1) / len(repeats)


def notes(
    claims: Floats,
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    positions: Mapping[str, Sequence[int]],
    labels: int,
) -> list[str]:
    """Return sentences on conflicts between classes, and on labels without a network.

    Args:
        claims: number of classes that claim each validation image, (n,).
        truth: labels of these images, (n,).
        predicted: their predicted labels, (n,).
        positions: positions of the labels of each class with networks.
        labels: number of all labels.
    """
    own = [position for of_class in positions.values() for position in of_class]
    none, several = int((claims == 0).sum()), int((claims > 1).sum())
    conflicts = f"one_class: the networks of several classes claimed {several} of {len(claims)} images"
    if len(own) == labels:
        text = f"{conflicts}, and no network claimed {none}; the most probable label was predicted"
        return [text] if none or several else []
    f1 = f1_of_labels(confusion(truth, predicted, labels))[own]
    mean = f"{np.nanmean(f1):.3f}" if np.isfinite(f1).any() else "undefined"
    limits = (
        f"only_classes: networks for {', '.join(positions)} only. Macro F1 of their {len(own)} labels is {mean}. The "
        f"other {labels - len(own)} labels share the probability of null, so their F1 is near 0. In a blend, use this "
        "run in rules"
    )
    return [limits, conflicts] if several else [limits]
