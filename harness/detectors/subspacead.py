"""SubspaceAD: Lendering et al., SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling, CVPR 2026
(arXiv:2602.23013).

The principal components of the patches of normal images span a subspace. The score of a patch is its squared distance
to this subspace.

Differences from the paper's code: rotations divide the circle evenly, where the code draws 30 random angles. The
Gaussian of the maps has its full width, where the code cuts it to 3 x 3 pixels. Layers of different widths are
concatenated, so that a convolutional network can be the backbone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch.nn import functional as F

from harness.backbones.layers import chosen_layers
from harness.common.errors import ConfigError
from harness.detectors.arguments import check_whole
from harness.detectors.base import Detector, State
from harness.detectors.context import StageContext
from harness.detectors.embedding import Embedding, ImagePatches, PatchPasses
from harness.detectors.features import FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores, mean_of_largest, smooth
from harness.detectors.moments import Components, Moments, check_share
from harness.detectors.options import Options
from harness.detectors.stages import Stage

FUSIONS = ("mean", "concatenate")


class SubspaceAD(Detector):
    """SubspaceAD (Lendering et al., CVPR 2026): a patch is as anomalous as it is far from the subspace of normal ones.

    Principal component analysis finds the subspace. The method needs no training and no memory bank. The score of an
    image is the mean of the largest 1% of its map.

    Args:
        backbone: a name of timm.
        layers: whose features are fused; by default those between 55% and 70% of the depth, as in the paper.
        explained_variance: share of the variance inside the subspace, above 0 and up to 1.
        fusion: `mean` of the layers, as in the paper, or `concatenate`; by default the mean where all layers have the
            same number of channels.
        rotations: number of rotations of each training image; the paper's few-shot results use 30.
        options: see `Options`.
    """

    name = "subspacead"

    def __init__(
        self,
        backbone: str = "vit_small_patch14_dinov2",
        layers: Sequence[str] = ("55%", "65%", "70%"),
        explained_variance: float = 0.99,
        fusion: str | None = None,
        rotations: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_share("explained_variance", explained_variance)
        check_whole("rotations", rotations)
        widths = [layer.channels for layer in chosen_layers(backbone, self.layers)]
        if fusion not in {None, *FUSIONS}:
            raise ConfigError(f"fusion: found {fusion!r}, expected {' or '.join(FUSIONS)}.")
        if fusion == "mean" and len(set(widths)) > 1:
            raise ConfigError(
                f"fusion: found mean of layers with {', '.join(map(str, widths))} channels; expected equal numbers, or "
                "fusion: concatenate."
            )
        self.fusion = fusion or ("mean" if len(set(widths)) == 1 else "concatenate")
        self.explained_variance = explained_variance
        self.rotations = rotations

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"explained_variance": self.explained_variance, "fusion": self.fusion, "rotations": self.rotations}

    def timing_key(self) -> Hashable:
        """The parameters that affect the time of an image."""
        return self.name, self.layers, self.fusion, self.explained_variance

    def sharing_key(self) -> Hashable:
        """Detectors with equal keys have the moments in common."""
        return super().sharing_key(), self.fusion

    def _fused(self, role: str, group: Group) -> PatchPasses:
        return PatchPasses(Fused(self.features(role, group), self.layers, self.fusion))

    def fit_stage(self, group: Group) -> Stage:
        """The stage that selects the components; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return Subspace(Moments(self._fused("train", group)), self.explained_variance)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        shares = {other.explained_variance for other in group.alike(self)}
        moments = Moments(self._fused("train", group))
        residuals = Residuals(moments, self._fused(role, group), tuple(sorted(shares)))
        return SubspaceScores(residuals, self.explained_variance)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the distances to the subspace.

        Args:
            state: `mean` (d,) and `components` (k, d).
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        fused = fuse(features, self.layers, self.fusion)
        deviations = fused.flatten(2).mT - state["mean"]
        rest = deviations - deviations @ state["components"].T @ state["components"]
        return _scores(rest.square().sum(dim=2).reshape(-1, *fused.shape[2:]), size)


