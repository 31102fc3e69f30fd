"""Conditional normalising flows over feature vectors: built, trained, asked how likely a vector is.

Gudovskiy et al., 2022, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn
from torch.nn import functional as F

from harness.backbones.inject import seeded
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps

IMAGES = 32  # whose vectors are shuffled together in training
VECTORS = 4096  # that are judged at a time


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


def subnet(inputs: int, outputs: int) -> nn.Module:
    """Predicts a block's affine coefficients."""
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.ReLU(), nn.Linear(2 * inputs, outputs))


def build_flows(
    flow: Flow, widths: dict[str, int], state: dict[str, torch.Tensor] | None = None
) -> dict[str, SequenceINN]:
    """One flow a layer, with what was learnt if `state` is given."""
    if state is not None:
        # What they are built with is replaced; the generators that FrEIA draws it from stay as they were.
        with all_seeded(0):
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


def _learnt(flows: dict[str, SequenceINN], state: dict[str, torch.Tensor]) -> dict[str, SequenceINN]:
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


def train(
    flows: dict[str, SequenceINN],
    maps: FeatureMaps,
    flow: Flow,
    device: torch.device,
    progress: Callable[[int, int], None],
    after: Callable[[int], None],
) -> None:
    """Maximise log sigmoid of the likelihood (as the authors' code does), layer by layer, batch by batch.

    Args:
        flows: one a layer.
        maps: features of the training images.
        flow: how they are trained.
        device: where.
        progress: called with images done, and in all.
        after: called with the number of epochs done, after each but the last.
    """
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
        if epoch + 1 < flow.max_epochs:
            after(epoch + 1)


def _split(indices: torch.Tensor, steps: int, size: int) -> Iterator[torch.Tensor]:
    for step in range(steps):
        yield indices[step * size : (step + 1) * size if step < steps - 1 else None]


def judge(decoder: SequenceINN, maps: torch.Tensor, flow: Flow) -> torch.Tensor:
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


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Torch's and NumPy's global generators (FrEIA draws from the latter), as they were before afterwards."""
    before = np.random.get_state()
    try:
        with seeded(seed):
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(before)
