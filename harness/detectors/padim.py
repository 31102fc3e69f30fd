"""PaDiM: Defard et al., PaDiM: a Patch Distribution Modeling Framework, ICPR 2021 (arXiv:2011.08785).

At each position of the image, a Gaussian models the features of normal images. The score of a patch is its Mahalanobis
distance. The method expects aligned objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import nn

from harness.backbones.layers import chosen_layers
from harness.common.errors import ConfigError, DataError
from harness.detectors.arguments import check_whole
from harness.detectors.base import Detector, State
from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.gaussian import Vectors, fit_gaussians, mahalanobis
from harness.detectors.group import Group
from harness.detectors.maps import Scores, smooth
from harness.detectors.options import Options
from harness.detectors.stages import Stage

# The paper's numbers of channels (section V-A).
PAPER_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}


class PaDiM(Detector):
    """PaDiM (Defard et al., ICPR 2021): the features of normal images at each position are one Gaussian.

    The score of a patch is its Mahalanobis distance. PaDiM expects parts that are aligned.

    Args:
        backbone: a name of timm.
        layers: whose channels are concatenated; the first layer gives the grid.
        n_features: number of channels, drawn from the seed; by default the paper's number, where it has one.
        options: see `Options`.
    """

    name = "padim"
    uses_seed = True
    least_images = 2  # a covariance needs two images

    def __init__(
        self,
        backbone: str = "resnet18",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        n_features: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        width = sum(layer.channels for layer in chosen_layers(backbone, self.layers))
        number = PAPER_FEATURES.get(backbone) if n_features is None else n_features
        if number is not None:
            check_whole("n_features", number)
        if number is None or number > width:
            problem = "none given, and the paper has no number for" if number is None else f"found {number} of"
            network = f"{backbone} {'+'.join(self.layers)}"
            raise ConfigError(f"n_features: {problem} {network}; expected 1 to {width}, the width of the layers.")
        self.n_features = number
        # A prefix of one permutation: fewer channels are always a subset of more channels.
        self._channels = torch.randperm(width, generator=torch.Generator().manual_seed(self.seed))[:number]

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"n_features": self.n_features}

    def fit_stage(self, group: Group) -> Gaussians:
        """The stage that estimates the Gaussians; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return Gaussians(self.features("train", group), self.layers, tuple(self._channels.tolist()))

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        return PaDiMScores(self.fit_stage(group), self.features(role, group))

    def head(self) -> nn.Module:
        """The Gaussians as a module for export."""
        widths = [layer.channels for layer in chosen_layers(self.backbone, self.layers)]
        return PaDiMHead(self.fitted(), self.layers, self.grids(), widths, self.preprocessing.input_size)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by Mahalanobis distances.

        Args:
            state: the Gaussians.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        return _scores(state, [features[layer] for layer in self.layers], size, self.device.torch)


class PaDiMHead(nn.Module):
    """The Gaussians as a module for export. The factors are inverted once, so scoring needs only products.

    Args:
        state: the Gaussians.
        layers: layers in the order of the concatenation.
        grids: (height, width) of each layer's map.
        widths: number of channels of each layer.
        size: (height, width) of the anomaly maps.
    """

    def __init__(
        self,
        state: State,
        layers: Sequence[str],
        grids: Sequence[tuple[int, int]],
        widths: Sequence[int],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self._layers, self._size, self._grid = tuple(layers), size, grids[0]
        inverse = torch.linalg.inv(state["factor"].cpu().double()).float()
        self.register_buffer("inverse", inverse)
        self.register_buffer("mean", state["mean"].cpu().T[None].clone())
        channels = state["channels"].cpu()
        places, offset = [], 0
        for number, (grid, width) in enumerate(zip(grids, widths, strict=True)):
            place = torch.nonzero((channels >= offset) & (channels < offset + width))[:, 0]
            self.register_buffer(f"channels{number}", channels[place] - offset)
            for side, (length, first_length) in enumerate(zip(grid, self._grid, strict=True)):
                self.register_buffer(f"places{number}{side}", torch.arange(first_length) * length // first_length)
            places.append(place)
            offset += width
        self.register_buffer("back", torch.argsort(torch.cat(places)))

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        maps = []
        for number, layer in enumerate(self._layers):
            values = features[layer].index_select(1, self.get_buffer(f"channels{number}"))
            values = values.index_select(2, self.get_buffer(f"places{number}0"))
            maps.append(values.index_select(3, self.get_buffer(f"places{number}1")))
        vectors = torch.cat(maps, dim=1).index_select(1, self.get_buffer("back")).flatten(2)
        delta = (vectors - self.get_buffer("mean")).permute(2, 1, 0)
        distances = (self.get_buffer("inverse") @ delta).square().sum(dim=1).sqrt().T
        anomaly_maps = smooth(distances.reshape(-1, *self._grid), self._size)
        return anomaly_maps.amax(dim=(1, 2)), anomaly_maps


@dataclass(frozen=True)
class Gaussians(Stage):
    """Mean and Cholesky factor of each position.

    Attributes:
        features: features of the training images.
        layers: layers in the order of the concatenation.
        channels: numbers of the selected channels in the concatenation.
    """

    features: Features
    layers: tuple[str, ...]
    channels: tuple[int, ...]

    title: ClassVar[str] = "gaussians"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Estimate the Gaussians.

        Args:
            context: device, memory and progress.
            inputs: features by layer.

        Returns:
            `mean` (positions, channels), `factor` (positions, channels, channels) and `channels`.

        Raises:
            DataError: there are fewer than two images.
        """
        maps = [inputs[0][layer] for layer in self.layers]
        if len(maps[0]) < 2:
            raise DataError(f"padim: {len(maps[0])} training image found; a covariance needs at least 2. Add images.")
        channels = torch.tensor(self.channels)
        positions, width = maps[0].shape[2] * maps[0].shape[3], len(channels)
        mean = context.memory.tensor(positions, width)
        factor = context.memory.tensor(positions, width, width)
        fit_gaussians(Vectors(maps, channels), mean, factor, context.device.torch, context.report)
        return {"mean": mean, "factor": factor, "channels": channels}


@dataclass(frozen=True)
class PaDiMScores(Stage):
    """The scores of one PaDiM.

    Attributes:
        gaussians: Gaussians of the training images.
        features: features of the scored images.
    """

    gaussians: Gaussians
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute the maps; the score of an image is the largest value of its map.

        Args:
            context: context of the stage.
            inputs: the Gaussians, and features by layer.
        """
        state, maps = inputs
        size = context.images[self.features.role].input_size
        return _scores(state, [maps[layer] for layer in self.gaussians.layers], size, context.device.torch)


def _scores(state: State, maps: Sequence[torch.Tensor], size: tuple[int, int], device: torch.device) -> Scores:
    channels = state["channels"].cpu()
    images, _, height, width = maps[0].shape
    distances = mahalanobis(Vectors(maps, channels), state["mean"], state["factor"], device)
    smoothed = smooth(distances.reshape(images, height, width), size)
    return Scores(smoothed.amax(dim=(1, 2)), smoothed)
