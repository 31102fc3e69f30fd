"""Batch normalisation: its momentum, and statistics that are computed anew from training images.

A batch-norm layer keeps a running mean and variance of its inputs. A network predicts with them. They lag behind the
weights where a training has few steps, and they are not those of averaged weights (Izmailov et al.: Averaging weights
leads to wider optima and better generalization, 2018, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

# 1,000 to 10,000 images are enough (Wu and Johnson: Rethinking "Batch" in BatchNorm, 2021, section 3).
STATISTICS_IMAGES = 1024
# A training is short if its running statistics still have this share of the initial ones.
MOST_INITIAL = 0.05


def layers(network: nn.Module) -> Iterator[_BatchNorm]:
    """The batch-norm layers of a network."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the momentum of all batch-norm layers.

    Args:
        network: a network.
        momentum: share of a new batch in the running statistics.
    """
    for layer in layers(network):
        layer.momentum = momentum


def recompute(features: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Compute the statistics of all batch-norm layers anew. All batches count equally.

    Args:
        features: keep their weights. A network without batch normalisation stays as it is.
        batches: normalised images on the device of the network, (n, 3, height, width) with n of at least 2.
    """
    update_bn(batches, features)


def initial_share(network: nn.Module, steps: int) -> float:
    """The largest share of the initial statistics in the running statistics, (1 - momentum) ** steps.

    Args:
        network: a network; 0 without batch normalisation.
        steps: number of training batches.
    """
    return max(((1 - layer.momentum) ** steps for layer in layers(network) if layer.momentum is not None), default=0.0)
