"""`with_detector`: detectors and rules beside the networks of a run, see class_detectors.py and good_rule.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from harness.backends.base import RunContext
from harness.backends.supervised.class_detectors import (
    KEY,
    ClassDetector,
    Place,
    classes_with_detector,
    fit_detectors,
)
from harness.backends.supervised.fold import FoldResult
from harness.backends.supervised.good_rule import Classes, Floats, Mask, Positions, Rule, apply_rule, fit_rule
from harness.data.base import listed
from harness.data.labelled.base import LabelledSplit
from harness.detectors.base import Detector, State
from harness.metrics.classification import accuracy, macro_f1_of_fold
from harness.predictions.classification import truth_of

PARTS = 5  # of the out-of-fold images, where a run has one fold only


@dataclass(frozen=True)
class Models:
    """What a prediction needs beside the networks.

    Attributes:
        detector: parameters and network of all detectors.
        classes: the classes of the labels, and those with a detector.
        states: the fitted detectors, by fold and class.
        rules: the rule of each fold; None for a fold without one.
    """

    detector: Detector
    classes: Classes
    states: Mapping[Place, State]
    rules: Mapping[int, Rule | None]


@dataclass(frozen=True)
class _Scored:
    """The scores of the validation images of a fold, then of the test images.

    Attributes:
        fold: result of the networks.
        predicted: the most probable class of each image.
        positions: positions of the images among all images.
        scores: score of the detector of this class; NaN without a detector.
        seconds: time of the detectors' training, and of their scores.
    """

    fold: FoldResult
    predicted: Positions
    positions: npt.NDArray[np.int64]
    scores: Floats
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @classmethod
    def of(cls, fold: FoldResult, classes: Classes, split: LabelledSplit) -> _Scored:
        probabilities = np.concatenate([fold.probabilities, fold.test_probabilities])
        positions = np.array([*fold.indices, *range(len(split.train), len(split.train) + len(split.test))], dtype=int)
        return cls(fold, classes.predicted(probabilities), positions, np.full(len(positions), np.nan))

    def accept(self, rows: Positions, fitted: ClassDetector) -> None:
        """Take the scores of some images, and the times of their detector."""
        self.scores[rows] = fitted.scores
        self.seconds[0] += fitted.fit_seconds
        self.seconds[1] += fitted.test_seconds

    @property
    def out_of_fold(self) -> slice:
        return slice(0, len(self.fold.indices))

    @property
    def test(self) -> slice:
        return slice(len(self.fold.indices), None)


def add_detectors(
    detector: Detector, split: LabelledSplit, context: RunContext, folds: Sequence[FoldResult]
) -> tuple[list[FoldResult], Models, list[str]]:
    """Fit detectors on the training images of each fold, fit rules out of fold, and change the probabilities by them.

    The detector of an image is that of its most probable class. A detector of another class has never seen such a
    part, so its score would say nothing.

    Args:
        detector: parameters of the detectors.
        split: the data.
        context: resources and options.
        folds: results of the networks.

    Returns:
        The results of the folds after the rules; what a prediction of new images needs; and warnings.
    """
    good = classes_with_detector(split, detector.least_images)
    classes = Classes.of([name for name, _ in split.label_specs], good)
    scored = {fold.number: _Scored.of(fold, classes, split) for fold in folds}
    rows = {
        (number, name): np.flatnonzero(one.predicted == classes.names.index(name))
        for number, one in scored.items()
        for name in good
    }
    requests = {place: scored[place[0]].positions[chosen].tolist() for place, chosen in rows.items()}
    states: dict[Place, State] = {}
    warnings = dict.fromkeys(_class_warnings(classes))
    for place, fitted in fit_detectors(detector, split, context, requests):
        states[place] = fitted.state
        scored[place[0]].accept(rows[place], fitted)
        warnings |= dict.fromkeys(f"{KEY}: {text}" for text in fitted.warnings)
    rules, changed = _with_rules(classes, list(scored.values()), truth_of(split.train, split.labels))
    if missing := [str(number) for number, rule in rules.items() if rule is None]:
        text = (
            f"{KEY}: no rule for fold {', '.join(missing)}, whose networks predict alone; the other folds have too few"
        )
        warnings[f"{text} good or defective images, or larger scores are no sign of a defect"] = None
    return changed, Models(detector, classes, states, rules), list(warnings)


def _class_warnings(classes: Classes) -> list[str]:
    without = [name for name, position in zip(classes.names, classes.good, strict=True) if position < 0]
    return [f"{KEY}: no detector for {listed(without)}; a class needs other conditions beside good, and enough good "
            "images"] if without else []  # fmt: skip


def _with_rules(
    classes: Classes, scored: Sequence[_Scored], truth: Positions
) -> tuple[dict[int, Rule | None], list[FoldResult]]:
    """Fit the rule of each fold on the other folds, and apply it.

    With one fold only, five parts of its images take the place of the folds, and all of them fit the rule of the test.
    """
    probabilities = np.concatenate([one.fold.probabilities for one in scored])
    predicted = np.concatenate([one.predicted[one.out_of_fold] for one in scored])
    scores = np.concatenate([one.scores[one.out_of_fold] for one in scored])
    labels = np.concatenate([truth[list(one.fold.indices)] for one in scored])
    numbers = np.concatenate([np.full(len(one.fold.indices), one.fold.number) for one in scored])
    parts = numbers if len(scored) > 1 else _parts(labels)
    # The rule can only put an image right whose class is right.
    usable = np.isfinite(scores) & classes.members[predicted, labels]

    def fitted(rows: Mask) -> Rule | None:
        own = predicted[rows]
        shares = classes.good_share(probabilities[rows], own)
        return fit_rule([classes.names[c] for c in own], shares, scores[rows], labels[rows] == classes.good[own])

    of_part = {part: fitted(usable & (parts != part)) for part in np.unique(parts).tolist()}
    rules = of_part if len(scored) > 1 else {scored[0].fold.number: fitted(usable)}
    changed = []
    for one in scored:
        parts_of_fold = parts[numbers == one.fold.number]
        changed.append(_changed(one, classes, parts_of_fold, of_part, rules[one.fold.number], truth))
    return rules, changed


def _changed(
    one: _Scored,
    classes: Classes,
    parts: npt.NDArray[np.int64],
    of_part: Mapping[int, Rule | None],
    rule: Rule | None,
    truth: Positions,
) -> FoldResult:
    fold = one.fold
    predicted, scores = one.predicted[one.out_of_fold], one.scores[one.out_of_fold]
    averaged, plain = fold.probabilities.copy(), fold.plain.copy()
    for part in np.unique(parts).tolist():
        rows = parts == part
        for values in (averaged, plain):
            values[rows] = apply_rule(of_part[part], classes, values[rows], predicted[rows], scores[rows])
    of_test = apply_rule(rule, classes, fold.test_probabilities, one.predicted[one.test], one.scores[one.test])
    labels, most_probable = truth[list(fold.indices)], averaged.argmax(axis=1)
    record = {
        **fold.record,
        "macro_F1": macro_f1_of_fold(labels, most_probable),
        "accuracy": accuracy(labels, most_probable),
        "network_macro_F1": fold.record["macro_F1"],
    }
    return replace(
        fold,
        probabilities=averaged,
        plain=plain if fold.plain is not fold.probabilities else averaged,
        network=fold.probabilities,
        test_probabilities=of_test,
        record=record,
        fit_seconds=fold.fit_seconds + one.seconds[0],
        test_seconds=fold.test_seconds + one.seconds[1],
    )


def _parts(labels: Positions) -> npt.NDArray[np.int64]:
    """The part of each image; each label has about equally many images in each part."""
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.zeros(len(labels), dtype=np.int64)
    by_label = order[np.argsort(labels[order], kind="stable")]
    parts[by_label] = np.arange(len(labels)) % PARTS
    return parts
