"""Grad-CAM: the pixels that make a network predict a label.

The map is the sum of the channels of the last feature map, each weighted by the mean gradient of the label's logit, and
without its negative part (Selvaraju et al.: Grad-CAM: visual explanations from deep networks via gradient-based
localization, ICCV 2017, equations 1 and 2). The gradient passes the head only, so a map costs as much as a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.backends.supervised.network import Classifier, Member

TOLERANCE = 1e-3  # of a logit, relative


def feature_map(network: Classifier, images: torch.Tensor) -> torch.Tensor:
    """The last feature map of a network.

    Args:
        network: a trained network.
        images: RGB in [0, 1], (n, 3, height, width).

    Returns:
        Features, (n, channels, rows, columns).

    Raises:
        ValueError: the network has tokens instead.
    """
    features = network.last_features(images)
    if features.ndim != 4:
        raise ValueError(f"its last features have {features.ndim} dimensions, and a feature map has 4")
    return features


def grad_cam(network: Classifier, images: torch.Tensor, outputs: Sequence[int]) -> torch.Tensor:
    """Compute a map for each image.

    Args:
        network: in evaluation mode.
        images: (n, 3, height, width) in [0, 1].
        outputs: for each image the output whose logit the map explains.

    Returns:
        (n, height, width) of the feature map, from 0 to 1: each map is divided by its maximum.

    Raises:
        ValueError: the network has no feature map.
    """
    with torch.no_grad():
        features = feature_map(network, images)
    features.requires_grad_(True)
    with torch.enable_grad():
        # Some heads change their input in place, which no leaf allows.
        logits = network.logits_of(features.clone())
        chosen = logits[list(range(len(outputs))), list(outputs)]
        (gradient,) = torch.autograd.grad(chosen.sum(), features)
    space, channel = ((1, 2), 3) if _channels_last(network, features) else ((2, 3), 1)
    weights = gradient.mean(dim=space, keepdim=True)
    maps = (weights * features.detach()).sum(dim=channel).relu().float()
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)


def _channels_last(network: Classifier, features: torch.Tensor) -> bool:
    # Swin and its relatives have their channels last.
    return bool(features.shape[1] != network.features.num_features == features.shape[3])


def obstacle(network: Classifier, size: tuple[int, int]) -> str:
    """Why a network has no useful map; empty where it has one. A trial on one image decides.

    Args:
        network: in evaluation mode.
        size: (height, width) of the images.
    """
    image = torch.linspace(0, 1, 3 * size[0] * size[1], device=network.mean.device).reshape(1, 3, *size)
    try:
        with torch.no_grad():
            whole, features = network(image), network.last_features(image)
            parts = network.logits_of(features)
        shape = tuple(grad_cam(network, image, [0]).shape[1:])
    # timm has networks of many kinds, and some lack these methods.
    except Exception as error:  # noqa: BLE001
        return f"the network has no spatial feature map ({error})"
    if not torch.allclose(whole, parts, rtol=TOLERANCE, atol=TOLERANCE):
        return "the network does not predict from its last feature map alone"
    if shape == (1, 1):
        return f"its last feature map has one cell for images of {size[0]} x {size[1]} pixels; use larger images"
    return ""


def maps_of_labels(folds: Sequence[Sequence[Member]], images: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """The mean map over folds and repeats.

    In a one-class run, the networks of the label's class make the map. A label of a class without networks means null,
    so the map is that of null, the mean over all networks.

    Args:
        folds: the networks of each fold.
        images: (n, 3, height, width) in [0, 1].
        labels: for each image the position of the label that the map explains.

    Returns:
        (n, height, width) of the feature map, from 0 to 1, on the cpu.
    """
    means = []
    for members in folds:
        known = {label for member in members for label in member.own}
        maps: dict[int, list[torch.Tensor]] = {row: [] for row in range(len(labels))}
        for member in members:
            rows = [row for row, label in enumerate(labels) if label in member.own or label not in known]
            if not rows:
                continue
            # Null is the last output.
            outputs = [member.own.index(labels[row]) if labels[row] in known else len(member.own) for row in rows]
            for row, one in zip(rows, grad_cam(member.network, images[rows], outputs).cpu(), strict=True):
                maps[row].append(one)
        means.append(torch.stack([torch.stack(of_row).mean(dim=0) for of_row in maps.values()]))
    return torch.stack(means).mean(dim=0)
