"""Classifiers on frozen features. Each is fitted on the training images of one fold.

To add one, write a subclass of `ProbeHead`, add it to `HEADS`, and its name and settings to settings.py.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import normalize, one_hot

from harness.backends.supervised.probe.settings import ProbeSettings

Features = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]
Tensors = dict[str, torch.Tensor]

ITERATIONS = 1000  # of the logistic regression
LEAST = 1e-3  # of the largest standard deviation of a feature; a feature with less gets no weight
ABSENT = -1e4  # logit of a label without a training image; its probability is 0 in 32 bits


class ProbeHead(nn.Module, ABC):
    """A classifier on features, whose state is a set of tensors.

    Args:
        tensors: the state, by name; see `fit`.
        settings: settings of the run.
        labels: number of labels.
    """

    name: ClassVar[str]

    def __init__(self, tensors: Mapping[str, torch.Tensor], settings: ProbeSettings, labels: int) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self._settings, self._labels = settings, labels

    @staticmethod
    @abstractmethod
    def fit(features: Features, targets: Targets, labels: int, settings: ProbeSettings) -> tuple[Tensors, str]:
        """Fit the classifier.

        Args:
            features: (n, width) features of the training images.
            targets: (n,) positions of their labels.
            labels: number of labels.
            settings: settings of the run.

        Returns:
            The state, and a warning; the warning is usually empty.
        """

    @abstractmethod
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, labels) of features (n, width)."""


class Logistic(ProbeHead):
    """Multinomial logistic regression on standardised features; all labels have the same total weight.

    The state has the weights for features without standardisation: softmax(weight x + bias).
    """

    name = "logistic"
    weight: torch.Tensor
    bias: torch.Tensor

    @staticmethod
    def fit(features: Features, targets: Targets, labels: int, settings: ProbeSettings) -> tuple[Tensors, str]:
        """Fit the classifier; see `ProbeHead.fit`."""
        values = features.astype(np.float64)
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        # Of a feature that hardly varies, the scale would magnify the rounding.
        inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > LEAST * deviation.max())
        weight, bias = np.zeros((labels, values.shape[1])), np.full(labels, ABSENT)
        present, warning = np.unique(targets), ""
        bias[present] = 0.0
        if len(present) > 1:
            # The regularised solution lies in the span of the images, which often has fewer dimensions.
            basis, images = np.linalg.qr(((values - mean) * inverse).T)
            model = LogisticRegression(C=settings.C, class_weight="balanced", max_iter=ITERATIONS)
            with warnings.catch_warnings():
                # The warning of the run replaces it.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(images.T, targets)
            if model.n_iter_.max() >= ITERATIONS:
                warning = f"the logistic regression did not converge in {ITERATIONS} steps; choose a smaller C"
            # For two labels, scikit-learn has the weights of the second label only.
            chosen = present if len(present) > 2 else present[1:]
            weight[chosen] = model.coef_ @ basis.T * inverse
            bias[chosen] = model.intercept_ - weight[chosen] @ mean
        tensors = {"weight": weight, "bias": bias}
        return {name: torch.from_numpy(array).float() for name, array in tensors.items()}, warning

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, labels) of features (n, width)."""
        return nn.functional.linear(features, self.weight, self.bias).softmax(dim=1)


class Neighbours(ProbeHead):
    """The votes of the most similar training images.

    Similarity is the cosine of centred features, as the features CL2N of SimpleShot (Wang et al., 2019). The votes are
    those of Wu et al. (2018), section 3.4.
    """

    name = "knn"
    center: torch.Tensor
    bank: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor

    @staticmethod
    def fit(features: Features, targets: Targets, labels: int, settings: ProbeSettings) -> tuple[Tensors, str]:
        """Keep all features; see `ProbeHead.fit`."""
        del settings
        values, positions = torch.from_numpy(features), torch.from_numpy(targets)
        center = values.mean(dim=0)
        counts = torch.bincount(positions, minlength=labels).float()
        return {"center": center, "bank": normalize(values - center), "targets": positions, "counts": counts}, ""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, labels) of features (n, width)."""
        similarities = normalize(features - self.center) @ self.bank.T
        nearest, positions = similarities.topk(self._settings.num_neighbors, dim=1)
        targets = self.targets[positions]
        if self._settings.neighbor_weights == "equal":
            weights = torch.ones_like(nearest)
        else:
            weights = (nearest / self._settings.temperature).softmax(dim=1)
        if self._settings.neighbor_weights == "balanced":
            weights = weights / self.counts[targets]
        votes = weights.unsqueeze(2) * one_hot(targets, self._labels)
        return votes.sum(dim=1) / weights.sum(dim=1, keepdim=True)


class Prototypes(ProbeHead):
    """Softmax of the similarities of an image to the mean of each label (prototypical networks, Snell et al., 2017).

    Similarity is the cosine of centred features, as the features CL2N of SimpleShot (Wang et al., 2019).
    """

    name = "prototype"
    center: torch.Tensor
    prototypes: torch.Tensor
    bias: torch.Tensor

    @staticmethod
    def fit(features: Features, targets: Targets, labels: int, settings: ProbeSettings) -> tuple[Tensors, str]:
        """Average the features of each label; see `ProbeHead.fit`."""
        del settings
        values = torch.from_numpy(features)
        center = values.mean(dim=0)
        members = one_hot(torch.from_numpy(targets), labels).to(values.dtype)
        prototypes = normalize(members.T @ normalize(values - center))
        bias = torch.where(members.sum(dim=0) > 0, 0.0, ABSENT)
        return {"center": center, "prototypes": prototypes, "bias": bias}, ""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, labels) of features (n, width)."""
        similarities = normalize(features - self.center) @ self.prototypes.T
        return (similarities / self._settings.temperature + self.bias).softmax(dim=1)


HEADS: Mapping[str, type[ProbeHead]] = {head.name: head for head in (Logistic, Neighbours, Prototypes)}
