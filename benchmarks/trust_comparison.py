"""False and true "worse" in reports of simulated configurations: single tests, Holm's correction, and the harness."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.best import LEVEL, RESAMPLES, compare_with_best
from harness.metrics.delong import Components, paired_test

Rows = list[list[Components]]
MARGIN = 0.01
# Name, true AUROCs, normal and anomalous images, categories, correlation of the scores.
SCENES: tuple[tuple[str, Sequence[float], int, int, int, float], ...] = (
    ("30 equal at 0.90", [0.9] * 30, 20, 40, 1, 0.8),
    ("30 equal at 0.90, little correlated", [0.9] * 30, 20, 40, 1, 0.3),
    ("30 equal at 0.70", [0.7] * 30, 20, 40, 1, 0.8),
    ("30 equal at 0.99", [0.99] * 30, 20, 40, 1, 0.8),
    ("5 equal at 0.90", [0.9] * 5, 20, 40, 1, 0.8),
    ("30 equal at 0.90, more images", [0.9] * 30, 100, 100, 1, 0.8),
    ("10 equal at 0.90, 5 categories", [0.9] * 10, 20, 20, 5, 0.8),
    ("one best: 0.95, 29 at 0.85", [0.95] + [0.85] * 29, 20, 40, 1, 0.8),
    ("15 at 0.92, 15 at 0.80", [0.92] * 15 + [0.8] * 15, 20, 40, 1, 0.8),
    ("30 from 0.95 to 0.75", np.linspace(0.95, 0.75, 30).tolist(), 20, 40, 1, 0.8),
    ("30 from 0.95 to 0.85, more images", np.linspace(0.95, 0.85, 30).tolist(), 100, 100, 1, 0.8),
)
# True AUROC of the best, images of each class, correlation: the others are lower by exactly the margin.
MARGINS = ((0.95, 200, 0.95), (0.95, 1000, 0.95), (0.99, 1000, 0.95))


def comparison(quick: bool) -> list[dict[str, Any]]:
    """A row for each scene: the share of reports with a false "worse", and the share of worse ones that are found.

    Args:
        quick: fewer reports.
    """
    reports = 50 if quick else 1000
    methods: dict[str, Callable[[Rows], npt.NDArray[np.bool_]]] = {
        "single_tests": _single,
        "holm": _holm,
        "harness": lambda rows: _p(rows) < LEVEL,
    }
    rng = np.random.default_rng(0)
    rows = []
    for name, aurocs, normal, anomalous, categories, correlation in SCENES:
        true = np.array(aurocs)
        false: dict[str, list[bool]] = {method: [] for method in methods}
        recalls: dict[str, list[float]] = {method: [] for method in methods}
        for _ in range(reports):
            order, report = _report(rng, true, normal, anomalous, categories, correlation)
            worse = true[order] < true.max()
            for method, test in methods.items():
                called = test(report)
                false[method].append(bool(called[~worse].any()))
                recalls[method].append(float(called[worse].mean()) if worse.any() else np.nan)
        row: dict[str, Any] = {"scene": name, "reports": reports}
        for method in methods:
            row[f"{method}_false"] = round(float(np.mean(false[method])), 3)
            power = float(np.mean(recalls[method]))
            row[f"{method}_found"] = None if np.isnan(power) else round(power, 3)
        rows.append(row)
    return rows


def equivalence(quick: bool) -> list[dict[str, Any]]:
    """A row for each scene: the share of reports that call one "as good" that is lower by the whole margin.

    Args:
        quick: fewer reports.
    """
    reports = 20 if quick else 300
    rng = np.random.default_rng(1)
    rows = []
    for best, images, correlation in MARGINS:
        true = np.array([best] + [best - MARGIN] * 9)
        wrong = []
        for _ in range(reports):
            order, report = _report(rng, true, images, images, 1, correlation)
            result = compare_with_best(report)
            assert result is not None
            # Against another best one these are equal, so that calling them as good is right.
            wrong.append(order[0] == 0 and bool((result.upper[1:] < MARGIN).any()))
        row = {"best": best, "images_of_a_class": images, "reports": reports}
        rows.append(row | {"false_as_good": round(float(np.mean(wrong)), 3)})
    return rows


def comparison_time(quick: bool) -> list[dict[str, Any]]:
    """A row with the seconds of one comparison of many configurations, beside Holm's correction of DeLong's tests.

    Args:
        quick: one repetition instead of five.
    """
    configurations, images = 100, 500
    _, report = _report(np.random.default_rng(2), np.linspace(0.95, 0.75, configurations), images, images, 1, 0.8)
    methods: dict[str, Callable[[Rows], object]] = {"harness": compare_with_best, "holm": _holm}
    row: dict[str, Any] = {"configurations": configurations, "images": 2 * images, "resamples": RESAMPLES}
    for name, method in methods.items():
        seconds = []
        for _ in range(1 if quick else 5):
            start = time.perf_counter()
            method(report)
            seconds.append(time.perf_counter() - start)
        row[f"{name}_seconds"] = round(median(seconds), 3)
    return [row]


def _report(
    rng: np.random.Generator, true: npt.NDArray[np.float64], normal: int, anomalous: int, categories: int, rho: float
) -> tuple[npt.NDArray[np.int64], Rows]:
    """The configurations of a report, best first: their indices, and their components on each category."""
    labels = np.arange(normal + anomalous) >= normal
    rows: Rows = [[] for _ in true]
    for _ in range(categories):
        own = rng.standard_normal((len(true), len(labels)))
        scores = np.sqrt(rho) * rng.standard_normal(len(labels)) + np.sqrt(1 - rho) * own
        scores += np.sqrt(2) * np.array([NormalDist().inv_cdf(auroc) for auroc in true])[:, None] * labels
        for row, values in zip(rows, scores, strict=True):
            row.append(Components.of(values, labels))
    order = np.argsort([-np.mean([one.auroc for one in row]) for row in rows], kind="stable")
    return order, [rows[index] for index in order]


def _p(rows: Rows) -> npt.NDArray[np.float64]:
    result = compare_with_best(rows)
    assert result is not None
    return result.p


def _delong(rows: Rows) -> npt.NDArray[np.float64]:
    """p-values of DeLong's test of each configuration against the best."""
    return np.array([1.0] + [p if (p := paired_test(rows[0], row)) is not None else 1.0 for row in rows[1:]])


def _single(rows: Rows) -> npt.NDArray[np.bool_]:
    return _delong(rows) < LEVEL


def _holm(rows: Rows) -> npt.NDArray[np.bool_]:
    """Holm's step-down correction of DeLong's tests against the best."""
    p = _delong(rows)
    order = np.argsort(p)[: len(rows) - 1]
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    called = np.zeros(len(rows), dtype=bool)
    called[order] = adjusted <= LEVEL
    return called
