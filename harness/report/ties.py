"""Which settings, and which runs, can't be told from the best."""

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
    """How something compares with the best.

    Attributes:
        mark: best, tied or worse; empty where it can't be tested.
        p: two-sided, of DeLong's paired test of image AUROC; None for the best itself, or where it can't be had.
    """

    mark: str = ""
    p: float | None = None


def configurations_against(results: Results, best: Configuration, others: Sequence[Configuration]) -> list[Standing]:
    """Each of `others` (the best may be among them) against the best, over all its categories."""
    return [Standing(BEST) if other is best else _standing(results, best, other) for other in others]


def _standing(results: Results, best: Configuration, other: Configuration) -> Standing:
    if set(best.by_category) != set(other.by_category):
        return Standing()
    pairs = []
    for category, runs in best.by_category.items():
        if all(run.metrics.get(INTERVAL) is None for run in (*runs, *other.by_category[category])):
            # Normal images only, say: nobody has an AUROC there.
            continue
        one, two = (_of_category(results, configuration.by_category[category]) for configuration in (best, other))
        if one is None or two is None or one[0] != two[0]:
            return Standing()
        pairs.append((one[1], two[1]))
    return _mark(paired_test(*zip(*pairs, strict=True))) if pairs else Standing()


def _of_category(results: Results, runs: Sequence[RunRecord]) -> tuple[tuple[str, ...], Components] | None:
    """Names of the test images, and the components of the seeds' mean AUROC on them."""
    found = [(results.scores(run.run_id), results.components(run.run_id)) for run in runs]
    scores, components = [pair[0] for pair in found if pair[0]], [pair[1] for pair in found if pair[1]]
    if len(components) < len(runs) or len({one.names for one in scores}) != 1:
        return None
    return scores[0].names, components[0] if len(runs) == 1 else Components.mean(components)


def runs_against_best(results: Results, records: Sequence[RunRecord]) -> dict[str, Standing]:
    """By run id: each run against the best one on the same test images; none where the best can't be tested."""
    together: dict[str, list[RunRecord]] = {}
    for record in records:
        together.setdefault(tested_on(record), []).append(record)
    found = {}
    for runs in together.values():
        best = max(runs, key=lambda run: run.rank())
        scores, reference = results.scores(best.run_id), results.components(best.run_id)
        if scores is None or reference is None:
            continue
        for run in runs:
            own, components = results.scores(run.run_id), results.components(run.run_id)
            if run is best:
                found[run.run_id] = Standing(BEST)
            elif own is not None and components is not None and own.names == scores.names:
                found[run.run_id] = _mark(paired_test([reference], [components]))
    return found


def _mark(p: float | None) -> Standing:
    return Standing() if p is None else Standing(TIED if p >= LEVEL else WORSE, p)


def interval(results: Results, configuration: Configuration) -> tuple[float, float] | None:
    """95% interval of a setting's mean image AUROC: images of each category drawn anew, the same for all seeds."""
    if len(configuration.records) == 1:
        stored = configuration.first.intervals.get(INTERVAL)
        return None if stored is None else (stored[0], stored[1])
    mean, means, images = configuration.metric(INTERVAL), [], 0
    for runs in configuration.by_category.values():
        found = [scores for run in runs if (scores := results.scores(run.run_id)) is not None]
        if len(found) < len(runs) or len({scores.names for scores in found}) > 1:
            return None
        if found[0].both_classes:
            # Runs on the same images draw the same ones; other categories draw others.
            seed = crc32(tested_on(runs[0]).encode())
            means.append(np.mean([auroc_draws(one.scores, one.labels, seed=seed) for one in found], axis=0))
            images += int(min(found[0].labels.sum(), (~found[0].labels).sum()))
    if mean is None or not means:
        return None
    return interval_of(mean, np.mean(means, axis=0), images)
