"""The learning curve: image AUROC over `n_train`, for each configuration with runs on several numbers of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.config.axes import ALL_IMAGES, N_TRAIN
from harness.metrics.learning import over_seeds
from harness.report.configurations import Configuration, current, facts, key_without, labels
from harness.report.facts import HIGH, INTERVAL, LOW, dataset, short_names
from harness.report.model_styles import ModelStyles
from harness.report.results import Results
from harness.report.standings import interval
from harness.results.record import RunRecord

SHOWN = 12  # lines of the plot
OF_SEEDS, OF_IMAGES = "draws of training images", "choice of test images"
COLUMNS = ("image_F1Score", "pixel_AUROC", "pixel_AUPRO")
COSTS = ("fit_seconds", "ms_per_image_p50", "model_MB")


@dataclass(frozen=True)
class Point:
    """A configuration on one number of images.

    Attributes:
        images: number of normal images, training and held-out; a mean over the categories.
        whole: whether these are all images.
        runs: of all categories and seeds.
        low, high: 95% interval of the mean image AUROC; None where it is undefined.
        covers: what the interval covers, `OF_SEEDS` or `OF_IMAGES`.
    """

    images: float
    whole: bool
    runs: Configuration
    low: float | None
    high: float | None
    covers: str

    @property
    def value(self) -> float | None:
        """Mean image AUROC over seeds and categories."""
        return self.runs.metric(INTERVAL)

    @property
    def n_train(self) -> int | str:
        """The value of the axis."""
        return ALL_IMAGES if self.whole else round(self.images)


@dataclass(frozen=True)
class Curve:
    """The learning curve of a configuration.

    Attributes:
        dataset: name of the data set.
        label: the axes in which configurations differ, one a line.
        points: at least two, by number of images.
    """

    dataset: str
    label: str
    points: Sequence[Point]

    @property
    def name(self) -> str:
        """The label in one line."""
        return self.label.replace("\n", " ")

    @property
    def last(self) -> Point:
        """The point with the most images."""
        return self.points[-1]


def curves(results: Results) -> list[Curve]:
    """The learning curves, of each data set the best on its most images first; empty where `n_train` does not vary."""
    return results.once("learning curves", lambda: _curves(results))


def _curves(results: Results) -> list[Curve]:
    if len({record.n_train for record in results.ok()}) < 2:
        return []
    groups: dict[tuple[str, str], dict[float, list[RunRecord]]] = {}
    for record in current(results.records):
        group = groups.setdefault((dataset(record), key_without(facts(record), N_TRAIN)), {})
        group.setdefault(record.n_train, []).append(record)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    names = labels([group[max(group)][0] for group in several.values()])
    curves = []
    for ((name, _), group), label in zip(several.items(), names, strict=True):
        points = [_point(results, Configuration(label, tuple(runs))) for runs in group.values()]
        points = [point for point in points if point.value is not None]
        if len(points) > 1:
            curves.append(Curve(name, label, sorted(points, key=lambda point: (point.images, point.whole))))
    order = list(results.configurations)
    return sorted(curves, key=lambda curve: (order.index(curve.dataset), -(curve.last.value or 0.0), curve.label))


def _point(results: Results, runs: Configuration) -> Point:
    ends, covers = over_seeds([*by_seed(runs).values()]), OF_SEEDS
    if ends is None:
        ends, covers = interval(results, runs), OF_IMAGES
    low, high = ends or (None, None)
    images = [float(np.mean([images_of(run) for run in of_category])) for of_category in runs.by_category.values()]
    return Point(float(np.mean(images)), runs.first.spec.get(N_TRAIN) is None, runs, low, high, covers)


def images_of(record: RunRecord) -> int:
    """Number of normal images of a run, training and held-out."""
    return int(record.data["train"]) + int(record.data["val"])


def by_seed(runs: Configuration) -> dict[int, float]:
    """Image AUROC of each seed that has all categories, a mean over the categories.

    Args:
        runs: of one configuration.
    """
    values: dict[int, list[float]] = {}
    for run in runs.records:
        if run.metrics.get(INTERVAL) is not None:
            values.setdefault(int(run.spec["seed"]), []).append(float(run.metrics[INTERVAL] or 0.0))
    complete = max(map(len, values.values()), default=0)
    return {seed: float(np.mean(aurocs)) for seed, aurocs in sorted(values.items()) if len(aurocs) == complete}


def curve_table(results: Results) -> pd.DataFrame:
    """A row for each point of each curve: configuration, number of images, image AUROC with interval, other means."""
    rows = [_row(curve, point) for curve in curves(results) for point in curve.points]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    return frame.drop(columns="data") if frame["data"].nunique() == 1 else frame


def _row(curve: Curve, point: Point) -> dict[str, Any]:
    return {
        "data": curve.dataset,
        "configuration": curve.name,
        N_TRAIN: str(point.n_train),
        "images": round(point.images),
        INTERVAL: point.value,
        LOW: point.low,
        HIGH: point.high,
        "interval_covers": point.covers,
        **{name: point.runs.metric(name) for name in COLUMNS},
        **{name: point.runs.cost(name) for name in COSTS},
        "seeds": len(by_seed(point.runs)),
        "runs": len(point.runs.records),
        "best_run": point.runs.best_run,
    }


def curve_figures(results: Results, sentences: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The lines of each data set with learning curves, for the page.

    Args:
        results: of the result folder.
        sentences: to show above the plot, by data set.
    """
    names = list(results.configurations)
    figures = []
    for index, name in enumerate(names):
        of_dataset = [curve for curve in curves(results) if curve.dataset == name]
        if of_dataset:
            more = len(of_dataset) - SHOWN
            note = [f"The plot has the {SHOWN} best of {len(of_dataset)} configurations."] if more > 0 else []
            lines = [_line(results, curve) for curve in of_dataset[:SHOWN]]
            figures.append({"dataset": index, "sentences": [*sentences.get(name, []), *note], "lines": lines})
    return figures


def _line(results: Results, curve: Curve) -> dict[str, Any]:
    style = ModelStyles.of(results).style(curve.last.runs.first)
    return {"label": curve.label, "style": style, "points": [_figure(one) for one in curve.points]}


def _figure(point: Point) -> dict[str, Any]:
    rounded = {"images": round(point.images, 1), "value": point.value, "low": point.low, "high": point.high}
    return {**rounded, "n_train": str(point.n_train), "run": point.runs.best_run, "covers": point.covers}


def short_name(results: Results, name: str) -> str:
    """The short name of a data set where there are several; empty for the only one.

    Args:
        results: of the result folder.
        name: of the data set.
    """
    names = list(results.configurations)
    return dict(zip(names, short_names(names), strict=True))[name] if len(names) > 1 else ""
