"""CFlow: Gudovskiy et al., CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
Normalizing Flows, WACV 2022 (arXiv:2107.12571).

For each layer, a flow learns how likely a feature vector is at its position; what is unlikely is anomalous.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn
from torch.nn import functional as F

from harness.detectors.arguments import check_number, check_whole
from harness.detectors.base import Detector, Options, State
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores, upsample
from harness.detectors.stages import Stage
from harness.detectors.workbench import Workbench
from harness.errors import ConfigError
from harness.weights.inject import seeded

IMAGES = 32  # whose vectors are shuffled together in training
VECTORS = 4096  # that are judged at a time
LARGEST = "largest."


@dataclass(frozen=True)
class Flow:
    """A flow's shape and training.

    Attributes:
        coupling_blocks: how many.
        condition_vector: length of the positional encoding, a multiple of 4.
        clamp_alpha: bound of the affine coefficients.
        fiber_batch_size: vectors a step.
        lr: of Adam.
        max_epochs: passes over the training images.
    """

    coupling_blocks: int
    condition_vector: int
    clamp_alpha: float
    fiber_batch_size: int
    lr: float
    max_epochs: int


class CFlow(Detector):
    """See the module.

    The paper turns likelihoods into scores by the largest one in the test set, which makes the score of an image
    depend on the others; here it is the largest in the training set.

    Args:
        backbone: timm's name.
        layers: one flow each.
        coupling_blocks, condition_vector, clamp_alpha, fiber_batch_size, lr, max_epochs: see `Flow`.
        options: see `Options`.
    """

    name = "cflow"

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


def subnet(inputs: int, outputs: int) -> nn.Module:
    """Predicts a block's affine coefficients."""
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.ReLU(), nn.Linear(2 * inputs, outputs))


def build_flows(flow: Flow, widths: dict[str, int], state: State | None = None) -> dict[str, SequenceINN]:
    """One flow a layer, with what was learnt if `state` is given."""
    if state is not None:
        # What they are built with is replaced; the generators that FrEIA draws it from stay as they were.
        with _seeded(0):
            return _learnt(build_flows(flow, widths), state)
    built = {}
    for layer, width in widths.items():
        decoder = SequenceINN(width)
        for _ in range(flow.coupling_blocks):
            decoder.append(
                AllInOneBlock,
                cond=0,
                cond_shape=(flow.condition_vector,),
                subnet_constructor=subnet,
                affine_clamping=flow.clamp_alpha,
                global_affine_type="SOFTPLUS",
                permute_soft=False,
            )
        built[layer] = decoder
    return built


def _learnt(flows: dict[str, SequenceINN], state: State) -> dict[str, SequenceINN]:
    for layer, decoder in flows.items():
        prefix = f"{layer}:"
        learnt = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        decoder.load_state_dict(learnt)
        decoder.to(next(iter(learnt.values())).device)
    return flows


def positions(length: int, height: int, width: int) -> torch.Tensor:
    """(height * width, length) sines and cosines of the position (Vaswani et al., 2017), half for each direction."""
    half = length // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))
    encoding = torch.zeros(height, width, length)
    for offset, steps in ((0, torch.arange(width)[None, :, None]), (half, torch.arange(height)[:, None, None])):
        encoding[..., offset : offset + half : 2] = torch.sin(steps * rates)
        encoding[..., offset + 1 : offset + half : 2] = torch.cos(steps * rates)
    return encoding.reshape(-1, length)


