"""Conditional normalising flows over feature vectors: construction, training and log-likelihoods.

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

IMAGES = 32  # images whose vectors are shuffled together in training
VECTORS = 4096  # vectors of one batch in `likelihood_maps`


@dataclass(frozen=True)
class Flow:
    """Architecture and training of a flow.

    Attributes:
        coupling_blocks: number of coupling blocks.
        condition_vector: length of the positional encoding, a multiple of 4.
        clamp_alpha: bound of the affine coefficients.
        fiber_batch_size: number of vectors in a training step.
        lr: learning rate of Adam.
        max_epochs: number of passes over the training images.
    """

    coupling_blocks: int
    condition_vector: int
    clamp_alpha: float
    fiber_batch_size: int
    lr: float
    max_epochs: int


def subnet(inputs: int, outputs: int) -> nn.Module:
    """Build the network that predicts the affine coefficients of a coupling block.

    Args:
        inputs: number of input values.
        outputs: number of coefficients.
    """
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.ReLU(), nn.Linear(2 * inputs, outputs))


def build_flows(
    flow: Flow, widths: dict[str, int], state: dict[str, torch.Tensor] | None = None
) -> dict[str, SequenceINN]:
    """Build one flow for each layer.

    Args:
        flow: architecture of the flows.
        widths: number of channels by layer.
        state: trained parameters, `<layer>:<parameter>`; None for random ones from the global generators.

    Returns:
        Flows by layer.
    """
    if state is not None:
        # FrEIA draws initial values that `state` replaces; `all_seeded` restores the global generators.
        with all_seeded(0):
            return _load_parameters(build_flows(flow, widths), state)
    flows = {}
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
        flows[layer] = decoder
    return flows


def _load_parameters(flows: dict[str, SequenceINN], state: dict[str, torch.Tensor]) -> dict[str, SequenceINN]:
    for layer, decoder in flows.items():
        prefix = f"{layer}:"
        parameters = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        decoder.load_state_dict(parameters)
        decoder.to(next(iter(parameters.values())).device)
    return flows


def positions(length: int, height: int, width: int) -> torch.Tensor:
    """Encode positions as sines and cosines (Vaswani et al., 2017), one half for each direction.

    Args:
        length: length of the encoding, a multiple of 4.
        height: number of rows.
        width: number of columns.

    Returns:
        (height * width, length).
    """
    half = length // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))
    encoding = torch.zeros(height, width, length)
    for offset, steps in ((0, torch.arange(width)[None, :, None]), (half, torch.arange(height)[:, None, None])):
        encoding[..., offset : offset + half : 2] = torch.sin(steps * rates)
        encoding[..., offset + 1 : offset + half : 2] = torch.cos(steps * rates)
    return encoding.reshape(-1, length)


def log_likelihood(decoder: SequenceINN, vectors: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of vectors, divided by their number of channels (equation 5).

    Args:
        decoder: the flow.
        vectors: (n, channels).
        conditions: (n, length) encoded positions.

    Returns:
        (n,).
    """
    latent, jacobian = decoder(vectors, [conditions])
    channels = vectors.shape[1]
    density = -0.5 * latent.square().sum(dim=1) - channels * math.log(math.sqrt(2 * math.pi))
    likelihood: torch.Tensor = (density + jacobian) / channels
    return likelihood


def train(
    flows: dict[str, SequenceINN],
    maps: FeatureMaps,
    flow: Flow,
    device: torch.device,
    progress: Callable[[int, int], None],
    on_epoch: Callable[[int], None],
) -> None:
    """Train the flows: maximise log sigmoid of the log-likelihood, as in the authors' code.

    Args:
        flows: flows by layer; trained in place.
        maps: features of the training images by layer.
        flow: parameters of the training.
        device: device of the flows.
        progress: called with the number of finished images and of all images, over all epochs.
        on_epoch: called with the number of finished epochs, after each epoch except the last.
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
                # The last step also has the remaining vectors: a step with a single vector would be noise.
                steps = max(1, len(vectors) // flow.fiber_batch_size)
                for fibers in _split(shuffled, steps, flow.fiber_batch_size):
                    optimiser.zero_grad()
                    likelihood = log_likelihood(decoder, vectors[fibers], conditions[fibers])
                    loss = -F.logsigmoid(likelihood).mean()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
            progress(epoch * images + first + IMAGES, flow.max_epochs * images)
        if epoch + 1 < flow.max_epochs:
            on_epoch(epoch + 1)


def _split(indices: torch.Tensor, steps: int, size: int) -> Iterator[torch.Tensor]:
    for step in range(steps):
        yield indices[step * size : (step + 1) * size if step < steps - 1 else None]


def likelihood_maps(decoder: SequenceINN, maps: torch.Tensor, flow: Flow) -> torch.Tensor:
    """Log-likelihoods of feature maps; see `log_likelihood`.

    Args:
        decoder: the trained flow.
        maps: (n, channels, h, w).
        flow: architecture of the flow.

    Returns:
        (n, h, w).
    """
    images, _, height, width = maps.shape
    vectors = rows(maps)
    conditions = positions(flow.condition_vector, height, width).to(maps.device).repeat(images, 1)
    with torch.no_grad():
        likelihoods = [
            log_likelihood(decoder, vectors[i : i + VECTORS], conditions[i : i + VECTORS])
            for i in range(0, len(vectors), VECTORS)
        ]
    return torch.cat(likelihoods).reshape(images, height, width)


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Torch and NumPy (used by FrEIA), and restore them at the end."""
    state = np.random.get_state()
    try:
        with seeded(seed):
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
