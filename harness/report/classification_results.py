"""The results of a classification that its tables and its page show: predictions, intervals, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError
from harness.config.coverage import COVERAGE, coverage_of
from harness.metrics.conformal import Calibration, RiskCurve, SetQuality
from harness.metrics.macro_f1 import MacroF1, compare_macro_f1, too_many_singles
from harness.metrics.temperature import Temperature
from harness.predictions.classification import ClassPredictions
from harness.report.configurations import Configuration
from harness.report.results import Results
from harness.report.standings import Standing, standings
from harness.results.temperature import temperature_of


@dataclass(frozen=True)
class ClassificationResults:
    """The results of a classification; each file is read once.

    Attributes:
        results: records, and access to the other files of their runs.
    """

    results: Results

    @property
    def configurations(self) -> list[Configuration]:
        """All configurations, best first, data set by data set."""
        return [configuration for group in self.results.configurations.values() for configuration in group]

    def predictions(self, run_id: str) -> ClassPredictions:
        """The class predictions of a run.

        Raises:
            StoreError: the file of predictions is missing or damaged.
        """
        folder = self.results.folder.run_folder(run_id)
        return self.results.once(("predictions", run_id), partial(ClassPredictions.load, folder))

    def truths(self) -> list[npt.NDArray[np.int64]]:
        """True labels of the images with out-of-fold predictions, for each data set."""
        return [self.predictions(group[0].first.run_id).truth for group in self.results.configurations.values()]

    @cached_property
    def coverage(self) -> tuple[float, list[str]]:
        """The promised coverage of prediction sets in config.yaml, and the problems of reading it."""
        folder = self.results.folder
        try:
            return coverage_of(folder.read_config()), []
        except ConfigError as error:
            problems = [f"{folder.config}: {problem}" for problem in error.problems]
            return COVERAGE, [f"{problem} The report shows prediction sets for {COVERAGE}." for problem in problems]

    def calibration(self, run_id: str) -> Calibration:
        """The calibration of a run by its out-of-fold predictions."""
        return self.results.once(("calibration", run_id), lambda: Calibration.of(self.predictions(run_id)))

    def set_quality(self, run_id: str) -> SetQuality | None:
        """Prediction sets of a run's test images; None without test images."""
        predictions = self.predictions(run_id)
        sets = self.calibration(run_id).sets(predictions.test_by_fold, self.coverage[0])
        return SetQuality.of(sets, predictions.test_truth)

    def temperature(self, run_id: str) -> Temperature:
        """The temperature that calibrates a run's probabilities."""
        record = next(one for one in self.results.records if one.run_id == run_id)
        return self.results.once(
            ("temperature", run_id), lambda: temperature_of(record, partial(self.predictions, run_id))
        )

    def risk(self, run_id: str) -> RiskCurve:
        """The risk-coverage curve of a run's out-of-fold predictions, by calibrated probabilities."""
        predictions, temperature = self.predictions(run_id), self.temperature(run_id)
        return self.results.once(
            ("risk", run_id), lambda: RiskCurve.of(predictions.truth, temperature.apply(predictions.probabilities))
        )

    def interval(self, configuration: Configuration) -> tuple[float, float] | None:
        """95% interval of a configuration's mean macro F1 over seeds; None where macro F1 is undefined."""
        estimate = self._estimate(configuration)
        return None if estimate is None else estimate.interval()

    def standings(self, group: Sequence[Configuration]) -> list[Standing]:
        """Compare the configurations of a data set with the best one, on the same images.

        Args:
            group: all configurations of the data set, best first. Those with predictions of other images get an empty
                standing. So do all, where so many labels have one image that the comparison is unreliable.
        """
        return self.results.once(("standings", group[0].first.run_id), lambda: self._standings(group))

    def _standings(self, group: Sequence[Configuration]) -> list[Standing]:
        estimates = [self._estimate(configuration) for configuration in group]
        images = self._images(group[0])
        members = [i for i, one in enumerate(estimates) if one is not None and self._images(group[i]) == images]
        marks = [Standing()] * len(group)
        if too_many_singles(self.predictions(group[0].first.run_id).truth):
            return marks
        if members and members[0] == 0:
            comparison = compare_macro_f1([one for i in members if (one := estimates[i]) is not None])
            for i, standing in zip(members, standings(comparison, self.results.limits.margin), strict=True):
                marks[i] = standing
        return marks

    def _images(self, configuration: Configuration) -> set[tuple[tuple[str, ...], bytes]]:
        """Names and true labels of the images; one entry where all seeds have the same images."""
        several = [self.predictions(record.run_id) for record in configuration.records]
        return {(one.names, one.truth.tobytes()) for one in several}

    def _estimate(self, configuration: Configuration) -> MacroF1 | None:
        """Mean macro F1 over seeds; None without images, or where the seeds have different images."""
        several = [self.predictions(record.run_id) for record in configuration.records]
        if len(self._images(configuration)) > 1 or not len(several[0].names):
            return None
        return self.results.once(
            ("macro F1", configuration.first.run_id),
            lambda: MacroF1.mean([MacroF1.of(one.truth, one.predicted, len(one.labels)) for one in several]),
        )
