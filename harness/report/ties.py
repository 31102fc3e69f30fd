"""Paired tests of configurations and of runs against the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from harness.metrics.delong import Components, paired_test
from harness.metrics.intervals import auroc_draws
from harness.metrics.intervals import interval as interval_of
from harness.report.configurations import Configuration, tested_on
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.results.record import RunRecord

LEVEL = 0.05
BEST, TIED, WORSE = "best", "tied", "worse"


@dataclass(frozen=True)
class Standing:
    """The comparison of a run or a configuration with the best one.

    Attributes:
        mark: best, tied (no significant difference) or worse; empty where no test is possible.
        p: two-sided p value of the paired test; None for the best itself, or where no test is possible.
    """

    mark: str = ""
    p: float | None = None


def configurations_against(results: Results, best: Configuration, others: Sequence[Configuration]) -> list[Standing]:
    """Compare configurations with the best one, over all its categories.

    Args:
        results: of the result folder.
        best: the best configuration of the data set.
        others: the configurations to compare; the best may be among them.

    Returns:
        A standing for each of `others`, in their order.
    """
    return [Standing(BEST) if other is best else _standing(results, best, other) for other in others]


def _standing(results: Results, best: Configuration, other: Configuration) -> Standing:
    if set(best.by_category) != set(other.by_category):
        return Standing()
    pairs = []
    for category, runs in best.by_category.items():
        if all(run.metrics.get(INTERVAL) is None for run in (*runs, *other.by_category[category])):
            # No run has an AUROC where all test images are normal, for example.
            continue
        left, right = (_mean_components(results, one.by_category[category]) for one in (best, other))
        if left is None or right is None or left[0] != right[0]:
            return Standing()
        pairs.append((left[1], right[1]))
    return _mark(paired_test(*zip(*pairs, strict=True))) if pairs else Standing()


def _mean_components(results: Results, runs: Sequence[RunRecord]) -> tuple[tuple[str, ...], Components] | None:
    """Names of the test images, and the components of the mean AUROC over seeds on them."""
    pairs = [(results.scores(run.run_id), results.components(run.run_id)) for run in runs]
    scores, components = [pair[0] for pair in pairs if pair[0]], [pair[1] for pair in pairs if pair[1]]
    if len(components) < len(runs) or len({test.names for test in scores}) != 1:
        return None
    return scores[0].names, components[0] if len(runs) == 1 else Components.mean(components)


def runs_against_best(results: Results, records: Sequence[RunRecord]) -> dict[str, Standing]:
    """Compare each run with the best one on the same test images.

    Args:
        results: of the result folder.
        records: the runs.

    Returns:
        Standings by run id; runs whose best run has no usable scores are missing.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(tested_on(record), []).append(record)
    standings = {}
    for runs in groups.values():
        best = max(runs, key=lambda run: run.rank())
        scores, reference = results.scores(best.run_id), results.components(best.run_id)
        if scores is None or reference is None:
            continue
        for run in runs:
            run_scores, components = results.scores(run.run_id), results.components(run.run_id)
            if run is best:
                standings[run.run_id] = Standing(BEST)
            elif run_scores is not None and components is not None and run_scores.names == scores.names:
                standings[run.run_id] = _mark(paired_test([reference], [components]))
    return standings


def _mark(p: float | None) -> Standing:
    return Standing() if p is None else Standing(TIED if p >= LEVEL else WORSE, p)


def interval(results: Results, configuration: Configuration) -> tuple[float, float] | None:
    """95% interval of a configuration's mean image AUROC, by a bootstrap over the images of each category.

    Args:
        results: of the result folder.
        configuration: all its seeds share the bootstrap samples.

    Returns:
        Lower and upper end; None where scores are missing or AUROC is undefined.
    """
    if len(configuration.records) == 1:
        stored = configuration.first.intervals.get(INTERVAL)
        return None if stored is None else (stored[0], stored[1])
    mean, means, images = configuration.metric(INTERVAL), [], 0
    for runs in configuration.by_category.values():
        seeds = [scores for run in runs if (scores := results.scores(run.run_id)) is not None]
        if len(seeds) < len(runs) or len({scores.names for scores in seeds}) > 1:
            return None
        if seeds[0].both_classes:
            # Equal images get equal bootstrap samples, which paired comparisons need; categories get different ones.
            seed = crc32(tested_on(runs[0]).encode())
            means.append(np.mean([auroc_draws(test.scores, test.labels, seed=seed) for test in seeds], axis=0))
            images += int(min(seeds[0].labels.sum(), (~seeds[0].labels).sum()))
    if mean is None or not means:
        return None
    return interval_of(mean, np.mean(means, axis=0), images)
