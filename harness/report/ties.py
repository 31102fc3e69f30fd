"""Which settings, and which runs, can't be told from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from harness.metrics.delong import Components, paired_test
from harness.metrics.intervals import auroc_draws, quantiles
from harness.record import RunRecord
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.settings import Setting

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


def settings_against(results: Results, best: Setting, others: Sequence[Setting]) -> list[Standing]:
    """Each of `others` (the best may be among them) against the best, over all its categories."""
    return [Standing(BEST) if other is best else _standing(results, best, other) for other in others]


def _standing(results: Results, best: Setting, other: Setting) -> Standing:
    if set(best.by_category) != set(other.by_category):
        return Standing()
    pairs = []
    for category in best.by_category:
        one, two = (_of_category(results, setting.by_category[category]) for setting in (best, other))
        if one is None or two is None or one[0] != two[0]:
            return Standing()
        pairs.append((one[1], two[1]))
    return _mark(paired_test(*zip(*pairs, strict=True)))


def _of_category(results: Results, runs: Sequence[RunRecord]) -> tuple[tuple[str, ...], Components] | None:
    """Names of the test images, and the components of the seeds' mean AUROC on them."""
    found = [(results.scores(run.run_id), results.components(run.run_id)) for run in runs]
    scores, components = [pair[0] for pair in found if pair[0]], [pair[1] for pair in found if pair[1]]
    if len(components) < len(runs) or len({one.names for one in scores}) != 1:
        return None
    return scores[0].names, components[0] if len(runs) == 1 else Components.mean(components)


def runs_against_best(results: Results, records: Sequence[RunRecord]) -> dict[str, Standing]:
    """By run id: each run against the best one on the same test images."""
    together: dict[tuple[str, tuple[str, ...]], list[RunRecord]] = {}
    for record in records:
        scores = results.scores(record.run_id)
        if scores is not None and results.components(record.run_id) is not None:
            together.setdefault((record.data["fingerprint"], scores.names), []).append(record)
    found = {}
    for runs in together.values():
        best = max(runs, key=lambda run: run.rank())
        reference = results.components(best.run_id)
        assert reference is not None
        for run in runs:
            own = results.components(run.run_id)
            assert own is not None
            found[run.run_id] = Standing(BEST) if run is best else _mark(paired_test([reference], [own]))
    return found


def _mark(p: float | None) -> Standing:
    return Standing() if p is None else Standing(TIED if p >= LEVEL else WORSE, p)


def interval(results: Results, setting: Setting) -> tuple[float, float] | None:
    """95% interval of a setting's mean image AUROC: images of each category drawn anew, the same for all seeds."""
    if len(setting.records) == 1:
        stored = setting.first.intervals.get(INTERVAL)
        return None if stored is None else (stored[0], stored[1])
    means = []
    for runs in setting.by_category.values():
        draws = []
        for run in runs:
            scores = results.scores(run.run_id)
            if scores is None or not scores.both_classes:
                return None
            # Runs on the same images draw the same ones; other categories draw others.
            draws.append(auroc_draws(scores.scores, scores.labels, seed=crc32(run.data["fingerprint"].encode())))
        if len({len(one) for one in draws}) > 1:
            return None
        means.append(np.mean(draws, axis=0))
    return quantiles(np.mean(means, axis=0))
