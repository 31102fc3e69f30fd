"""The metric of the best configuration or trial, corrected for the choice on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.common.errors import StoreError
from harness.metrics.selection import auroc_draws, corrected, macro_f1_draws
from harness.predictions.classification import ClassPredictions
from harness.report.results import Results
from harness.results.record import RunRecord

RIVALS = 40  # the best configurations; those behind them are hardly ever the best of a bootstrap sample


def auroc_without_bias(results: Results, members: Sequence[Mapping[str, Sequence[RunRecord]]]) -> float | None:
    """Mean image AUROC of the best member, corrected for the choice among all of them.

    Args:
        results: of the result folder.
        members: of each configuration or trial the runs of each category, of all seeds.

    Returns:
        The estimate; None where it is undefined, or the members were not tested on the same images.
    """
    draws = []
    for index, category in enumerate(members[0]):
        runs = [member.get(category, []) for member in members]
        scores = [test for seeds in runs for run in seeds if (test := results.scores(run.run_id)) is not None]
        if not all(runs) or len(scores) < sum(map(len, runs)) or len({test.names for test in scores}) > 1:
            return None
        if not scores[0].both_classes:
            continue
        drawn = auroc_draws(scores[0].labels, [test.scores for test in scores], seed=index)
        if drawn is None:
            return None
        # All seeds of a category share the bootstrap samples. This is their mean, for each member.
        starts = np.cumsum([0, *map(len, runs)])[:-1]
        draws.append([np.add.reduceat(values, starts, axis=1) / [len(seeds) for seeds in runs] for values in drawn])
    return corrected(*np.mean(draws, axis=0)) if draws else None


def macro_f1_without_bias(results: Results, members: Sequence[Sequence[RunRecord]]) -> float | None:
    """Macro F1 of the best member out of fold, corrected for the choice among all of them.

    Args:
        results: of the result folder.
        members: of each configuration or trial the runs of all seeds.

    Returns:
        The estimate; None where it is undefined, or the members did not predict the same images.
    """
    of_seeds = []
    for seed in dict.fromkeys(record.spec["seed"] for record in members[0]):
        runs = [record for member in members for record in member if record.spec["seed"] == seed]
        try:
            predictions = [ClassPredictions.load(results.folder.run_folder(record.run_id)) for record in runs]
        except StoreError:
            return None
        first = predictions[0]
        if len(predictions) < len(members) or any(one.names != first.names for one in predictions):
            return None
        # All seeds share the bootstrap samples.
        of_seeds.append(macro_f1_draws(first.truth, [one.predicted for one in predictions], len(first.labels)))
    drawn, left_out = np.mean(of_seeds, axis=0)
    return corrected(drawn, left_out)
