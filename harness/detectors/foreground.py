"""Which patches show the object: the first principal component of an image's patches separates it from the background.

Damm et al., AnomalyDINO, WACV 2025 (arXiv:2405.14529), section 3.3. The threshold fits the features of DINOv2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.detectors.context import StageContext
from harness.detectors.embedding import IMAGES
from harness.detectors.features import Features
from harness.detectors.stages import Stage

BORDER = 0.2  # share of each side of the image that is outside its centre
IN_CENTRE = 0.35  # share of the centre that the object covers at least
STEPS = 64  # of the power iteration


def foreground(maps: torch.Tensor, threshold: float) -> torch.Tensor:
    """Find the patches of the object in each image.

    A patch belongs to the object where its coordinate along the first component exceeds the threshold. The sign of a
    component is arbitrary: if few patches of the centre belong to the object, the other sign is taken. The result grows
    by one patch, and its holes are closed, both with 3 x 3 patches.

    Args:
        maps: (n, channels, height, width) features, not normalised.
        threshold: in the units of the features.

    Returns:
        (n, height, width) booleans.
    """
    height, width = maps.shape[2:]
    vectors = maps.flatten(2).mT
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    coordinates = (centred @ _first_component(centred)).squeeze(2).reshape(-1, height, width)
    above = coordinates > threshold
    rows = slice(int(height * BORDER), int(height * (1 - BORDER)))
    columns = slice(int(width * BORDER), int(width * (1 - BORDER)))
    centre = above[:, rows, columns].flatten(1).float()
    flipped = centre.sum(dim=1) <= IN_CENTRE * centre.shape[1]
    return _closed(_dilated(torch.where(flipped[:, None, None], -coordinates > threshold, above)))


def _first_component(centred: torch.Tensor) -> torch.Tensor:
    """The first principal component (n, d, 1) of (n, m, d) vectors, without operations that ONNX lacks."""
    products = centred.mT @ centred
    # The row of the channel with the largest variance is not orthogonal to the component.
    largest = products.diagonal(dim1=1, dim2=2).argmax(dim=1)
    component = products.gather(1, largest[:, None, None].expand(-1, 1, products.shape[2])).mT
    for _ in range(STEPS):
        component = F.normalize(products @ component, dim=1)
    # The sign of scikit-learn: the largest entry is positive.
    place = component.abs().argmax(dim=1, keepdim=True)
    return component * torch.where(component.gather(1, place) < 0, -1.0, 1.0)


def _dilated(masks: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0


def _closed(masks: torch.Tensor) -> torch.Tensor:
    return ~_dilated(~_dilated(masks))


@dataclass(frozen=True)
class Foreground(Stage):
    """The patches of the object in all images of a role.

    Attributes:
        features: features of the images.
        layer: layer of the features.
        threshold: see `foreground`.
    """

    features: Features
    layer: str
    threshold: float

    title: ClassVar[str] = "foreground"

    def compute(self, context: StageContext, *inputs: Any) -> torch.Tensor:
        """Find the object in each image; see `foreground`.

        Args:
            context: device and progress.
            inputs: features by layer.

        Returns:
            (images, height, width) booleans, on the cpu.
        """
        maps, masks = inputs[0][self.layer], []
        for first in range(0, len(maps), IMAGES):
            masks.append(foreground(maps[first : first + IMAGES].to(context.device.torch), self.threshold).cpu())
            context.report(first + IMAGES, len(maps))
        return torch.cat(masks)
