"""The rule for good against not good: the score of a detector changes how a class shares its probability.

The probability of a class stays that of the network, and so do the proportions of its other conditions. Only the share
of the good label changes. A logistic regression predicts this share from two values: the log odds of the
network's own share, and the score of the detector, standardised by the scores of good images of the class. This is
stacking (Wolpert, 1992) with one regression for all classes. So a class with three defective images has a rule too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LEAST = 2  # good images of a class for its mean and deviation, and images of each side for the regression
SMALLEST = 1e-4  # of a share; the regression needs finite log odds


@dataclass(frozen=True)
class Classes:
    """The classes of the labels, and those that have a detector.

    Attributes:
        names: all classes, in order.
        members: shape (classes, labels): whether a label is of a class.
        good: shape (classes,): position of the good label of a class with a detector; -1 for a class without one.
    """

    names: tuple[str, ...]
    members: Mask
    good: Positions

    @classmethod
    def of(cls, class_of_label: Sequence[str], good: Mapping[str, int]) -> Classes:
        """Return the classes of labels.

        Args:
            class_of_label: class of each label.
            good: position of the good label of each class with a detector.
        """
        names = tuple(dict.fromkeys(class_of_label))
        members = np.array([[label == name for label in class_of_label] for name in names])
        return cls(names, members, np.array([good.get(name, -1) for name in names], dtype=np.int64))

    def predicted(self, probabilities: Floats) -> Positions:
        """Return the most probable class of each image, shape (n,), from probabilities (n, labels)."""
        return np.asarray((probabilities @ self.members.T).argmax(axis=1), dtype=np.int64)

    def good_share(self, probabilities: Floats, classes: Positions) -> Floats:
        """Return the share of the good label in the probability of an image's class, shape (n,).

        Args:
            probabilities: shape (n, labels).
            classes: class of each image, shape (n,); each has a detector.
        """
        total = np.maximum((probabilities * self.members[classes]).sum(axis=1), np.finfo(float).tiny)
        share: Floats = probabilities[np.arange(len(classes)), self.good[classes]] / total
        return share

    def with_share(self, probabilities: Floats, classes: Positions, share: Floats) -> Floats:
        """Return probabilities whose good label has another share of its class; see `good_share`.

        Args:
            probabilities: shape (n, labels).
            classes: class of each image, shape (n,); each has a detector.
            share: shape (n,), the new share.
        """
        rows, good = np.arange(len(classes)), self.good[classes]
        others = self.members[classes].copy()
        others[rows, good] = False
        rest = np.where(others, probabilities, 0.0)
        total = rest.sum(axis=1) + probabilities[rows, good]
        # Without any probability beside the good label, the other conditions share it equally.
        rest[rest.sum(axis=1) == 0] = others[rest.sum(axis=1) == 0]
        changed = np.where(
            others, rest / rest.sum(axis=1, keepdims=True) * ((1 - share) * total)[:, None], probabilities
        )
        changed[rows, good] = share * total
        return changed


@dataclass(frozen=True)
class Rule:
    """A fitted rule.

    Attributes:
        means: mean logarithm of the scores of good images, by class.
        deviations: their standard deviation, by class.
        network: coefficient of the log odds of the network's share.
        score: coefficient of the standardised score; negative, since a larger score is more anomalous.
        intercept: of the regression.
    """

    means: dict[str, float]
    deviations: dict[str, float]
    network: float
    score: float
    intercept: float

    def standardised(self, names: Sequence[str], scores: Floats) -> Floats:
        """Return standardised scores, shape (n,); NaN for a class that the rule does not know.

        Args:
            names: class of each image.
            scores: score of the detector of this class, shape (n,).
        """
        means = np.array([self.means.get(name, np.nan) for name in names])
        return (_log(scores) - means) / np.array([self.deviations.get(name, np.nan) for name in names])

    def share(self, names: Sequence[str], shares: Floats, scores: Floats) -> Floats:
        """Return the new share of the good label, shape (n,).

        Args:
            names: class of each image.
            shares: the network's share, shape (n,).
            scores: score of the detector of this class, shape (n,); NaN for an image without a score.

        Returns:
            The network's own share for an image without a score, and for a class that the rule does not know.
        """
        odds = self.intercept + self.network * _log_odds(shares) + self.score * self.standardised(names, scores)
        return np.where(np.isfinite(odds), 1 / (1 + np.exp(-np.clip(odds, -50, 50))), shares)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return dict(vars(self))


def fit_rule(names: Sequence[str], shares: Floats, scores: Floats, good: Mask) -> Rule | None:
    """Fit a rule by out-of-fold images, all of them of their predicted class.

    Args:
        names: class of each image.
        shares: the network's share of the good label, shape (n,).
        scores: score of the detector, which did not learn from the image, shape (n,).
        good: whether an image is good, shape (n,).

    Returns:
        The rule; None with too few good or too few other images, or if larger scores are no sign of a defect.
    """
    logs, of_class = _log(scores), np.array(names)
    reference = {name: logs[(of_class == name) & good] for name in dict.fromkeys(names)}
    reference = {name: values for name, values in reference.items() if len(values) >= LEAST and values.std() > 0}
    means, deviations = ({k: float(f(v)) for k, v in reference.items()} for f in (np.mean, np.std))
    raw = Rule(means, deviations, 1.0, 0.0, 0.0)
    standardised = raw.standardised(names, scores)
    known = np.isfinite(standardised)
    if min(good[known].sum(), (~good[known]).sum()) < LEAST:
        return None
    values = np.stack([_log_odds(shares), standardised], axis=1)[known]
    fitted = LogisticRegression().fit(values, good[known])
    network, score = (float(value) for value in fitted.coef_[0])
    return Rule(means, deviations, network, score, float(fitted.intercept_[0])) if score < 0 else None


def apply_rule(
    rule: Rule | None, classes: Classes, probabilities: Floats, predicted: Positions, scores: Floats
) -> Floats:
    """Return probabilities after a rule, shape (n, labels).

    Args:
        rule: the rule; None changes nothing.
        classes: the classes of the labels.
        probabilities: of the networks, shape (n, labels).
        predicted: the class whose detector scored an image, shape (n,).
        scores: scores of these detectors, shape (n,); NaN for an image without a score, which does not change.
    """
    rows = np.flatnonzero(np.isfinite(scores))
    if rule is None or not len(rows):
        return probabilities
    changed = probabilities.copy()
    shares = classes.good_share(probabilities[rows], predicted[rows])
    names = [classes.names[position] for position in predicted[rows]]
    new = rule.share(names, shares, scores[rows])
    changed[rows] = classes.with_share(probabilities[rows], predicted[rows], new)
    return changed


def _log(scores: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(scores, 1e-12))
    return logs


def _log_odds(shares: Floats) -> Floats:
    inside = np.clip(shares, SMALLEST, 1 - SMALLEST)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
