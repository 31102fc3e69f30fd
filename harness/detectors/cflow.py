"""CFlow: Gudovskiy et al., CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows, WACV 2022 (arXiv:2107.12571).

For each layer, a flow learns the likelihood of a feature vector at its position. Unlikely vectors are anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from FrEIA.framework import SequenceINN
from torch import nn

from harness.backbones.layers import chosen_layers
from harness.common.errors import ConfigError
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.base import Detector, State
from harness.detectors.context import StageContext
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.flows import Flow, all_seeded, build_flows, likelihood_maps, log_likelihood, positions, train
from harness.detectors.group import Group
from harness.detectors.maps import Scores, concatenate, upsample
from harness.detectors.options import Options
from harness.detectors.stages import Stage

LARGEST = "largest."


class CFlow(Detector):
    """CFLOW-AD (Gudovskiy et al., WACV 2022): a flow learns how likely a feature vector is at its position.

    An unlikely vector is anomalous. Scores relate to the largest likelihood in the training set. The paper takes the
    largest one in the test set, and then the score of an image depends on the other images.

    Args:
        backbone: a name of timm.
        layers: one flow for each.
        coupling_blocks: number of coupling blocks in a flow.
        condition_vector: length of the position's encoding; a multiple of 4.
        clamp_alpha: limit of the scales in a coupling block.
        fiber_batch_size: feature vectors in a training step.
        lr: learning rate.
        max_epochs: epochs of the training.
        options: see `Options`.
    """

    name = "cflow"
    uses_seed = True
    trains_in_epochs = True
    # Scores relate to the largest likelihood of a training, so two trainings differ in scale.
    # So out-of-fold scores underestimate the false alarms of the final model (`python -m benchmarks trust`).
    default_folds = None

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3", "layer4"),
        coupling_blocks: int = 8,
        condition_vector: int = 128,
        clamp_alpha: float = 1.9,
        fiber_batch_size: int = 64,
        lr: float = 0.0001,
        max_epochs: int = 50,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_whole("coupling_blocks", coupling_blocks)
        check_whole("fiber_batch_size", fiber_batch_size)
        check_whole("max_epochs", max_epochs)
        check_whole("condition_vector", condition_vector, minimum=4)
        check_number("lr", lr, "a number above 0", 0)
        check_number("clamp_alpha", clamp_alpha, "a number above 0", 0)
        if condition_vector % 4:
            raise ConfigError(f"condition_vector: found {condition_vector}, expected a multiple of 4.")
        self.flow = Flow(coupling_blocks, condition_vector, clamp_alpha, fiber_batch_size, lr, max_epochs)
        self._flows: dict[str, SequenceINN] | None = None

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return dict(vars(self.flow))

    def fit_stage(self, group: Group) -> TrainedFlows:
        """The stage that trains the flows; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return TrainedFlows(self.features("train", group), self.layers, self.flow, self.seed)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        return CFlowScores(self.fit_stage(group), self.features(role, group))

    def head(self) -> nn.Module:
        """The trained flows as a module for export."""
        widths = [layer.channels for layer in chosen_layers(self.backbone, self.layers)]
        return CFlowHead(self.fitted(), self.layers, widths, self.grids(), self.flow, self.preprocessing.input_size)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the likelihoods of its features.

        Args:
            state: result of the training.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        if self._flows is None:
            widths = {layer: features[layer].shape[1] for layer in self.layers}
            self._flows = build_flows(self.flow, widths, state)
        return _scores(state, self._flows, features, self.flow, size)

    def forget(self) -> None:
        """Delete the state, the network and the flows."""
        super().forget()
        self._flows = None


