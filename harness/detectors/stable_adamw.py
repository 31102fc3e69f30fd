"""StableAdamW: Wortsman et al., Stable and low-precision training for large-scale vision-language models, NeurIPS 2023.

The version of Dinomaly's code: AdamW with the largest second moments so far (AMSGrad). An update with a large root mean
square is scaled down (algorithm 2 of the paper).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8
WEIGHT_DECAY = 1e-4


@dataclass
class _Moments:
    """Running means of a parameter's gradients, of their squares, and the largest of the latter so far."""

    first: torch.Tensor
    second: torch.Tensor
    largest: torch.Tensor


class StableAdamW:
    """The optimiser of several parameters.

    Args:
        parameters: changed in place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters: Sequence[nn.Parameter] = list(parameters)
        self._moments = [_Moments(*(torch.zeros_like(one) for _ in range(3))) for one in self.parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Change the parameters by their gradients, and delete the gradients.

        Args:
            lr: learning rate of this step.
        """
        self._steps += 1
        first_bias, second_bias = (1 - beta**self._steps for beta in BETAS)
        for parameter, moments in zip(self.parameters, self._moments, strict=True):
            gradient = parameter.grad
            assert gradient is not None
            moments.first.lerp_(gradient, 1 - BETAS[0])
            moments.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            torch.maximum(moments.largest, moments.second, out=moments.largest)
            scale = (moments.largest / second_bias).sqrt_().add_(EPSILON)
            root_mean_square = (gradient / scale).square_().mean().sqrt_()
            update = (moments.first / scale).mul_(lr / first_bias / root_mean_square.clamp(min=1))
            parameter.mul_(1 - lr * WEIGHT_DECAY).sub_(update)
            parameter.grad = None
