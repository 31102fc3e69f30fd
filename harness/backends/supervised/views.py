"""Test-time augmentation: the views of images, and the mean prediction over them; see tta.py for their settings."""

from __future__ import annotations

import torch

from harness.backends.graph import triangles
from harness.backends.supervised.tta import View, Views

Size = tuple[int, int]
DIMENSIONS = {"horizontal": (3,), "vertical": (2,), "both": (2, 3)}


def transformed(view: View, images: torch.Tensor, size: Size) -> torch.Tensor:
    """Return a view of images.

    Args:
        view: the view.
        images: (n, 3, height, width) in [0, 1].
        size: (height, width) of the images. A traced module needs these numbers as constants.

    Returns:
        (n, 3, *view.sides(size)) in [0, 1].
    """
    if view.flip in DIMENSIONS:
        images = torch.flip(images, dims=DIMENSIONS[view.flip])
    if view.rotation:
        images = torch.rot90(images, k=view.rotation // 90, dims=(2, 3))
    if view.scale != 1:
        images = _resized(images, size, view.sides(size))
    return images if view.factor == 1 else (images * view.factor).clamp(0, 1)


def _resized(images: torch.Tensor, size: Size, target: Size) -> torch.Tensor:
    """Resize images, bilinear with antialiasing. Unlike Torch's function, exported files can hold these products."""
    down, across = (triangles(old, new, images.device) for old, new in zip(size, target, strict=True))
    return down @ (images @ across.T)


def probabilities(network: torch.nn.Module, images: torch.Tensor, views: Views, size: Size) -> torch.Tensor:
    """Return the mean probabilities over views, in double precision on the cpu.

    The mean of logits z is softmax(mean(z)), which is the normalised geometric mean of the probabilities.

    Args:
        network: classifier with logits (n, outputs).
        images: (n, 3, height, width) in [0, 1].
        views: the views, and what is averaged.
        size: (height, width) of the images.

    Returns:
        (n, outputs).
    """
    logits = torch.stack([network(transformed(view, images, size)).double() for view in views.views])
    if views.average == "logits":
        return logits.mean(dim=0).softmax(dim=1).cpu()
    return logits.softmax(dim=2).mean(dim=0).cpu()
