"""CFlow: Gudovskiy et al., CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows, WACV 2022 (arXiv:2107.12571).

For each layer, a flow learns how likely a feature vector is at its position; what is unlikely is anomalous.
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
from harness.detectors.base import Detector, Options, State
from harness.detectors.context import StageContext
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.flows import Flow, all_seeded, build_flows, judge, log_likelihood, positions, train
from harness.detectors.maps import Scores, upsample
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
        check_whole("condition_vector", condition_vector, least=4)
        check_number("lr", lr, "a number above 0", 0)
        check_number("clamp_alpha", clamp_alpha, "a number above 0", 0)
        if condition_vector % 4:
            raise ConfigError(f"condition_vector: found {condition_vector}, expected a multiple of 4.")
        self.flow = Flow(coupling_blocks, condition_vector, clamp_alpha, fiber_batch_size, lr, max_epochs)
        self._flows: dict[str, SequenceINN] | None = None

    def parameters(self) -> dict[str, Any]:
        """See `Detector.parameters`."""
        return dict(vars(self.flow))

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """See `Detector.fit_stage`."""
        return TrainedFlows(self.features("train", group), self.layers, self.flow, self.seed)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """See `Detector.score_stage`."""
        flows = TrainedFlows(self.features("train", group), self.layers, self.flow, self.seed)
        return CFlowScores(flows, self.features(role, group))

    def head(self) -> nn.Module:
        """See `Detector.head`."""
        widths = [layer.channels for layer in chosen_layers(self.backbone, self.layers)]
        grids = self.grids()
        where = [grids[layer] for layer in self.layers]
        return CFlowHead(self.fitted(), self.layers, widths, where, self.flow, self.view.input_size)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """See `Detector.score`."""
        if self._flows is None:
            widths = {layer: features[layer].shape[1] for layer in self.layers}
            self._flows = build_flows(self.flow, widths, state)
        return _scores(state, self._flows, features, self.flow, size)

    def forget(self) -> None:
        """See `Detector.forget`."""
        super().forget()
        self._flows = None


class CFlowHead(nn.Module):
    """See `Detector.head`.

    Args:
        state: what was learnt.
        layers: one flow each.
        widths: channels of each.
        grids: (height, width) of each layer's map.
        flow: their shape.
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
        """Features by layer -> scores (n,), maps (n, height, width)."""
        maps = []
        for number, layer in enumerate(self._layers):
            one = features[layer]
            images, grid = one.shape[0], one.shape[2:]
            where = self.get_buffer(f"positions{number}")
            conditions = where[None].expand(images, -1, -1).flatten(0, 1)
            likelihood = log_likelihood(self.flows[number], rows(one), conditions)
            probability = torch.exp(likelihood - self.get_buffer(f"largest{number}"))
            maps.append(1 - upsample(probability.reshape(-1, *grid), self._size, corners=True))
        total = torch.stack(maps).sum(dim=0)
        return total.amax(dim=(1, 2)), total


@dataclass(frozen=True)
class TrainedFlows(Stage):
    """Flows that have learnt the training images.

    Attributes:
        features: of the training images.
        layers: one flow each.
        flow: their shape and training.
        seed: of their initialisation, and of the order of vectors.
    """

    features: Features
    layers: tuple[str, ...]
    flow: Flow
    seed: int

    title: ClassVar[str] = "training"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """<layer>:<parameter> of each flow, and largest.<layer>, the largest training log-likelihood."""
        maps = {layer: inputs[0][layer] for layer in self.layers}
        device = context.device.torch
        with all_seeded(self.seed):
            flows = build_flows(self.flow, {layer: one.shape[1] for layer, one in maps.items()})
            for decoder in flows.values():
                decoder.to(device)
            train(
                flows,
                maps,
                self.flow,
                device,
                context.at,
                lambda epoch: context.observe(epoch, lambda: self._state(flows, maps)),
            )
        return self._state(flows, maps)

    def _state(self, flows: dict[str, SequenceINN], maps: FeatureMaps) -> State:
        state: State = {}
        for layer, decoder in flows.items():
            state |= {f"{layer}:{name}": value.detach().clone() for name, value in decoder.state_dict().items()}
            device = next(decoder.parameters()).device
            likelihoods = (judge(decoder, one[None].to(device), self.flow) for one in maps[layer])
            state[LARGEST + layer] = torch.stack([one.max() for one in likelihoods]).max()
        return state


@dataclass(frozen=True)
class CFlowScores(Stage):
    """What one CFlow says.

    Attributes:
        flows: trained.
        features: of the images to be judged.
    """

    flows: TrainedFlows
    features: Features

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Image by image."""
        state, maps = inputs
        widths = {layer: maps[layer].shape[1] for layer in self.flows.layers}
        flows = build_flows(self.flows.flow, widths, state)
        size, device = context.images[self.features.role].view.input_size, context.device.torch
        found = []
        for i in range(len(maps[self.flows.layers[0]])):
            own = {layer: maps[layer][i : i + 1].to(device) for layer in self.flows.layers}
            found.append(_scores(state, flows, own, self.flows.flow, size))
            context.at(i + 1, len(maps[self.flows.layers[0]]))
        return Scores(torch.cat([one.images for one in found]), torch.cat([one.maps for one in found]))


def _scores(
    state: State, flows: dict[str, SequenceINN], maps: FeatureMaps, flow: Flow, size: tuple[int, int]
) -> Scores:
    """Section 3.4: likelihoods relative to the largest, upsampled and added up over the layers; what is missing to
    their number is the score."""
    total = torch.zeros(len(next(iter(maps.values()))), *size, device=next(iter(maps.values())).device)
    for layer, decoder in flows.items():
        probability = torch.exp(judge(decoder, maps[layer], flow) - state[LARGEST + layer])
        total += 1 - upsample(probability, size, corners=True)
    return Scores(total.amax(dim=(1, 2)), total)
