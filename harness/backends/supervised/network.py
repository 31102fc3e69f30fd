"""A timm network with a head of ours: features, activation, dropout, labels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import timm
import torch
from torch import nn

from harness.backbones.inject import load_into, seeded
from harness.backbones.resolve import Weights
from harness.backends.supervised.settings import Settings


class Classifier(nn.Module):
    """Pooled features of a timm network, and a linear head on them.

    Args:
        backbone: timm's name.
        outputs: how many labels.
        settings: dropout and head.

    Attributes:
        width: of the pooled features.
        mean, std: that images are normalised by, (1, 3, 1, 1).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: str, outputs: int, settings: Settings) -> None:
        super().__init__()
        self.features = _create(backbone, settings.image_size)
        self.width = _width(self.features, settings.image_size)
        self.activation = nn.SiLU() if settings.head_activation == "silu" else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        # ArcFace compares directions: its head has no bias.
        self.head = nn.Linear(self.width, outputs, bias=settings.loss != "arcface")
        if settings.head_init == "xavier" or settings.loss == "arcface":
            nn.init.xavier_uniform_(self.head.weight)
        self._scale = settings.arcface_scale if settings.loss == "arcface" else None
        config: dict[str, Any] = timm.data.resolve_model_data_config(self.features)
        given = settings.normalization
        mean, std = (given.mean, given.std) if given is not None else (config["mean"], config["std"])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """RGB images in [0, 1], (n, 3, height, width) -> what the head sees, (n, width)."""
        found: torch.Tensor = self.dropout(self.activation(self.features((images - self.mean) / self.std)))
        return found

    def logits(self, embedded: torch.Tensor) -> torch.Tensor:
        """(n, width) -> (n, labels); with ArcFace the scaled cosines, without margin."""
        if self._scale is None:
            found: torch.Tensor = self.head(embedded)
            return found
        directions = nn.functional.normalize(embedded), nn.functional.normalize(self.head.weight)
        return self._scale * nn.functional.linear(*directions)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """RGB images in [0, 1], (n, 3, height, width) -> logits (n, labels)."""
        return self.logits(self.embed(images))


def _create(backbone: str, size: tuple[int, int]) -> nn.Module:
    """Transformers are built for a size; other networks take any, and know no such argument."""
    try:
        network: nn.Module = timm.create_model(backbone, pretrained=False, num_classes=0, img_size=size)
    except TypeError:
        network = timm.create_model(backbone, pretrained=False, num_classes=0)
    return network


def _width(features: nn.Module, size: tuple[int, int]) -> int:
    """Of what comes out, seen rather than asked for: some networks have layers after their pooling."""
    was = features.training
    features.eval()
    with torch.no_grad():
        width = int(features(torch.zeros(1, 3, *size)).shape[1])
    features.train(was)
    return width


def build(backbone: str, outputs: int, settings: Settings, weights: Weights | None, seed: int) -> Classifier:
    """A network ready to be trained.

    Args:
        backbone: timm's name.
        outputs: how many labels.
        settings: of the run.
        weights: of the backbone, resolved; None where they are about to be loaded.
        seed: of the head, and of random weights.
    """
    with seeded(seed):
        network = Classifier(backbone, outputs, settings)
    if weights is not None:
        adapt = getattr(import_module(type(network.features).__module__), "checkpoint_filter_fn", None)
        load_into(network.features, backbone, weights, seed, adapt)
    # Faster on the cpu, and here rather than in training: other layouts round otherwise, so that a network that is
    # loaded would not answer bit for bit as it did when it was trained.
    return network.to(memory_format=torch.channels_last)
