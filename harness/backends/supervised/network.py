"""A classifier: a timm network, dropout, an activation and a linear head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import timm
import torch
from timm.layers import DropPath
from torch import nn

from harness.backbones.inject import load_into, seeded
from harness.backbones.resolve import Weights
from harness.backends.supervised.batch_norm import set_momentum
from harness.backends.supervised.settings import Settings
from harness.common.errors import ConfigError


class Classifier(nn.Module):
    """A timm network with a linear head on its pooled features, or on the logits of its own classifier.

    Args:
        backbone: timm's name.
        outputs: number of outputs.
        settings: settings of the run.

    Attributes:
        width: number of inputs of the head.
        mean: mean of the input normalisation, (1, 3, 1, 1).
        std: standard deviation of the input normalisation, (1, 3, 1, 1).

    Raises:
        ConfigError: the network has no stochastic depth, or no classifier, but the settings need it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: str, outputs: int, settings: Settings) -> None:
        super().__init__()
        self.features = _create(backbone, settings)
        if settings.bn_momentum is not None:
            set_momentum(self.features, settings.bn_momentum)
        self.width = _width(self.features, settings.image_size)
        self.activation = nn.SiLU() if settings.head_activation == "silu" else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        self._dropout_first = settings.head == "logits"
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

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay, such as position embeddings; timm asks for them."""
        names: set[str] = getattr(self.features, "no_weight_decay", set)()
        return {f"features.{name}" for name in names}

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the features for RGB images in [0, 1], both (n, 3, height, width)."""
        normalised: torch.Tensor = (images - self.mean) / self.std
        return normalised

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, (n, width), for RGB images in [0, 1], (n, 3, height, width)."""
        return self._head_input(self.features(self.normalised(images)))

    def _head_input(self, features: torch.Tensor) -> torch.Tensor:
        layers = (self.dropout, self.activation) if self._dropout_first else (self.activation, self.dropout)
        for layer in layers:
            features = layer(features)
        return features

    def last_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return timm's features before the pooling for RGB images in [0, 1], (n, 3, height, width)."""
        extract: Any = self.features.forward_features
        features: torch.Tensor = extract(self.normalised(images))
        return features

    def logits_of(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, outputs) of the features that `last_features` returns."""
        pool: Any = self.features.forward_head
        return self.logits(self._head_input(pool(features)))

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


@dataclass(frozen=True)
class Member:
    """One network of a run.

    Attributes:
        fold: number of the fold that is the network's validation subset.
        part: class of a one-class network; "" for a network of all labels.
        own: positions of the network's labels.
        network: the network, in evaluation mode.
        repeat: number of the network among those of the same class and fold, from 0.
    """

    fold: int
    part: str
    own: tuple[int, ...]
    network: Classifier
    repeat: int = 0


def _create(backbone: str, settings: Settings) -> nn.Module:
    """A network for an image size; only transformers have the argument `img_size`, other networks take any size."""
    options: dict[str, Any] = {} if settings.head == "logits" else {"num_classes": 0}
    if settings.drop_path_rate:
        options["drop_path_rate"] = settings.drop_path_rate
    create = partial(timm.create_model, backbone, pretrained=False, **options)
    try:
        try:
            network: nn.Module = create(img_size=settings.image_size)
        except TypeError:
            network = create()
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise _no_stochastic_depth(backbone, settings) from error
    # Some networks accept the argument and ignore it.
    if settings.drop_path_rate and not any(isinstance(layer, DropPath) for layer in network.modules()):
        raise _no_stochastic_depth(backbone, settings)
    if settings.head == "logits" and not network.num_classes:
        raise ConfigError(f"head: found logits, but {backbone} has no classifier of its own; expected pooled.")
    return network


def _no_stochastic_depth(backbone: str, settings: Settings) -> ConfigError:
    return ConfigError(
        f"drop_path_rate: found {settings.drop_path_rate:g}, but {backbone} has no stochastic depth; expected 0."
    )


def _width(features: nn.Module, size: tuple[int, int]) -> int:
    """Number of outputs of a network, measured by a forward pass, since some have layers after their pooling."""
    training = features.training
    features.eval()
    with torch.no_grad():
        width = int(features(torch.zeros(1, 3, *size)).shape[1])
    features.train(training)
    return width


def refusal(network: nn.Module, size: tuple[int, int]) -> str:
    """Return why a network takes no images of a size; empty where it takes them. A trial on a blank image decides.

    Args:
        network: in evaluation mode.
        size: (height, width) of the images.
    """
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, *size, device=device))
    # The type of the error depends on the network; transformers mostly raise an AssertionError.
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return ""


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
