"""Dinomaly: Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025
(arXiv:2405.14325).

A decoder learns to reconstruct features of a frozen vision transformer from a noisy mean of its blocks. The decoder
sees normal images only, so that it reconstructs anomalous patches badly.

Differences from the paper's code:

- The decoder trains on stored features. They are exact, since the encoder is frozen and images are not augmented.
- The default backbone is small and without registers, and the default training has 200 steps. The paper has
  `vit_base_patch14_reg4_dinov2` and 5,000 steps for a category. A shorter training shortens the warm-up of the learning
  rate and the schedule of the loss in proportion.
- The default image is 392 x 392 without a crop. `image_size: 448` with `center_crop: 392` is the paper's.
- A set of fewer images than a batch trains with batches of all images; the paper's code needs a full batch.
- Maps are not smoothed, as in anomalib. The paper's code smooths a map of 256 x 256 pixels; here image scores use it.
- With another number of blocks than 8, both halves of all blocks of encoder and decoder are compared.

anomalib's linear layers in MLPs have no biases; those of the paper's code and of this file have some.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from math import nextafter
from typing import Any, Unpack

import torch
from torch import nn
from torch.func import functional_call

from harness.backbones.networks import whole_network
from harness.common.errors import ConfigError
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.base import Detector, State
from harness.detectors.dinomaly_stages import Blocks, TrainedDecoder, Training
from harness.detectors.features import FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores
from harness.detectors.options import Options
from harness.detectors.reconstruction import Architecture, Reconstruction, in_groups

GROUPS = 2  # means of blocks that the decoder reconstructs; one for a single block


class Dinomaly(Detector):
    """Dinomaly (Guo et al., CVPR 2025): a patch is as anomalous as a decoder fails to reconstruct its features.

    The score of an image is the mean of the largest 1% of its map.

    Args:
        backbone: a plain vision transformer of timm; the paper uses DINOv2 with registers.
        layers: blocks to reconstruct. Their first half makes one mean, and their second half the other.
        decoder_depth: number of blocks of the decoder.
        bottleneck_dropout: share of the bottleneck's values that are zero in training.
        max_steps: steps of the training; 5000 in the paper for one category, which needs a GPU.
        max_epochs: passes over the training images at most; by default no limit.
        train_batch_size: images in a step.
        lr: largest learning rate.
        options: see `Options`.
    """

    name = "dinomaly"
    default_image_size = 392
    only_transformers = True
    uses_seed = True
    trains_in_epochs = True
    # Each fold would be a whole training. Out-of-fold scores are near those of the final model in a small measurement
    # (`python -m benchmarks trust --only false_alarms_dinomaly`), but the default must not train six times.
    default_folds = None

    def __init__(
        self,
        backbone: str = "vit_small_patch14_dinov2",
        layers: Sequence[str] = ("20%", "29%", "37%", "45%", "54%", "62%", "70%", "79%"),
        decoder_depth: int = 8,
        bottleneck_dropout: float = 0.2,
        max_steps: int = 200,
        max_epochs: int | None = None,
        train_batch_size: int = 16,
        lr: float = 0.002,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_whole("decoder_depth", decoder_depth, minimum=GROUPS)
        check_whole("max_steps", max_steps)
        check_whole("train_batch_size", train_batch_size)
        if max_epochs is not None:
            check_whole("max_epochs", max_epochs)
        check_number("lr", lr, "a number above 0", 0)
        share = "a share from 0 to below 1"
        check_number("bottleneck_dropout", bottleneck_dropout, share, nextafter(0, -1), nextafter(1, 0))
        network: Any = whole_network(backbone)
        heads = getattr(getattr(network.blocks[0], "attn", None), "num_heads", None)
        if heads is None:
            raise ConfigError(
                f"backbone: found {backbone}, whose blocks have no heads of attention; {self.name} expects a plain "
                "vision transformer, such as vit_small_patch14_dinov2."
            )
        groups = in_groups(self.layers, min(GROUPS, len(self.layers)))
        self.blocks = Blocks(tuple(map(tuple, groups)), bool(getattr(network, "num_prefix_tokens", 0)))
        self.architecture = Architecture(
            int(network.num_features), int(heads), decoder_depth, bottleneck_dropout, len(groups)
        )
        self.training = Training(max_steps, max_epochs, train_batch_size, lr)
        with torch.device("meta"):
            self._network = Reconstruction(self.architecture).eval()

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        training = self.training
        return {"decoder_depth": self.architecture.depth, "bottleneck_dropout": self.architecture.dropout,
                "max_steps": training.max_steps, "max_epochs": training.max_epochs, "train_batch_size": training.batch,
                "lr": training.lr}  # fmt: skip

    def needed_layers(self) -> tuple[str, ...]:
        """The means of the blocks."""
        return self.blocks.layers()

    def timing_key(self) -> Hashable:
        """The architecture; the training does not change the time of an image."""
        return self.name, self.blocks, self.architecture.depth

    def _learnt(self, group: Group) -> TrainedDecoder:
        features = self.features("train", group)
        return TrainedDecoder(features, self.name, self, self.blocks, self.architecture, self.training, self.seed)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the differences between features and reconstructions.

        Args:
            state: parameters of the trained networks.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        return self.blocks.scores(partial(functional_call, self._network, state), features, size)

    def head(self) -> nn.Module:
        """The trained networks as a module for export."""
        return DinomalyHead(self)


class DinomalyHead(nn.Module):
    """The trained networks as a module for export.

    Args:
        detector: a fitted detector.
    """

    def __init__(self, detector: Dinomaly) -> None:
        super().__init__()
        self._blocks, self._size = detector.blocks, detector.preprocessing.input_size
        self.network = Reconstruction(detector.architecture).eval()
        self.network.load_state_dict(detector.fitted())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        scores = self._blocks.scores(self.network, features, self._size)
        return scores.images, scores.maps
