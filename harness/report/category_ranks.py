"""The ranks of configurations over the categories of a data set: a column, a sheet, sentences, a figure of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.metrics.friedman import FEWEST_MEMBERS, FEWEST_SETS, LEVEL, Ranks, rank
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL, short_names
from harness.report.results import Results

MEAN_RANK = "mean_rank"
OF_CATEGORY = "rank "  # before the name of a category
SHOWN = 20  # configurations in the figure
NAMED = 3  # configurations without ranks, by name
FEW = 5  # categories; with fewer, the ranks prove little


@dataclass(frozen=True)
class Ranked:
    """A configuration with its ranks.

    Attributes:
        configuration: with an image AUROC on all categories.
        mean: its mean rank.
        ranks: its rank on each category, in the order of `CategoryRanks.categories`.
    """

    configuration: Configuration
    mean: float
    ranks: Sequence[float]


@dataclass(frozen=True)
class CategoryRanks:
    """The ranks of a data set.

    Attributes:
        categories: those on which some configuration has an image AUROC.
        rows: the configurations that have it on all of them, the best mean rank first; empty without `test`.
        left_out: the other configurations.
        test: Friedman's test and the critical difference; None where too few configurations are complete.
    """

    categories: Sequence[str]
    rows: Sequence[Ranked]
    left_out: Sequence[Configuration]
    test: Ranks | None

    def sentences(self) -> list[str]:
        """The result of the test, its reservations, and the configurations without ranks."""
        return [*self._result(), *self._left_out()]

    def _result(self) -> list[str]:
        categories = f"{len(self.categories)} categories"
        if self.test is None:
            return [f"No ranks: they need {FEWEST_MEMBERS} configurations with an image AUROC on all {categories}."]
        outcome = "the mean ranks differ significantly" if self.test.significant else "no significant difference"
        critical = f"The critical difference is {self.test.critical:.2f}: "
        critical += f"mean ranks that differ by more are significantly different at {LEVEL:.0%}."
        if not self.test.significant:
            critical = f"So the critical difference, {self.test.critical:.2f}, does not count."
        sentences = [
            f"{len(self.rows)} configurations on {categories}. Friedman's test: {outcome} ({p_text(self.test.p)}).",
            critical,
        ]
        if len(self.categories) < FEW:
            sentences.append(
                f"FEW CATEGORIES: with fewer than {FEW} the critical difference is large, and the ranks prove little."
            )
        if self.test.never_significant:
            sentences.append(
                "Even a configuration that is the best on all categories could not differ significantly from one that "
                "is the worst on all."
            )
        return sentences

    def _left_out(self) -> list[str]:
        if not self.left_out:
            return []
        names = "; ".join(one.name for one in self.left_out[:NAMED])
        more = len(self.left_out) - NAMED
        names += f"; and {more} more" if more > 0 else ""
        return [f"Without ranks, because image AUROC is missing on some categories: {names}."]


def p_text(p: float) -> str:
    """A p-value in words, never as 0: such as `p = 0.0312` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.4f}"


def category_ranks(results: Results, dataset: str) -> CategoryRanks | None:
    """Rank the configurations of a data set on each category by image AUROC, a mean over seeds.

    Args:
        results: of the result folder.
        dataset: name of the data set.

    Returns:
        The ranks; None for a data set with fewer than 3 configurations or 2 categories.
    """
    return results.once(("category ranks", dataset), lambda: _ranks(results.configurations[dataset]))


def _ranks(group: Sequence[Configuration]) -> CategoryRanks | None:
    known = sorted({name for one in group for name in one.by_category})
    # Where all test images are of one class, no configuration has an AUROC.
    categories = [name for name in known if any(one.metric(INTERVAL, name) is not None for one in group)]
    if len(group) < FEWEST_MEMBERS or len(categories) < FEWEST_SETS:
        return None
    values = {index: [one.metric(INTERVAL, name) for name in categories] for index, one in enumerate(group)}
    complete = [index for index in values if None not in values[index]]
    left_out = [one for index, one in enumerate(group) if index not in set(complete)]
    if len(complete) < FEWEST_MEMBERS:
        return CategoryRanks(categories, [], left_out, None)
    test = rank(np.array([values[index] for index in complete], dtype=np.float64))
    rows = [
        Ranked(group[index], mean, ranks)
        for index, mean, ranks in zip(complete, test.means.tolist(), test.ranks.tolist(), strict=True)
    ]
    # Of equal mean ranks, the better mean image AUROC comes first, as in `group`.
    return CategoryRanks(categories, sorted(rows, key=lambda row: row.mean), left_out, test)


def mean_ranks(results: Results, dataset: str) -> dict[int, float]:
    """The mean rank of each configuration of a data set that has one, by `id`.

    Args:
        results: of the result folder.
        dataset: name of the data set.
    """
    ranked = category_ranks(results, dataset)
    return {id(row.configuration): row.mean for row in ranked.rows} if ranked else {}


def ranks_table(results: Results) -> pd.DataFrame:
    """A row for each configuration with ranks, the best mean rank of each data set first."""
    rows: list[dict[str, Any]] = []
    for name, ranked in _by_dataset(results):
        for row in ranked.rows:
            ranks = zip(ranked.categories, row.ranks, strict=True)
            rows.append({
                "data": name,
                "configuration": row.configuration.name,
                MEAN_RANK: row.mean,
                INTERVAL: row.configuration.metric(INTERVAL),
                **{OF_CATEGORY + category: value for category, value in ranks},
            } | {"best_run": row.configuration.best_run})  # fmt: skip
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["best_run"] = frame.pop("best_run")  # last, also where data sets have other categories
    return frame if frame["data"].nunique() > 1 else frame.drop(columns="data")


def ranks_notes(results: Results) -> list[str]:
    """The sentences above the sheet; with several data sets, each names its data set."""
    ranked = list(_by_dataset(results))
    return [
        f"{name}: {sentence}" if len(ranked) > 1 else sentence
        for name, of_dataset in ranked
        for sentence in of_dataset.sentences()
    ]


def rank_figures(results: Results) -> list[dict[str, Any]]:
    """The figure of each data set that can have ranks, for the page."""
    figures = []
    for index, dataset in enumerate(results.configurations):
        ranked = category_ranks(results, dataset)
        if ranked is None:
            continue
        sentences = ranked.sentences()
        if len(ranked.rows) > SHOWN:
            more = f"The figure has the {SHOWN} best of {len(ranked.rows)} mean ranks. The sheet Ranks has all."
            sentences.append(more)
        rows = [
            {
                "label": row.configuration.label,
                "run": row.configuration.best_run,
                "rank": row.mean,
                "auroc": row.configuration.metric(INTERVAL),
            }
            for row in ranked.rows[:SHOWN]
        ]
        test = ranked.test
        figures.append({
            "dataset": index,
            "sentences": sentences,
            "critical": test.critical if test else None,
            "significant": bool(test and test.significant),
            "configurations": len(ranked.rows),
            "rows": rows,
        })  # fmt: skip
    return figures


def _by_dataset(results: Results) -> list[tuple[str, CategoryRanks]]:
    """The data sets that can have ranks, with their short names."""
    names = short_names(list(results.configurations))
    ranked = [category_ranks(results, dataset) for dataset in results.configurations]
    return [(name, one) for name, one in zip(names, ranked, strict=True) if one]