def log_likelihood(decoder: SequenceINN, vectors: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    """(n,) log-likelihood a dimension (equation 5), of (n, channels) vectors at (n, length) positions."""
    latent, jacobian = decoder(vectors, [conditions])
    channels = vectors.shape[1]
    density = -0.5 * latent.square().sum(dim=1) - channels * math.log(math.sqrt(2 * math.pi))
    found: torch.Tensor = (density + jacobian) / channels
    return found


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

    def compute(self, bench: Workbench, *inputs: Any) -> State:
        """<layer>:<parameter> of each flow, and largest.<layer>, the largest training log-likelihood."""
        maps = {layer: inputs[0][layer] for layer in self.layers}
        device = bench.device.torch
        with _seeded(self.seed):
            flows = build_flows(self.flow, {layer: one.shape[1] for layer, one in maps.items()})
            for decoder in flows.values():
                decoder.to(device)
            _train(flows, maps, self.flow, device, bench.at)
        state: State = {}
        for layer, decoder in flows.items():
            state |= {f"{layer}:{name}": value.detach().clone() for name, value in decoder.state_dict().items()}
            likelihoods = (_judge(decoder, one[None].to(device), self.flow) for one in maps[layer])
            state[LARGEST + layer] = torch.stack([one.max() for one in likelihoods]).max()
        return state


def _train(
    flows: dict[str, SequenceINN],
    maps: FeatureMaps,
    flow: Flow,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    """Maximise log sigmoid of the likelihood (as the authors' code does), layer by layer, batch by batch."""
    optimiser = torch.optim.Adam([p for decoder in flows.values() for p in decoder.parameters()], lr=flow.lr)
    images = len(next(iter(maps.values())))
    for epoch in range(flow.max_epochs):
        order = torch.randperm(images)
        for first in range(0, images, IMAGES):
            for layer, decoder in flows.items():
                batch = maps[layer][order[first : first + IMAGES]]
                grid = positions(flow.condition_vector, *batch.shape[-2:])
                vectors, conditions = rows(batch).to(device), grid.repeat(len(batch), 1).to(device)
                shuffled = torch.randperm(len(vectors)).to(device)
                # The last step takes what is left over too: a step with a single vector would be noise.
                steps = max(1, len(vectors) // flow.fiber_batch_size)
                for chosen in _split(shuffled, steps, flow.fiber_batch_size):
                    optimiser.zero_grad()
                    likelihood = log_likelihood(decoder, vectors[chosen], conditions[chosen])
                    loss = -F.logsigmoid(likelihood).mean()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
            progress(epoch * images + first + IMAGES, flow.max_epochs * images)


def _split(indices: torch.Tensor, steps: int, size: int) -> Iterator[torch.Tensor]:
    for step in range(steps):
        yield indices[step * size : (step + 1) * size if step < steps - 1 else None]


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

    def compute(self, bench: Workbench, *inputs: Any) -> Scores:
        """Image by image."""
        state, maps = inputs
        widths = {layer: maps[layer].shape[1] for layer in self.flows.layers}
        flows = build_flows(self.flows.flow, widths, state)
        size, device = bench.images[self.features.role].view.seen, bench.device.torch
        found = []
        for i in range(len(maps[self.flows.layers[0]])):
            own = {layer: maps[layer][i : i + 1].to(device) for layer in self.flows.layers}
            found.append(_scores(state, flows, own, self.flows.flow, size))
            bench.at(i + 1, len(maps[self.flows.layers[0]]))
        return Scores(torch.cat([one.images for one in found]), torch.cat([one.maps for one in found]))


def _judge(decoder: SequenceINN, maps: torch.Tensor, flow: Flow) -> torch.Tensor:
    """(n, channels, h, w) -> (n, h, w) log-likelihoods a dimension."""
    images, _, height, width = maps.shape
    vectors = rows(maps)
    conditions = positions(flow.condition_vector, height, width).to(maps.device).repeat(images, 1)
    with torch.no_grad():
        parts = [
            log_likelihood(decoder, vectors[i : i + VECTORS], conditions[i : i + VECTORS])
            for i in range(0, len(vectors), VECTORS)
        ]
    return torch.cat(parts).reshape(images, height, width)


def _scores(
    state: State, flows: dict[str, SequenceINN], maps: FeatureMaps, flow: Flow, size: tuple[int, int]
) -> Scores:
    """Section 3.4: likelihoods relative to the largest, upsampled and added up over the layers; what is missing to
    their number is the score."""
    total = torch.zeros(len(next(iter(maps.values()))), *size, device=next(iter(maps.values())).device)
    for layer, decoder in flows.items():
        probability = torch.exp(_judge(decoder, maps[layer], flow) - state[LARGEST + layer])
        total += 1 - upsample(probability, size, corners=True)
    return Scores(total.amax(dim=(1, 2)), total)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's and NumPy's global generators (FrEIA draws from the latter), as they were before afterwards."""
    before = np.random.get_state()
    try:
        with seeded(seed):
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(before)
