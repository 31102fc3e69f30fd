"""Losses of logits, for targets that are labels or shares of several labels."""

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
        settings: settings of the run.
        labels: number of labels.
        weights: weight of each label, (labels,); None for equal weights.
        with_margin: whether the images of each label get ArcFace's margin, (labels,); None for all labels.
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
        """Return the mean loss of a batch.

        Args:
            network: the network in training.
            images: (n, 3, height, width) in [0, 1].
            targets: labels (n,), or shares of labels (n, labels).
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
        smooth = self._settings.label_smoothing
        losses = functional.cross_entropy(network.logits(embedded), targets, reduction="none", label_smoothing=smooth)
        mask = torch.ones_like(targets, dtype=torch.bool) if self.with_margin is None else self.with_margin[targets]
        if mask.any():
            margin_losses = arcface(network, embedded[mask], targets[mask], self._settings)
            losses = losses.index_put((mask.nonzero()[:, 0],), margin_losses.to(losses.dtype))
        return (losses if self.weights is None else losses * self.weights[targets]).mean()


def focal(
    logits: torch.Tensor, shares: torch.Tensor, gamma: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the focal loss (Lin et al., 2017, equation 4): - sum of share * (1 - p) ** gamma * log p.

    With gamma 0 the focal loss is cross entropy.

    Args:
        logits: (n, labels).
        shares: (n, labels) shares of the labels.
        gamma: focusing parameter, 0 or more.
        weights: weight of each label, (labels,); None for equal weights.

    Returns:
        The loss of each image, (n,).
    """
    log_p = functional.log_softmax(logits, dim=1)
    # For gamma below 1, the slope of the power at 0 is infinite; a prediction with p = 1 would have no finite gradient.
    error = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
    terms = shares * log_p if gamma == 0 else shares * error.pow(gamma) * log_p
    return -(terms if weights is None else terms * weights).sum(dim=1)


def arcface(network: Classifier, embedded: torch.Tensor, targets: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return ArcFace's loss (Deng et al., 2019, equation 3), with a margin on the angle to the image's label.

    Label smoothing spreads a share of the target over all labels; the margin stays on the image's own label.

    pytorch-metric-learning computes the loss, with the weights of the network's head.

    Args:
        network: the network in training.
        embedded: (n, width) embeddings.
        targets: (n,) labels.
        settings: settings of the run.

    Returns:
        The loss of each image, (n,).
    """
    criterion = ArcFaceLoss(
        num_classes=network.head.out_features,
        embedding_size=network.width,
        margin=settings.margin_degrees,
        scale=settings.arcface_scale,
        reducer=DoNothingReducer(),
    )
    criterion.cross_entropy = nn.CrossEntropyLoss(reduction="none", label_smoothing=settings.label_smoothing)
    # ArcFaceLoss has one column for each label, a linear layer one row.
    del criterion.W
    criterion.W = network.head.weight.T
    losses: torch.Tensor = criterion(embedded, targets)["loss"]["losses"]
    return losses


def label_weights(counts: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Return the weight 1 / images ** strength of each label, (labels,), with a mean of 1 over all images.

    Args:
        counts: (labels,) training images of each label; a label without images gets weight 0.
        strength: 1 gives all labels the same total weight, 0 gives all images the same weight.
    """
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -strength, torch.zeros(()))
    return weights * counts.sum() / (weights * counts).sum()
