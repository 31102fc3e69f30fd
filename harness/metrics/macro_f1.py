"""The error of a macro F1 that the choice of images causes, and its 95% interval.

Macro F1 is a smooth function of the predictions of each label's images. The delta method gives its standard error from
the share of each image (Takahashi, Yamamoto, Kuchiba and Koyama: Confidence interval for micro-averaged F1 and
macro-averaged F1 scores, Applied Intelligence 52, 2022). Two corrections matter for labels with few images:

- The variance of n images of a label is divided by n - 1. A bootstrap of each label divides by n, so with 2 images its
  variance is half of the true one.
- F1 is not linear, so few images make macro F1 too low on average. The second order of the delta method estimates this
  bias, and the interval is moved by it.

Student's distribution takes the place of the normal one, since the standard error itself is uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.metrics.best import RESAMPLES, Comparison, compare
from harness.metrics.classification import Ints, confusion, macro_f1
from harness.metrics.intervals import interval_around

Floats = npt.NDArray[np.float64]
LEAST_FREEDOM = 4.0
# Where more labels than this share have one image, intervals and tests are unreliable (benchmarks/trust_coverage.py).
SINGLES = 1 / 8


@dataclass(frozen=True)
class MacroF1:
    """Macro F1 with the share of each image in its error.

    Attributes:
        value: macro F1.
        errors: shape (n,), the share of each image. Equal images have equal places, so the difference of two
            classifiers has the difference of their errors. The squares sum to the variance of `value`.
        bias: estimate of the mean of `value` over other images, minus the true macro F1; 0 or less for most data.
        images: effective number of images: labels with fewer images count more.
        strata: shape (n,), the group of each image for the variance.
    """

    value: float
    errors: Floats
    bias: float
    images: float
    strata: Ints

    @classmethod
    def of(cls, truth: Ints, predicted: Ints, labels: int) -> MacroF1:
        """Macro F1 of one classifier.

        Args:
            truth: shape (n,), true labels; every image must have one, and n is at least 1.
            predicted: shape (n,), predicted labels.
            labels: number of labels.
        """
        counts = confusion(truth, predicted, labels)
        images, tp = counts.sum(axis=1), np.diag(counts).astype(np.float64)
        present = images > 0
        # F1 of a label is 2 tp / both, with `both` = images + predictions of the label.
        both = np.maximum(images + counts.sum(axis=0), 1).astype(np.float64)
        share = (2 * (truth == predicted) / both[predicted] - 2 * tp[predicted] / both[predicted] ** 2) * present[
            predicted
        ]
        # Sampling variances of each cell and its column; a label with one image gives none.
        cell = counts * (images[:, None] - counts) / np.maximum(images - 1, 1)[:, None]
        second = 2 * tp / both**3 * cell.sum(axis=0) - 2 / both**2 * np.diag(cell)
        strata = _strata(truth)
        return cls(
            value=macro_f1(truth, predicted, labels),
            errors=_centred(share, strata) / present.sum(),
            bias=float(second[present].mean()),
            images=float(present.sum() ** 2 / (1 / images[present]).sum()),
            strata=strata,
        )

    @classmethod
    def mean(cls, several: Sequence[MacroF1]) -> MacroF1:
        """The mean of classifiers on the same images, such as several seeds."""
        return cls(
            value=float(np.mean([one.value for one in several])),
            errors=np.mean([one.errors for one in several], axis=0),
            bias=float(np.mean([one.bias for one in several])),
            images=several[0].images,
            strata=several[0].strata,
        )

    @property
    def standard_error(self) -> float:
        """Standard error of `value`."""
        return float(np.sqrt((self.errors**2).sum()))

    def interval(self) -> tuple[float, float]:
        """95% interval around the value without its bias; see `harness.metrics.intervals.interval_around`."""
        return interval_around(
            self.value, self.standard_error, self.images, _freedom(self.errors**2, self.strata), self.bias
        )


def macro_f1_interval(truth: Ints, predicted: Ints, labels: int) -> tuple[float, float] | None:
    """95% interval of macro F1.

    Args:
        truth: shape (n,), true labels; a negative number is no label.
        predicted: shape (n,), predicted labels.
        labels: number of labels.

    Returns:
        (lower end, upper end); None without labelled images.
    """
    labelled = truth >= 0
    return MacroF1.of(truth[labelled], predicted[labelled], labels).interval() if labelled.any() else None


def compare_macro_f1(classifiers: Sequence[MacroF1], resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Test all classifiers against the best one on the same images; see `harness.metrics.best`.

    Args:
        classifiers: best first. The images are equal and have the same order.
        resamples: number of draws.
        seed: of the draws.
    """
    values = np.array([one.value for one in classifiers])
    errors = np.stack([one.errors for one in classifiers], axis=1)
    images = classifiers[0].images
    different = ((errors - errors.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    freedom = _freedom(different, classifiers[0].strata)
    return compare(values, [errors], images, images, resamples, seed, freedom)


def too_many_singles(truth: Ints) -> tuple[int, int] | None:
    """Whether so many labels have one image that the interval and the comparison are unreliable.

    One image says nothing about how much its label varies. In simulations with half of such labels, the interval
    contains the truth in 82 to 97% of cases, and up to 42% of reports call an equally good configuration worse.

    Args:
        truth: shape (n,), true labels.

    Returns:
        Number of labels with one image, and number of labels with images; None where the interval is reliable.
    """
    images = np.unique(truth, return_counts=True)[1]
    single = int((images == 1).sum())
    return (single, len(images)) if single > SINGLES * len(images) else None


def _freedom(variances: Floats, strata: Ints) -> float:
    """Degrees of freedom of a standard error (Satterthwaite: An approximate distribution, Biometrics 2, 1946).

    Few labels with errors give few degrees of freedom. The labels without an error also say something, so there are at
    least 4.

    Args:
        variances: shape (n,), the share of each image in the variance.
        strata: shape (n,), the group of each image.
    """
    by_group = np.bincount(strata, variances)
    spread = (by_group**2 / np.maximum(np.bincount(strata) - 1, 1)).sum()
    return max(float(by_group.sum() ** 2 / spread), LEAST_FREEDOM) if spread else LEAST_FREEDOM


def _strata(truth: Ints) -> Ints:
    """The group of each image for the variance: its label. Labels with one image form one group.

    One image has no variance. The group also has the differences of its labels, so the variance is rather too large
    (collapsed strata, Cochran: Sampling techniques, 1977, section 5A.12).
    """
    images = np.bincount(truth)
    single = np.flatnonzero(images == 1)
    if len(single) == 1 and len(images[images > 1]):
        # A single label joins the label with the next fewest images.
        single = np.append(single, np.where(images > 1, images, images.max() + 1).argmin())
    strata = truth.copy()
    strata[np.isin(truth, single)] = single[0] if len(single) else 0
    return strata


def _centred(share: Floats, strata: Ints) -> Floats:
    """Shares without the mean of their group, scaled so that their squares sum to the unbiased variance."""
    images = np.bincount(strata)
    means = np.bincount(strata, share) / np.maximum(images, 1)
    scale = np.sqrt(images / np.maximum(images - 1, 1))
    centred: Floats = (share - means[strata]) * scale[strata]
    return centred
