"""The label sets of a trained classification: its calibration, its promised coverage, and a sentence about both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError, StoreError
from harness.config.coverage import COVERAGE, checked_coverage, coverage_of
from harness.inference.find import SavedRun
from harness.metrics.conformal import Calibration
from harness.predictions.classification import ClassPredictions
from harness.results.store import RUNS, ResultFolder


@dataclass(frozen=True)
class Promise:
    """The promise of the label sets.

    Attributes:
        coverage: the promised probability that a set contains the true label.
        calibration: scores of the out-of-fold images; None where the run has no such file.
        note: one sentence on what the sets promise.
    """

    coverage: float
    calibration: Calibration | None
    note: str

    @classmethod
    def of(cls, run: SavedRun, coverage: float | None) -> Promise:
        """The promise of a run.

        Args:
            run: the run.
            coverage: the promised coverage; None for that of its sweep.

        Raises:
            ConfigError: the coverage is no number between 0 and 1.
            StoreError: the user asks for a coverage, and the run has no usable out-of-fold predictions.
        """
        promised, source = (checked_coverage(coverage), "") if coverage is not None else _of_sweep(run)
        try:
            calibration = Calibration.of(ClassPredictions.load(run.folder))
        except StoreError as error:
            if coverage is not None:
                raise
            return cls(promised, None, f"there are no label sets and no answers: {error}")
        return cls.by(calibration, promised, source)

    @classmethod
    def by(cls, calibration: Calibration, coverage: float, source: str = "") -> Promise:
        """The promise of a calibration.

        Args:
            calibration: scores of the out-of-fold images.
            coverage: the promised coverage.
            source: of the coverage, in words; empty where a user knows it.
        """
        if not calibration.enough(coverage):
            return cls(coverage, calibration, too_few(calibration, coverage))
        note = f"label sets contain the true label with a promised coverage of {coverage:g}{source}"
        return cls(coverage, calibration, f"{note}, from {calibration.images} out-of-fold images")

    def label_sets(
        self, by_fold: npt.NDArray[np.floating], labels: Sequence[str]
    ) -> list[tuple[str, ...]] | list[None]:
        """The label sets of images, the most probable label first.

        Args:
            by_fold: probabilities of each fold, shape (folds, n, labels).
            labels: all labels.

        Returns:
            A set for each image; None for each without a calibration.
        """
        if self.calibration is None:
            return [None] * by_fold.shape[1]
        order = np.argsort(-by_fold.mean(axis=0), axis=1, kind="stable")
        sets = self.calibration.sets(by_fold, self.coverage)
        return [tuple(labels[i] for i in row if inside[i]) for row, inside in zip(order, sets, strict=True)]


def too_few(calibration: Calibration, coverage: float) -> str:
    """The sentence where there are too few calibration images for a coverage.

    Args:
        calibration: of the run.
        coverage: the promised probability that a label set contains the true label.
    """
    return (
        f"coverage: {coverage:g} promised, but {calibration.images} out-of-fold images allow at most "
        f"{calibration.largest:.3g}, so each label set has all labels. Lower the coverage, or train with more images"
    )


def _of_sweep(run: SavedRun) -> tuple[float, str]:
    """The coverage in the config of the run's sweep, and its source in words."""
    if run.folder.resolve().parent.name != RUNS:
        return COVERAGE, " (the default, since the run lies in no result folder)"
    folder = ResultFolder(run.folder.resolve().parent.parent)
    try:
        return coverage_of(folder.read_config()), ""
    except ConfigError as error:
        return COVERAGE, f" (the default, since {folder.config} has an error: {error.problems[0].rstrip('.')})"
