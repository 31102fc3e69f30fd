"""The ranking by synthetic defects: AUROC against held-out normal images, and how stable the order is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.auroc import auroc
from harness.metrics.ranking import Ranking
from harness.predictions.detection import Predictions
from harness.registry import SYNTHETIC_AUROC

SAMPLES = 500  # of the bootstrap
EQUAL = 0.2  # share of the samples, from which on a candidate counts as an equal of the first one
CLOSE = 1e-9  # difference of two AUROCs; a smaller one is a rounding error
Floats = NDArray[np.float64]


def without_synthetic(test: Predictions) -> tuple[Predictions, Predictions | None]:
    """The predictions for the test images, and for the synthetic defects; None without synthetic defects."""
    selection = np.array([sample.synthetic for sample in test.samples], dtype=np.bool_)
    return (test.part(~selection), test.part(selection)) if selection.any() else (test, None)


def synthetic_metrics(synthetic: Predictions | None, held_out: Predictions | None) -> dict[str, float | None]:
    """AUROC of synthetic defects against held-out normal images.

    Args:
        synthetic: predictions for synthetic defects; None without such images.
        held_out: predictions for held-out normal images.

    Returns:
        The metric by its name; empty without synthetic defects.
    """
    if synthetic is None or held_out is None:
        return {}
    scores = np.concatenate([synthetic.scores, held_out.scores])
    labels = np.arange(len(scores)) < len(synthetic.scores)
    return {SYNTHETIC_AUROC: float(auroc(Ranking.of(scores, labels)))}


@dataclass(frozen=True)
class Wins:
    """For each pair of a synthetic defect and a held-out image: whether the defect has the higher score.

    Attributes:
        pairs: shape (kinds, backgrounds, held-out images), means over variants; a tie counts one half.
        backgrounds: position of each background among the held-out images.
    """

    pairs: Floats
    backgrounds: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Floats, kinds: Sequence[str], backgrounds: Sequence[int], normal: Floats) -> Wins:
        """Compare scores.

        Args:
            scores: of n synthetic defects.
            kinds: of each defect.
            backgrounds: position of the image behind each defect among the held-out images.
            normal: scores of the held-out images.
        """
        difference = scores[:, None] - normal[None, :]
        wins = (difference > 0) + 0.5 * (difference == 0)
        names, numbers = sorted(set(kinds)), np.unique(backgrounds)
        of_kind, of_background = np.array(kinds), np.array(backgrounds)
        pairs = [
            [wins[(of_kind == name) & (of_background == number)].mean(axis=0) for number in numbers] for name in names
        ]
        return cls(np.array(pairs), numbers)


def bootstrap(candidates: Sequence[Sequence[Wins]], samples: int = SAMPLES, seed: int = 0) -> Floats:
    """Synthetic AUROC of each candidate in each sample of a bootstrap over held-out images and kinds of defects.

    A Bayesian bootstrap (Rubin: The Bayesian bootstrap, Annals of Statistics 9, 1981). Each sample gives random weights
    to held-out images and kinds. An image has the same weight as a normal image and as a background.

    Args:
        candidates: for each candidate its wins in each category; categories and images are the same for all.
        samples: of the bootstrap.
        seed: of the weights.

    Returns:
        Shape (candidates, samples), means over categories.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.dirichlet(np.ones(len(candidates[0][0].pairs)), samples)
    sums = np.zeros((len(candidates), samples))
    for position, first in enumerate(candidates[0]):
        normal = rng.dirichlet(np.ones(first.pairs.shape[2]), samples)
        behind = normal[:, first.backgrounds]
        behind /= behind.sum(axis=1, keepdims=True)
        for candidate, wins in enumerate(candidates):
            pairs = wins[position].pairs
            sums[candidate] += np.einsum("kbn,sk,sb,sn->s", pairs, kinds, behind, normal, optimize=True)
    return sums / len(candidates[0])


def share_of_equals(candidates: Sequence[Sequence[Wins]]) -> float:
    """Share of the other candidates that are at least as good as the first one in many bootstrap samples, see `EQUAL`.

    Args:
        candidates: at least two, see `bootstrap`.
    """
    draws = bootstrap(candidates)
    as_good = (draws[1:] >= draws[0] - CLOSE).mean(axis=1)
    return float((as_good >= EQUAL).mean())
