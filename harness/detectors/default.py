"""The default stages of a detector: `learn` once, `score` in batches. Methods that share work define other stages."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores, concatenate
from harness.detectors.stages import Stage

if TYPE_CHECKING:
    from harness.detectors.base import Detector, State

IMAGES = 16  # batch size


@dataclass(frozen=True)
class Learnt(Stage):
    """The state of a detector after `learn`.

    Attributes:
        features: features of the training images.
        key: everything else that the result depends on; detectors with equal keys share the stage.
        detector: one of these detectors.
    """

    features: Features
    key: Hashable
    detector: Detector = field(compare=False, repr=False)

    title: ClassVar[str] = "fit"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Call `learn` with the features on the device.

        Args:
            context: context of the stage.
            inputs: features by layer.
        """
        maps: FeatureMaps = inputs[0]
        on_device = {layer: context.to_device(maps[layer]) for layer in self.detector.needed_layers()}
        return self.detector.learn(on_device)


@dataclass(frozen=True)
class BatchScores(Stage):
    """A detector's scores for the images of one role, a batch at a time.

    Attributes:
        learnt: state after training.
        features: features of the scored images.
    """

    learnt: Learnt
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Call `score` for each batch.

        Args:
            context: context of the stage.
            inputs: the state, and features by layer.
        """
        state, maps = inputs
        detector, device = self.learnt.detector, context.device.torch
        state = {name: tensor.to(device) for name, tensor in state.items()}
        size = context.images[self.features.role].input_size
        layers = {layer: maps[layer] for layer in detector.needed_layers()}
        count, scores = len(next(iter(layers.values()))), []
        for first in range(0, count, IMAGES):
            batch = {layer: values[first : first + IMAGES].to(device) for layer, values in layers.items()}
            scores.append(detector.score(state, batch, size))
            context.report(first + IMAGES, count)
        return concatenate(scores)


class ScoringHead(nn.Module):
    """A detector's `score` as a module for export.

    Args:
        detector: a fitted detector.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._detector, self._names = detector, tuple(detector.fitted())
        for number, name in enumerate(self._names):
            self.register_buffer(f"state{number}", detector.fitted()[name].detach().cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        state = {name: self.get_buffer(f"state{number}") for number, name in enumerate(self._names)}
        scores = self._detector.score(state, features, self._detector.preprocessing.input_size)
        return scores.images, scores.maps
