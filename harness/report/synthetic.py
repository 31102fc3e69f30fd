"""The ranking by synthetic defects: the answer without labels, and its agreement with the ranking by labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.common.errors import StoreError
from harness.data.synthetic import ENOUGH, background
from harness.metrics.synthetic import EQUAL, Wins, share_of_equals
from harness.registry import SYNTHETIC_AUROC
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.scores import SYNTHETIC, read_calibration

# `synthetic` of `python -m benchmarks trust` measures both limits of a stable ranking: this one, and `ENOUGH`.
MOST_EQUALS = 0.25  # largest share of configurations that may equal the first one
CAUTION = "Synthetic defects differ from real ones: test the choice on real defects as soon as you have some."


@dataclass(frozen=True)
class SyntheticRanking:
    """Configurations of a data set by synthetic AUROC, a mean over categories and seeds.

    Attributes:
        configurations: those that scored the same synthetic defects on all categories, best first.
        left_out: number of other configurations.
        held_out: smallest number of held-out images of a category.
        equals: share of the others that equal the first one, see `harness.metrics.synthetic.share_of_equals`. None
            where the scores can't be used, or for a single configuration.
    """

    configurations: Sequence[Configuration]
    left_out: int
    held_out: int
    equals: float | None

    @property
    def values(self) -> list[float]:
        """Synthetic AUROC of each configuration."""
        return [one.metric(SYNTHETIC_AUROC) or 0.0 for one in self.configurations]

    @property
    def stable(self) -> bool:
        """Whether the first one can be recommended."""
        if len(self.configurations) == 1:
            return True
        return self.equals is not None and self.equals <= MOST_EQUALS and self.held_out >= ENOUGH

    @property
    def labelled(self) -> list[float] | None:
        """Image AUROC of each configuration; None where it is undefined."""
        values = [value for one in self.configurations if (value := one.metric(INTERVAL)) is not None]
        return values if len(values) == len(self.configurations) else None

    def ranks(self) -> dict[int, int]:
        """The rank of each configuration, by `id`; equal ones share the better rank."""
        return dict(zip(map(id, self.configurations), _ranks(self.values), strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """Both rankings for the page: for each configuration its name, best run, AUROCs and ranks."""
        labelled = self.labelled
        ranks = _ranks(labelled) if labelled else [None] * len(self.values)
        columns = zip(self.configurations, labelled or ranks, ranks, self.values, _ranks(self.values), strict=True)
        return [
            {"name": one.name, "run": one.best_run, "auroc": auroc, "rank": rank, "synthetic": value, "place": place}
            for one, auroc, rank, value, place in columns
        ]

    def sentences(self) -> list[str]:
        """How the first one was chosen, for a stable ranking."""
        count = len(self.configurations)
        text = "It is the only configuration."
        if self.equals is not None:
            text = (
                f"Synthetic AUROC {self.values[0]:.3f}, the highest of {count} configurations. "
                f"{round(self.equals * (count - 1))} others are at least as good in {EQUAL:.0%} or more of the "
                "bootstrap samples of held-out images and kinds of defects."
            )
        left_out = f"Left out, because they scored other synthetic defects or none: {self.left_out}."
        undefined = "Image AUROC is undefined, because the test images are all normal or all anomalous."
        return [CAUTION, undefined, text, *([left_out] if self.left_out else [])]

    def unstable(self) -> str:
        """Why the first one is not recommended, and what to do."""
        text = "The ranking by synthetic defects is unstable"
        if self.held_out < ENOUGH:
            return f"{text}: {self.held_out} held-out images found; expected at least {ENOUGH}. Raise data.val."
        if self.equals is None:
            return f"{text}: scores of some runs can't be used. Run the sweep again."
        return (
            f"{text}: {self.equals:.0%} of the other configurations equal {self.configurations[0].name}; expected at "
            f"most {MOST_EQUALS:.0%}. Raise data.val, try more different configurations, or test on real defects."
        )


def synthetic_ranking(results: Results, group: Sequence[Configuration]) -> SyntheticRanking | None:
    """Rank configurations by synthetic AUROC.

    Args:
        results: of the result folder.
        group: configurations of one data set.

    Returns:
        The ranking; None where no configuration has synthetic AUROC.
    """
    images = {id(one): _images(one) for one in group if _scored(one)}
    if not images:
        return None
    # Another share of held-out images gives other synthetic defects.
    (most, _), *_ = Counter(images.values()).most_common(1)
    members = [one for one in group if images.get(id(one)) == most]
    # As in `Configuration.rank` without labels: no true label decides a tie here.
    members.sort(key=lambda one: (one.metric(SYNTHETIC_AUROC) or 0.0, one.label), reverse=True)
    held_out = min(run.data["val"] for run in members[0].records)
    return SyntheticRanking(members, len(group) - len(members), held_out, _equals(results, members))


def dataset_ranking(results: Results, dataset: str) -> SyntheticRanking | None:
    """The ranking of all configurations of a data set, see `synthetic_ranking`.

    Args:
        results: of the result folder.
        dataset: name of the data set.
    """
    group = results.configurations[dataset]
    return results.once(("synthetic ranking", dataset), lambda: synthetic_ranking(results, group))


def agreement(results: Results, dataset: str) -> str:
    """How well both rankings agree; empty without labels or without synthetic defects.

    Args:
        results: of the result folder.
        dataset: name of the data set.
    """
    ranking = dataset_ranking(results, dataset)
    true = None if ranking is None else ranking.labelled
    if ranking is None or true is None or len(true) < 2:
        return ""
    tau, regret = tau_and_regret(true, ranking.values)
    text = "undefined, because all values are equal" if np.isnan(tau) else f"{tau:.2f}"
    choice = "would choose" if ranking.stable else "would give no answer. The first one is"
    return (
        f"Synthetic defects {choice} {ranking.configurations[0].name}: its image AUROC is {regret:.3f} below the "
        f"highest (regret). Kendall's tau of both rankings is {text} (1: the same order, 0: no relation)."
    )


def tau_and_regret(true: Sequence[float], synthetic: Sequence[float]) -> tuple[float, float]:
    """Kendall's tau-b (Kendall: The treatment of ties in ranking problems, Biometrika 33, 1945), and the regret.

    Args:
        true: image AUROC of each configuration.
        synthetic: synthetic AUROC of each; the first of the highest ones is the choice.

    Returns:
        Tau, NaN where all values of a side are equal. The highest true value minus that of the choice.
    """
    from scipy.stats import kendalltau

    return float(kendalltau(true, synthetic).statistic), max(true) - true[int(np.argmax(synthetic))]


def _ranks(values: Sequence[float]) -> list[int]:
    from scipy.stats import rankdata

    return [int(rank) for rank in rankdata(-np.array(values), method="min")]


def _scored(configuration: Configuration) -> bool:
    return all(run.metrics.get(SYNTHETIC_AUROC) is not None for run in configuration.records)


def _images(configuration: Configuration) -> str:
    """Identity of the images of a configuration: the data of each category, with its held-out images."""
    return repr([sorted({run.data["fingerprint"] for run in runs}) for runs in configuration.by_category.values()])


def _equals(results: Results, members: Sequence[Configuration]) -> float | None:
    wins = [mean for one in members if (mean := _mean_wins(results, one)) is not None]
    shapes = {tuple(of_category.pairs.shape for of_category in one) for one in wins}
    usable = len(wins) == len(members) > 1 and len(shapes) == 1
    return share_of_equals(wins) if usable else None


def _mean_wins(results: Results, configuration: Configuration) -> list[Wins] | None:
    """The wins of each category, means over seeds."""
    means = []
    for runs in configuration.by_category.values():
        seeds = [wins for run in runs if (wins := wins_of_run(results, run)) is not None]
        if len(seeds) < len(runs) or len({one.pairs.shape for one in seeds}) != 1:
            return None
        means.append(Wins(np.mean([one.pairs for one in seeds], axis=0), seeds[0].backgrounds))
    return means


def wins_of_run(results: Results, run: RunRecord) -> Wins | None:
    """The wins of a run.

    Args:
        results: of the result folder.
        run: with scores of synthetic defects.

    Returns:
        The wins; None where a file is missing or damaged, which another sentence of the report says.
    """
    defects = results.scores(run.run_id, SYNTHETIC)
    try:
        normal = read_calibration(results.folder.run_folder(run.run_id))
        backgrounds = [background(name) for name in defects.names] if defects else []
    except (StoreError, ValueError):
        return None
    if not defects or not normal or not {*backgrounds} <= {*range(len(normal.names))}:
        return None
    # Each kind of defect lies on each background.
    pairs = {*zip(defects.defects, backgrounds, strict=True)}
    if not pairs or len(pairs) < len({*defects.defects}) * len({*backgrounds}):
        return None
    return Wins.of(defects.scores, defects.defects, backgrounds, normal.scores)
