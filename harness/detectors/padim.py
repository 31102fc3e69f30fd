"""PaDiM: Defard et al., PaDiM: a Patch Distribution Modeling Framework, ICPR 2021 (arXiv:2011.08785).

At each position of the image the features of normal parts are one Gaussian; a patch is as anomalous as its
Mahalanobis distance. It expects parts that are aligned.
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
from harness.detectors.base import Detector, Options, State
from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.gaussian import fit_gaussians, gather, mahalanobis
from harness.detectors.maps import Scores, blur, upsample
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
    least_images = 2  # of which a covariance can be had

    def __init__(
        self,
        backbone: str = "resnet18",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        n_features: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        width = sum(layer.channels for layer in chosen_layers(backbone, self.layers))
        chosen = PAPER_FEATURES.get(backbone) if n_features is None else n_features
        if chosen is not None:
            check_whole("n_features", chosen)
        if chosen is None or chosen > width:
            found = "none given, and the paper has no number for" if chosen is None else f"found {chosen} of"
            where = f"{backbone} {'+'.join(self.layers)}"
            raise ConfigError(f"n_features: {found} {where}; expected 1 to {width}, the width of the layers.")
        self.n_features = chosen
        # Cut from one permutation: a smaller number of channels is the first part of a larger.
        self._channels = torch.randperm(width, generator=torch.Generator().manual_seed(self.seed))[:chosen]

    def parameters(self) -> dict[str, Any]:
        """See `Detector.parameters`."""
        return {"n_features": self.n_features}

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """See `Detector.fit_stage`."""
        return Gaussians(self.features("train", group), self.layers, tuple(self._channels.tolist()))

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """See `Detector.score_stage`."""
        gaussians = Gaussians(self.features("train", group), self.layers, tuple(self._channels.tolist()))
        return PaDiMScores(gaussians, self.features(role, group))

    def head(self) -> nn.Module:
        """See `Detector.head`."""
        grids = self.grids()
        widths = [layer.channels for layer in chosen_layers(self.backbone, self.layers)]
        return PaDiMHead(
            self.fitted(), self.layers, [grids[layer] for layer in self.layers], widths, self.view.input_size
        )

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """See `Detector.score`."""
        return _scores(state, [features[layer] for layer in self.layers], size, self.device.torch)


class PaDiMHead(nn.Module):
    """See `Detector.head`. The factors are inverted once, so that a product takes the place of solving.

    Args:
        state: what was learnt.
        layers: in the order of the concatenation.
        grids: (height, width) of each layer's map.
        widths: channels of each.
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
        order, offset = [], 0
        for number, (grid, width) in enumerate(zip(grids, widths, strict=True)):
            mine = torch.nonzero((channels >= offset) & (channels < offset + width))[:, 0]
            self.register_buffer(f"channels{number}", channels[mine] - offset)
            for side, (own, first) in enumerate(zip(grid, self._grid, strict=True)):
                self.register_buffer(f"places{number}{side}", torch.arange(first) * own // first)
            order.append(mine)
            offset += width
        self.register_buffer("back", torch.argsort(torch.cat(order)))

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Features by layer -> scores (n,), maps (n, height, width)."""
        parts = []
        for number, layer in enumerate(self._layers):
            chosen = features[layer].index_select(1, self.get_buffer(f"channels{number}"))
            chosen = chosen.index_select(2, self.get_buffer(f"places{number}0"))
            parts.append(chosen.index_select(3, self.get_buffer(f"places{number}1")))
        vectors = torch.cat(parts, dim=1).index_select(1, self.get_buffer("back")).flatten(2)
        delta = (vectors - self.get_buffer("mean")).permute(2, 1, 0)
        distances = (self.get_buffer("inverse") @ delta).square().sum(dim=1).sqrt().T
        maps = blur(upsample(distances.reshape(-1, *self._grid), self._size))
        return maps.amax(dim=(1, 2)), maps


@dataclass(frozen=True)
class Gaussians(Stage):
    """Mean and Cholesky factor of every position.

    Attributes:
        features: of the training images.
        layers: in the order of the concatenation.
        channels: which of them are used.
    """

    features: Features
    layers: tuple[str, ...]
    channels: tuple[int, ...]

    title: ClassVar[str] = "gaussians"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """mean (positions, channels), factor (positions, channels, channels), channels."""
        maps = [inputs[0][layer] for layer in self.layers]
        if len(maps[0]) < 2:
            raise DataError(f"padim: {len(maps[0])} training image found; a covariance needs at least 2.")
        channels = torch.tensor(self.channels)
        positions, width = maps[0].shape[2] * maps[0].shape[3], len(channels)
        mean = context.memory.tensor(positions, width)
        factor = context.memory.tensor(positions, width, width)
        device = context.device.torch
        fit_gaussians(lambda first, last: gather(maps, channels, first, last), mean, factor, device, context.at)
        return {"mean": mean, "factor": factor, "channels": channels}


@dataclass(frozen=True)
class PaDiMScores(Stage):
    """What one PaDiM says.

    Attributes:
        gaussians: of the training images.
        features: of the images to be judged.
    """

    gaussians: Gaussians
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Maps, and their largest values."""
        state, maps = inputs
        size = context.images[self.features.role].view.input_size
        return _scores(state, [maps[layer] for layer in self.gaussians.layers], size, context.device.torch)


def _scores(state: State, maps: Sequence[torch.Tensor], size: tuple[int, int], device: torch.device) -> Scores:
    channels = state["channels"].cpu()
    images, _, height, width = maps[0].shape
    distances = mahalanobis(
        lambda first, last: gather(maps, channels, first, last), state["mean"], state["factor"], images, device
    )
    smooth = blur(upsample(distances.reshape(images, height, width), size))
    return Scores(smooth.amax(dim=(1, 2)), smooth)