def fuse(maps: FeatureMaps, layers: tuple[str, ...], fusion: str) -> torch.Tensor:
    """Fuse the features of several layers.

    Args:
        maps: features by layer, (n, channels, h, w) each.
        layers: layers to fuse; the maps of the others are interpolated bilinearly to the grid of the first.
        fusion: mean or concatenate.

    Returns:
        (n, channels, height, width of the first layer).
    """
    grid = maps[layers[0]].shape[-2:]
    aligned = [
        maps[layer]
        if maps[layer].shape[-2:] == grid
        else F.interpolate(maps[layer], size=grid, mode="bilinear", align_corners=False)
        for layer in layers
    ]
    return torch.stack(aligned).mean(dim=0) if fusion == "mean" else torch.cat(aligned, dim=1)


def _scores(residuals: torch.Tensor, size: tuple[int, int]) -> Scores:
    maps = smooth(residuals, size)
    return Scores(mean_of_largest(maps.flatten(1)), maps)


@dataclass(frozen=True)
class Fused(Embedding):
    """Fused features of all patches of a role.

    Attributes:
        fusion: mean or concatenate.
    """

    fusion: str

    def embed(self, maps: FeatureMaps) -> torch.Tensor:
        """Fuse the layers of a batch; see `fuse`.

        Args:
            maps: features by layer.
        """
        return fuse(maps, self.layers, self.fusion)


@dataclass(frozen=True)
class Subspace(Stage):
    """The state of one SubspaceAD.

    Attributes:
        moments: components of the training images.
        share: share of the variance inside the subspace.
    """

    moments: Moments
    share: float

    title: ClassVar[str] = "subspace"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the first components.

        Args:
            context: context of the stage.
            inputs: all components.

        Returns:
            `mean` (d,) and `components` (k, d).
        """
        del context
        components: Components = inputs[0]
        chosen = components.axes[:, : components.number(self.share)]
        return {"mean": components.mean.float(), "components": chosen.T.contiguous().float()}


@dataclass(frozen=True)
class Residuals(Stage):
    """Squared distances to the subspaces of several shares: the tails of one sum over all components.

    Attributes:
        moments: components of the training images.
        patches: patches of the scored images.
        shares: shares of the variance.
    """

    moments: Moments
    patches: PatchPasses
    shares: tuple[float, ...]

    title: ClassVar[str] = "residuals"

    def compute(self, context: StageContext, *inputs: Any) -> dict[float, torch.Tensor]:
        """Compute the distances (images, h, w) for each share.

        Args:
            context: device and progress.
            inputs: all components, and patches of the scored images.
        """
        components: Components = inputs[0]
        patches: ImagePatches = inputs[1]
        device = context.device.torch
        mean, axes = components.mean.float().to(device), components.axes.float().to(device)
        few = axes.shape[1] < len(mean)
        numbers = {share: components.number(share) for share in self.shares}
        residuals = {share: torch.empty(patches.shape[0] // patches.per_image, *patches.grid) for share in self.shares}
        for image, vectors in enumerate(patches.of_each_image()):
            deviations = vectors.to(device) - mean
            squares = (deviations @ axes).square()
            # Few training patches span a part of the space only.
            outside = (deviations.square().sum(dim=1) - squares.sum(dim=1)).clamp_min(0) if few else 0.0
            for share, number in numbers.items():
                residuals[share][image] = (squares[:, number:].sum(dim=1) + outside).reshape(patches.grid).cpu()
            context.report((image + 1) * patches.per_image, patches.shape[0])
        return residuals


@dataclass(frozen=True)
class SubspaceScores(Stage):
    """The scores of one SubspaceAD.

    Attributes:
        residuals: squared distances for several shares.
        share: share of the variance inside the subspace.
    """

    residuals: Residuals
    share: float

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute maps and image scores.

        Args:
            context: size of the maps.
            inputs: squared distances by share.
        """
        size = context.images[self.residuals.patches.embedding.features.role].input_size
        return _scores(inputs[0][self.share], size)
