"""A classifier: a timm network, an activation, dropout and a linear head."""

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
    """A timm network with a linear head on its pooled features.

    Args:
        backbone: timm's name.
        outputs: number of outputs.
        settings: settings of the run.

    Attributes:
        width: number of pooled features.
        mean: mean of the input normalisation, (1, 3, 1, 1).
        std: standard deviation of the input normalisation, (1, 3, 1, 1).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: str, outputs: int, settings: Settings) -> None:
        super().__init__()
        self.features = _create(backbone, settings.image_size)
        self.width = _width(self.features, settings.image_size)
        self.activation = nn.SiLU() if settings.head_activation == "silu" else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        # ArcFace compares directions, so its head has no bias.
        self.head = nn.Linear(self.width, outputs, bias=settings.loss != "arcface")
        if settings.head_init == "xavier" or settings.loss == "arcface":
            nn.init.xavier_uniform_(self.head.weight)
        self._scale = settings.arcface_scale if settings.loss == "arcface" else None
        config: dict[str, Any] = timm.data.resolve_model_data_config(self.features)
        normalization = settings.normalization
        mean, std = (normalization.mean, normalization.std) if normalization else (config["mean"], config["std"])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, (n, width), for RGB images in [0, 1], (n, 3, height, width)."""
        embedded: torch.Tensor = self.dropout(self.activation(self.features((images - self.mean) / self.std)))
        return embedded

    def logits(self, embedded: torch.Tensor) -> torch.Tensor:
        """Return logits (n, outputs) of embeddings (n, width); with ArcFace the scaled cosines, without margin."""
        if self._scale is None:
            logits: torch.Tensor = self.head(embedded)
            return logits
        directions = nn.functional.normalize(embedded), nn.functional.normalize(self.head.weight)
        return self._scale * nn.functional.linear(*directions)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, outputs) of RGB images in [0, 1], (n, 3, height, width)."""
        return self.logits(self.embed(images))


def _create(backbone: str, size: tuple[int, int]) -> nn.Module:
    """A network for an image size; only transformers have the argument `img_size`, other networks take any size."""
    try:
        network: nn.Module = timm.create_model(backbone, pretrained=False, num_classes=0, img_size=size)
    except TypeError:
        network = timm.create_model(backbone, pretrained=False, num_classes=0)
    return network


def _width(features: nn.Module, size: tuple[int, int]) -> int:
    """Number of pooled features, measured by a forward pass, because some networks have layers after their pooling."""
    training = features.training
    features.eval()
    with torch.no_grad():
        width = int(features(torch.zeros(1, 3, *size)).shape[1])
    features.train(training)
    return width


def build(backbone: str, outputs: int, settings: Settings, weights: Weights | None, seed: int) -> Classifier:
    """Build a classifier with its first weights.

    Args:
        backbone: timm's name.
        outputs: number of outputs.
        settings: settings of the run.
        weights: weights of the backbone; None if the caller loads all weights.
        seed: seed of the head, and of random weights.
    """
    with seeded(seed):
        network = Classifier(backbone, outputs, settings)
    if weights is not None:
        adapt = getattr(import_module(type(network.features).__module__), "checkpoint_filter_fn", None)
        load_into(network.features, backbone, weights, seed, adapt)
    # Channels last are faster on the cpu. Rounding depends on the layout, so trained and loaded networks need the same
    # layout for equal predictions.
    return network.to(memory_format=torch.channels_last)