class CFlowHead(nn.Module):
    """The trained flows as a module for export.

    Args:
        state: result of the training.
        layers: layers of the flows.
        widths: number of channels of each layer.
        grids: (height, width) of each layer's map.
        flow: architecture of the flows.
        size: (height, width) of the anomaly maps.
    """

    def __init__(
        self,
        state: State,
        layers: Sequence[str],
        widths: Sequence[int],
        grids: Sequence[tuple[int, int]],
        flow: Flow,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self._layers, self._size = tuple(layers), size
        on_cpu = {name: tensor.cpu() for name, tensor in state.items()}
        flows = build_flows(flow, dict(zip(layers, widths, strict=True)), on_cpu)
        self.flows = nn.ModuleList(flows[layer] for layer in layers)
        for number, (layer, grid) in enumerate(zip(layers, grids, strict=True)):
            self.register_buffer(f"positions{number}", positions(flow.condition_vector, *grid))
            self.register_buffer(f"largest{number}", on_cpu[LARGEST + layer])

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        maps = []
        for number, layer in enumerate(self._layers):
            images, grid = features[layer].shape[0], features[layer].shape[2:]
            encoding = self.get_buffer(f"positions{number}")
            conditions = encoding[None].expand(images, -1, -1).flatten(0, 1)
            likelihood = log_likelihood(self.flows[number], rows(features[layer]), conditions)
            probability = torch.exp(likelihood - self.get_buffer(f"largest{number}"))
            maps.append(1 - upsample(probability.reshape(-1, *grid), self._size, corners=True))
        total = torch.stack(maps).sum(dim=0)
        return total.amax(dim=(1, 2)), total


@dataclass(frozen=True)
class TrainedFlows(Stage):
    """Trained flows.

    Attributes:
        features: features of the training images.
        layers: layers of the flows.
        flow: architecture and training of the flows.
        seed: seed of the initial parameters and of the order of the vectors.
    """

    features: Features
    layers: tuple[str, ...]
    flow: Flow
    seed: int

    title: ClassVar[str] = "training"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Train the flows.

        Args:
            context: device and progress.
            inputs: features by layer.

        Returns:
            `<layer>:<parameter>` of each flow, and `largest.<layer>`, the largest training log-likelihood.
        """
        maps = {layer: inputs[0][layer] for layer in self.layers}
        device = context.device.torch
        with all_seeded(self.seed):
            flows = build_flows(self.flow, {layer: features.shape[1] for layer, features in maps.items()})
            for decoder in flows.values():
                decoder.to(device)
            train(
                flows,
                maps,
                self.flow,
                device,
                context.report,
                lambda epoch: context.observe(epoch, lambda: self._state(flows, maps)),
            )
        return self._state(flows, maps)

    def _state(self, flows: dict[str, SequenceINN], maps: FeatureMaps) -> State:
        state: State = {}
        for layer, decoder in flows.items():
            state |= {f"{layer}:{name}": value.detach().clone() for name, value in decoder.state_dict().items()}
            device = next(decoder.parameters()).device
            images = (likelihood_maps(decoder, image[None].to(device), self.flow) for image in maps[layer])
            state[LARGEST + layer] = torch.stack([likelihoods.max() for likelihoods in images]).max()
        return state


@dataclass(frozen=True)
class CFlowScores(Stage):
    """The scores of one CFlow.

    Attributes:
        flows: trained flows.
        features: features of the scored images.
    """

    flows: TrainedFlows
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Score the images one by one.

        Args:
            context: context of the stage.
            inputs: the trained flows, and features by layer.
        """
        state, maps = inputs[0], {layer: inputs[1][layer] for layer in self.flows.layers}
        widths = {layer: maps[layer].shape[1] for layer in self.flows.layers}
        flows = build_flows(self.flows.flow, widths, state)
        size, device = context.images[self.features.role].input_size, context.device.torch
        count, scores = len(next(iter(maps.values()))), []
        for i in range(count):
            image = {layer: values[i : i + 1].to(device) for layer, values in maps.items()}
            scores.append(_scores(state, flows, image, self.flows.flow, size))
            context.report(i + 1, count)
        return concatenate(scores)


def _scores(
    state: State, flows: dict[str, SequenceINN], maps: FeatureMaps, flow: Flow, size: tuple[int, int]
) -> Scores:
    """Section 3.4: each layer adds 1 minus its upsampled likelihood, relative to the largest training likelihood."""
    total = torch.zeros(len(next(iter(maps.values()))), *size, device=next(iter(maps.values())).device)
    for layer, decoder in flows.items():
        probability = torch.exp(likelihood_maps(decoder, maps[layer], flow) - state[LARGEST + layer])
        total += 1 - upsample(probability, size, corners=True)
    return Scores(total.amax(dim=(1, 2)), total)
