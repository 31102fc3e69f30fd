"""Losses, from logits and targets that may be shares of several labels."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from pytorch_metric_learning.reducers import DoNothingReducer
from torch import nn
from torch.nn import functional

from harness.backends.supervised.network import Classifier
from harness.backends.supervised.settings import Settings


class Loss(nn.Module):
    """The loss of a run.

    Args:
        settings: which, and how.
        labels: how many.
        weights: of each label, (labels,); None for all alike.
        with_margin: labels whose images get ArcFace's margin, (labels,) of bool; None for all.
    """

    weights: torch.Tensor | None
    with_margin: torch.Tensor | None

    def __init__(
        self,
        settings: Settings,
        labels: int,
        weights: torch.Tensor | None = None,
        with_margin: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self._settings, self._labels = settings, labels
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("with_margin", with_margin, persistent=False)

    def forward(self, network: Classifier, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            network: in training.
            images: (n, 3, height, width) in [0, 1].
            targets: (n,) labels, or (n, labels) shares of them.
        """
        if self._settings.loss == "arcface":
            return self._arcface(network, network.embed(images), targets)
        logits = network(images)
        shares = targets if targets.ndim == 2 else functional.one_hot(targets, self._labels).to(logits.dtype)
        smooth = self._settings.label_smoothing
        shares = shares * (1 - smooth) + smooth / self._labels
        gamma = self._settings.focal_gamma if self._settings.loss == "focal" else 0.0
        return focal(logits, shares, gamma, self.weights).mean()

    def _arcface(self, network: Classifier, embedded: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(network.logits(embedded), targets, reduction="none")
        chosen = torch.ones_like(targets, dtype=torch.bool) if self.with_margin is None else self.with_margin[targets]
        if chosen.any():
            margin = arcface(network, embedded[chosen], targets[chosen], self._settings)
            losses = losses.index_put((chosen.nonzero()[:, 0],), margin.to(losses.dtype))
        return (losses if self.weights is None else losses * self.weights[targets]).mean()


def focal(
    logits: torch.Tensor, shares: torch.Tensor, gamma: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Focal loss of several labels (Lin et al., 2017, equation 4): - sum of share * (1 - p) ** gamma * log p.

    With gamma 0 it is cross entropy.

    Args:
        logits, shares: (n, labels).
        gamma: 0 or more.
        weights: of each label, (labels,).

    Returns:
        (n,).
    """
    log_p = functional.log_softmax(logits, dim=1)
    # Below 1, the power's slope at 0 is infinite: a sure answer would have no gradient.
    unsure = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
    terms = shares * log_p if gamma == 0 else shares * unsure.pow(gamma) * log_p
    return -(terms if weights is None else terms * weights).sum(dim=1)


def arcface(network: Classifier, embedded: torch.Tensor, targets: torch.Tensor, settings: Settings) -> torch.Tensor:
    """ArcFace's loss of each image (Deng et al., 2019, equation 3): the margin is added to the angle to its own label.

    pytorch-metric-learning's, with the network's head as its weights; (n,).
    """
    found = ArcFaceLoss(
        num_classes=network.head.out_features,
        embedding_size=network.width,
        margin=settings.arcface_margin,
        scale=settings.arcface_scale,
        reducer=DoNothingReducer(),
    )
    # It keeps a column a label, where a linear layer keeps a row.
    del found.W
    found.W = network.head.weight.T
    losses: torch.Tensor = found(embedded, targets)["loss"]["losses"]
    return losses


def label_weights(counts: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Weights 1 / images ** strength, 1 on average over images; (labels,).

    Args:
        counts: (labels,) training images of each; a label without any gets 0.
        strength: 1 makes all labels count alike, 0 leaves them as they are.
    """
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -strength, torch.zeros(()))
    return weights * counts.sum() / (weights * counts).sum()
