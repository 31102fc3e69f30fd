"""Comparison of configurations and of runs with the best one on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from harness.metrics.best import LEVEL, Comparison, compare_with_best
from harness.metrics.delong import Components, difference
from harness.metrics.intervals import Z, auroc_draws
from harness.metrics.intervals import interval as interval_of
from harness.report.configurations import Configuration, tested_on
from harness.report.facts import INTERVAL
from harness.results.record import RunRecord
from harness.results.scores import TEST

if TYPE_CHECKING:
    from harness.report.results import Results

BEST, AS_GOOD, SIMILAR, WORSE = "best", "as good", "no significant difference", "worse"
# For one, and for several.
VERBS = {
    AS_GOOD: ("is as good", "are as good"),
    SIMILAR: ("has no significant difference from it", "have no significant difference from it"),
    WORSE: ("is worse", "are worse"),
}


@dataclass(frozen=True)
class Standing:
    """The comparison of a run or a configuration with the best one.

    Attributes:
        mark: best, as good (`upper` is below the margin), no significant difference, or worse; empty where no test is
            possible.
        p: adjusted p-value; None for the best itself, or where no test is possible.
        upper: with a confidence of 95%, the metric is lower than that of the best by at most this.
    """

    mark: str = ""
    p: float | None = None
    upper: float | None = None

    @property
    def short(self) -> str:
        """The mark for a narrow table: the p-value where the difference is not significant."""
        return f"p = {self.p:.2f}" if self.mark == SIMILAR and self.p is not None else self.mark

    @classmethod
    def of(cls, p: float, upper: float, margin: float) -> Standing:
        """The standing of one that is not the best.

        Args:
            p: adjusted p-value.
            upper: upper bound of the difference from the best.
            margin: of equal quality. A difference below the margin does not count, even if it is significant.
        """
        return cls(AS_GOOD if upper < margin else WORSE if p < LEVEL else SIMILAR, p, upper)


def in_words(marks: Sequence[str]) -> str:
    """A sentence after the name of the best one: how many of the others have each mark.

    Args:
        marks: of all others, at least one of them not empty.
    """
    if len(marks) == 1:
        return f"The other configuration {VERBS[marks[0]][0]}."
    counts = [(marks.count(mark), verbs) for mark, verbs in VERBS.items()]
    *first, last = [f"{count} {verbs[count > 1]}" for count, verbs in counts if count]
    return f"Of the {len(marks)} others, {', '.join(first)}{' and ' if first else ''}{last}."


def standings(comparison: Comparison, margin: float) -> list[Standing]:
    """The standings of all members of a comparison, the first of which is the best.

    Args:
        comparison: of all members.
        margin: of equal quality.
    """
    pairs = zip(comparison.p.tolist()[1:], comparison.upper.tolist()[1:], strict=True)
    return [Standing(BEST), *(Standing.of(p, upper, margin) for p, upper in pairs)]


def of_configurations(results: Results, group: Sequence[Configuration]) -> list[Standing]:
    """Compare the configurations of a data set with the best one, over all its categories.

    Args:
        results: of the result folder.
        group: all configurations of the data set, best first. Those without runs on the categories of the best, or
            without scores of the same images, get an empty standing.
    """
    best = group[0]
    # No run has an AUROC where all test images are normal, for example.
    categories = [name for name in best.by_category if best.metric(INTERVAL, name) is not None]
    tested = [
        mean_components(results, one, categories) if set(one.by_category) == set(best.by_category) else None
        for one in group
    ]
    reference = tested[0]
    members = [i for i, one in enumerate(tested) if one is not None and reference and one[0] == reference[0]]
    comparison = compare_with_best([one[1] for i in members if (one := tested[i])]) if members and categories else None
    marks = [Standing()] * len(group)
    if comparison is not None:
        for i, standing in zip(members, standings(comparison, results.limits.margin), strict=True):
            marks[i] = standing
    return marks


def mean_components(
    results: Results, configuration: Configuration, categories: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[Components]] | None:
    """The components of a configuration's image AUROC, a mean over seeds.

    Args:
        results: of the result folder.
        configuration: the configuration.
        categories: names of categories.

    Returns:
        For each category the names of the test images, and the components; None where a run has no usable scores.
    """
    names, means = [], []
    for category in categories:
        runs = configuration.by_category.get(category, [])
        scores = [test for run in runs if (test := results.scores(run.run_id))]
        components = [one for run in runs if (one := results.components(run.run_id))]
        if len(components) < max(len(runs), 1) or len({test.names for test in scores}) != 1:
            return None
        names.append(scores[0].names)
        means.append(components[0] if len(runs) == 1 else Components.mean(components))
    return names, means


def difference_interval(
    results: Results, first: Configuration, second: Configuration
) -> tuple[float, float, float] | None:
    """Difference of two configurations' mean image AUROC, with its 95% interval.

    Args:
        results: of the result folder.
        first: the minuend.
        second: the subtrahend.

    Returns:
        The difference, and the lower and upper end; None where the configurations were not tested on the same images,
        or an image class has fewer than 2 images.
    """
    categories = [name for name in first.by_category if first.metric(INTERVAL, name) is not None]
    tested = [mean_components(results, one, categories) for one in (first, second)]
    if tested[0] is None or tested[1] is None or tested[0][0] != tested[1][0]:
        return None
    result = difference(tested[0][1], tested[1][1])
    return None if result is None else (result[0], result[0] - Z * result[1], result[0] + Z * result[1])


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
    marks: dict[str, Standing] = {}
    for runs in groups.values():
        best = max(runs, key=lambda run: run.rank())
        scores = results.scores(best.run_id)
        if scores is None:
            continue
        others = [run for run in runs if run is not best]
        tests = {run.run_id: test for run in runs if (test := results.scores(run.run_id))}
        same = [run for run in (best, *others) if run.run_id in tests and tests[run.run_id].names == scores.names]
        members = [run for run in same if results.components(run.run_id)]
        components = [one for run in members if (one := results.components(run.run_id))]
        if not members or members[0] is not best:
            continue
        comparison = compare_with_best([[one] for one in components])
        if comparison is None:
            marks[best.run_id] = Standing(BEST)
        else:
            of_runs = standings(comparison, results.limits.margin)
            marks |= {run.run_id: mark for run, mark in zip(members, of_runs, strict=True)}
    return marks


def interval(results: Results, configuration: Configuration, role: str = TEST) -> tuple[float, float] | None:
    """95% interval of a configuration's mean image AUROC, by a bootstrap over the images of each category.

    Args:
        results: of the result folder.
        configuration: all its seeds share the bootstrap samples.
        role: of the images; those of the metrics by default.

    Returns:
        Lower and upper end; None where scores are missing or AUROC is undefined.
    """
    if len(configuration.records) == 1:
        stored = configuration.first.intervals.get(INTERVAL)
        return None if stored is None else (stored[0], stored[1])
    mean, means, images = configuration.metric(INTERVAL), [], 0
    for runs in configuration.by_category.values():
        seeds = [scores for run in runs if (scores := results.scores(run.run_id, role)) is not None]
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
