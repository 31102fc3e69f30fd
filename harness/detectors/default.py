"""The default way of a detector: `learn` once, `score` in batches. A method that shares work has stages of its own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores
from harness.detectors.stages import Stage

if TYPE_CHECKING:
    from harness.detectors.base import Detector, State

IMAGES = 16  # scored at a time


@dataclass(frozen=True)
class Learnt(Stage):
    """What a detector keeps of the training images.

    Attributes:
        features: of the training images.
        key: all that the result depends on beside the features; two detectors of one key share the stage.
        detector: one of those.
    """

    features: Features
    key: Hashable
    detector: Detector = field(compare=False, repr=False)

    title: ClassVar[str] = "fit"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """The state, on the device."""
        maps: FeatureMaps = inputs[0]
        on_device = {layer: context.to_device(maps[layer]) for layer in self.detector.needed_layers()}
        return self.detector.learn(on_device)


@dataclass(frozen=True)
class BatchScores(Stage):
    """A detector's scores for the images of one role, a batch at a time.

    Attributes:
        learnt: of the training images.
        features: of the images to be scored.
    """

    learnt: Learnt
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Scores of all images."""
        state, maps = inputs
        detector, device = self.learnt.detector, context.device.torch
        state = {name: tensor.to(device) for name, tensor in state.items()}
        size = context.images[self.features.role].view.input_size
        count, batches = len(context.images[self.features.role]), []
        for first in range(0, count, IMAGES):
            batch = {layer: maps[layer][first : first + IMAGES].to(device) for layer in detector.needed_layers()}
            batches.append(detector.score(state, batch, size))
            context.at(first + IMAGES, count)
        return Scores(torch.cat([one.images for one in batches]), torch.cat([one.maps for one in batches]))


class ScoringHead(nn.Module):
    """A detector's `score` as a module for export.

    Args:
        detector: fitted.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._detector, self._names = detector, tuple(detector.fitted())
        for number, name in enumerate(self._names):
            self.register_buffer(f"state{number}", detector.fitted()[name].detach().cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Features by layer -> scores (n,), maps (n, height, width)."""
        state = {name: self.get_buffer(f"state{number}") for number, name in enumerate(self._names)}
        scores = self._detector.score(state, features, self._detector.view.input_size)
        return scores.images, scores.maps
