"""How often 95% intervals contain the truth, and how often tests call an equally good classifier worse; by simulation.

`before` is the method of version 0.4 and earlier, which this module keeps for the comparison. `after` is the method of
the harness. The truth is known, since the data come from known probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.coverage import COVERAGE
from harness.metrics.best import LEVEL
from harness.metrics.classification import f1_of_labels, macro_f1
from harness.metrics.conformal import Calibration
from harness.metrics.intervals import Z, _resampled, interval
from harness.metrics.macro_f1 import MacroF1, compare_macro_f1
from harness.metrics.ranking import Ranking, measure
from harness.registry import metric

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ends = tuple[float, float] | None

LABELS, IMAGES, ACCURACIES = (16, 88), (2, 3, 5, 10, 30), (0.6, 0.85, 0.97)
LARGEST = 1_500  # test images of a simulation
DRAWS = 300  # of the old bootstrap and of the new comparison
CONFIGURATIONS, SHARED = 8, 0.8  # of a simulated report, and the share of images with equal predictions
IMAGE_COUNTS = ((10, 10), (20, 20), (20, 100), (100, 20), (50, 50))  # normal, anomalous
SHIFTS = (1.0, 2.0, 3.0)  # distance of the classes in standard deviations
POPULATION = 100_000  # images for the true image metrics
FOLDS, NOISES, CALIBRATION, SET_LABELS = (1, 3, 5), (0.1, 0.5), (20, 60, 200), 6  # of prediction sets
IMAGE_METRICS = ("image_AUROC", "image_AP", "image_F1Max")


def coverage(quick: bool) -> list[dict[str, Any]]:
    """Coverage of intervals and false positives of tests, before and after.

    Args:
        quick: whether to run few simulations of few cases.

    Returns:
        A row for each case: what, the case in words, and shares `before` and `after`.
    """
    repetitions = 20 if quick else 200
    rows = [row for case in _cases(quick) for row in _macro_f1_case(*case, repetitions)]
    counts, shifts = (IMAGE_COUNTS[:1], SHIFTS[:1]) if quick else (IMAGE_COUNTS, SHIFTS)
    return rows + [row for sizes in counts for shift in shifts for row in _image_case(*sizes, shift, repetitions)]


def _cases(quick: bool) -> Iterator[tuple[str, int, int, float]]:
    for labels in LABELS[:1] if quick else LABELS:
        for tail in ("equal", "long", "single"):
            for accuracy in ACCURACIES[:1] if quick else ACCURACIES:
                for images in IMAGES[:1] if quick else IMAGES:
                    if sizes(tail, labels, images).sum() <= LARGEST:
                        yield tail, labels, images, accuracy


def sizes(tail: str, labels: int, images: int) -> Ints:
    """Images of each label: all `images`; or half of them more, up to ten times; or half of those with one image."""
    counts = np.full(labels, images)
    if tail != "equal":
        counts[labels // 2 :] = np.round(images * 10 ** np.linspace(0, 1, labels - labels // 2))
    if tail == "single":
        counts[: labels // 2] = 1
    return counts


def _macro_f1_case(tail: str, labels: int, images: int, accuracy: float, repetitions: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    counts = sizes(tail, labels, images)
    truth = np.repeat(np.arange(labels), counts)
    covered, false = np.zeros((repetitions, 2)), np.zeros((repetitions, 2))
    for i in range(repetitions):
        chances = _confusions(rng, labels, accuracy)
        expected = float(f1_of_labels((chances * counts[:, None] * 10**9).astype(np.int64)).mean())
        predictions = _correlated(rng, chances, truth)
        ends = (_old_interval(truth, predictions[0], labels), MacroF1.of(truth, predictions[0], labels).interval())
        covered[i] = [low <= expected <= high for low, high in ends]
        false[i] = _old_test(truth, predictions, labels), _new_test(truth, predictions, labels)
    case = f"{labels} labels, {tail}, {images} images, accuracy {accuracy}"
    return [
        {"what": statement, "case": case, "before": round(float(before), 3), "after": round(float(after), 3)}
        for statement, (before, after) in (
            ("interval of macro F1 contains the truth", covered.mean(axis=0)),
            ("report calls an equally good configuration worse", false.mean(axis=0)),
        )
    ]


def _confusions(rng: np.random.Generator, labels: int, accuracy: float) -> Floats:
    """Probabilities of the predicted label for each true label: labels differ, and few labels take most errors."""
    right = rng.beta(12 * accuracy, 12 * (1 - accuracy), size=labels)
    chances = np.zeros((labels, labels))
    for label, share in enumerate(right):
        chances[label, np.arange(labels) != label] = rng.dirichlet(np.full(labels - 1, 0.1)) * (1 - share)
        chances[label, label] = share
    return chances


def _correlated(rng: np.random.Generator, chances: Floats, truth: Ints) -> list[Ints]:
    """Predictions of equally good configurations: most images have the same prediction in all of them."""

    def predicted() -> Ints:
        drawn: Ints = (rng.random((len(truth), 1)) > chances.cumsum(axis=1)[truth]).sum(axis=1)
        return drawn.clip(max=len(chances) - 1)

    common = predicted()
    return [np.where(rng.random(len(truth)) < SHARED, common, predicted()) for _ in range(CONFIGURATIONS)]


def _old_draws(truth: Ints, predicted: list[Ints], labels: int) -> Floats:
    """Macro F1 of each configuration in each draw of a bootstrap of the images of each label, shape (DRAWS, k)."""
    first = np.searchsorted(truth, truth)
    count = np.bincount(truth)[truth]
    drawn = first + (np.random.default_rng(0).random((DRAWS, len(truth))) * count).astype(np.int64)
    rows = labels * np.arange(DRAWS)[:, None]
    columns = []
    for one in predicted:
        places = one[drawn] + rows
        all_of, right = (
            np.bincount(cells.ravel(), minlength=DRAWS * labels).reshape(DRAWS, labels)
            for cells in (places, places[one[drawn] == truth])
        )
        columns.append((2 * right / (np.bincount(truth) + all_of)).mean(axis=1))
    return np.stack(columns, axis=1)


def _old_interval(truth: Ints, predicted: Ints, labels: int) -> tuple[float, float]:
    draws = _old_draws(truth, [predicted], labels)[:, 0]
    ends = _old_ends(macro_f1(truth, predicted, labels), draws, len(truth))
    assert ends is not None
    return ends


def _old_ends(value: float, draws: Floats, images: int) -> Ends:
    """The interval without the corrections for few images: the normal quantile, and a variance divided by n."""
    defined = draws[~np.isnan(draws)]
    if not 0 < value < 1:
        return interval(value, draws, images)
    half_width = Z * float(defined.std()) / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = (float(1 / (1 + np.exp(-logit - sign * half_width))) for sign in (-1, 1))
    return low, high


def _old_test(truth: Ints, predictions: list[Ints], labels: int) -> bool:
    """Whether a separate paired bootstrap calls any configuration worse than the selected best."""
    draws = _old_draws(truth, predictions, labels)
    best = int(np.argmax([macro_f1(truth, one, labels) for one in predictions]))
    differences = draws[:, [best]] - np.delete(draws, best, axis=1)
    p = 2 * np.minimum((differences <= 0).mean(axis=0), (differences >= 0).mean(axis=0))
    return bool((p < LEVEL).any())


def _new_test(truth: Ints, predictions: list[Ints], labels: int) -> bool:
    ranked = sorted((MacroF1.of(truth, one, labels) for one in predictions), key=lambda one: -one.value)
    return bool((compare_macro_f1(ranked, DRAWS).p < LEVEL).any())


def _image_case(normal: int, anomalous: int, shift: float, repetitions: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)

    def scores(times: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        labels = np.repeat([False, True], [normal * times, anomalous * times])
        return rng.standard_normal(len(labels)) + shift * labels, labels

    truth = measure("image", Ranking.of(*scores(POPULATION // (normal + anomalous)), None))
    covered: dict[str, list[tuple[bool, bool]]] = {name: [] for name in IMAGE_METRICS}
    for _ in range(repetitions):
        sample, labels = scores(1)
        values = measure("image", Ranking.of(sample, labels, None))
        batches = [measure("image", ranking) for ranking in _resampled(sample, labels, None, DRAWS, 0)]
        for name, rows in covered.items():
            draws = np.concatenate([batch[name] for batch in batches])
            value, images = float(values[name]), min(normal, anomalous)
            old, new = _old_ends(value, draws, images), interval(value, draws, images, metric(name).optimistic)
            rows.append((_inside(old, float(truth[name])), _inside(new, float(truth[name]))))
    case = f"{normal} + {anomalous} images, distance {shift}"
    return [
        {"what": f"interval of {name} contains the truth", "case": case,
         "before": round(float(np.mean(rows, axis=0)[0]), 3), "after": round(float(np.mean(rows, axis=0)[1]), 3)}
        for name, rows in covered.items()
    ]  # fmt: skip


def _inside(ends: Ends, value: float) -> bool:
    return ends is not None and ends[0] <= value <= ends[1]


def promises(quick: bool) -> list[dict[str, Any]]:
    """Promised and realised coverage of prediction sets.

    Args:
        quick: whether to run few simulations.

    Returns:
        A row for each case: folds, how unlike the networks of the folds are, calibration images, promised and realised
        coverage, and the mean number of labels in a set.
    """
    repetitions, rows = 20 if quick else 400, []
    for folds in FOLDS:
        for noise in NOISES if folds > 1 else NOISES[:1]:
            for images in CALIBRATION:
                rng = np.random.default_rng(0)
                simulations = [_promise(rng, folds, noise, images) for _ in range(repetitions)]
                realised, labels = np.mean(simulations, axis=0)
                rows.append({
                    "folds": folds, "noise": noise, "images": images, "promised": COVERAGE,
                    "realised": round(float(realised), 3), "labels": round(float(labels), 2),
                })  # fmt: skip
    return rows


def _promise(rng: np.random.Generator, folds: int, noise: float, images: int) -> tuple[float, float]:
    """Realised coverage and mean number of labels in a set, on as many new images."""
    truth, by_fold = _probabilities(rng, folds, noise, images)
    fold = np.arange(images) % folds
    own = 1 - by_fold[fold, np.arange(images), truth]
    calibration = Calibration(tuple(np.sort(own[fold == number]) for number in range(folds)))
    truth, by_fold = _probabilities(rng, folds, noise, images)
    sets = calibration.sets(by_fold, COVERAGE)
    return float(sets[np.arange(images), truth].mean()), float(sets.sum(axis=1).mean())


def _probabilities(rng: np.random.Generator, folds: int, noise: float, images: int) -> tuple[Ints, Floats]:
    """True labels, and probabilities of unsure networks, shape (folds, images, labels).

    The error of the evidence has the same size for each `noise`: this is the share that the networks do not have in
    common.
    """
    truth = rng.integers(SET_LABELS, size=images)
    common, own = rng.standard_normal((1, images, SET_LABELS)), rng.standard_normal((folds, images, SET_LABELS))
    evidence = 1.5 * np.eye(SET_LABELS)[truth] + np.sqrt(1 - noise) * common + np.sqrt(noise) * own
    odds = np.exp(2 * evidence)
    return truth, odds / odds.sum(axis=-1, keepdims=True)
