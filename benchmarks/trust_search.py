"""The metric of a search's best trial: its true value, and what a report says with and without held-out images.

A trial gives each image a score. The scores depend on the parameters in two ways: the distance between both classes
does, and each image has its own smooth function of the parameters. A search on few images follows these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from harness.config.search import Search
from harness.data.samples import Sample
from harness.metrics.selection import auroc_draws, corrected
from harness.metrics.validation import holdout_part
from harness.search.history import VALUE, Trial
from harness.search.sampler import Sampler

Floats = npt.NDArray[np.float64]

AXES, WAVES, TRIALS, SHARE = 4, 24, 60, 0.3
# Normal and anomalous test images.
SCENES = ((15, 15), (40, 40), (150, 150))


class Objective:
    """Scores of images as functions of parameters.

    Args:
        rng: draws the functions.
        labels: of the images, True is anomalous.
    """

    def __init__(self, rng: np.random.Generator, labels: npt.NDArray[np.bool_]) -> None:
        self._labels, self._optimum = labels, rng.random(AXES)
        self._frequencies = rng.normal(scale=3, size=(WAVES, AXES))
        self._weights = rng.standard_normal((len(labels), 2 * WAVES))

    def true_auroc(self, x: Floats) -> float:
        """AUROC on infinitely many images: 0.8 at the optimum, lower elsewhere."""
        return float(0.8 - 0.1 * np.mean((x - self._optimum) ** 2))

    def scores(self, x: Floats) -> Floats:
        """Scores of the images; in each class they are normal variables with variance 1 over the choice of images."""
        angles = self._frequencies @ x
        waves = np.concatenate([np.cos(angles), np.sin(angles)]) / np.sqrt(WAVES)
        distance = np.sqrt(2) * NormalDist().inv_cdf(self.true_auroc(x))
        scores: Floats = self._weights @ waves + distance * self._labels
        return scores


def winners(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of images, without and with held-out images: means over searches, all of the best trial.

    Args:
        quick: fewer searches.

    Returns:
        `true`: AUROC on infinitely many images; `apparent`: on the images of the search; `corrected`: by the bootstrap
        bias correction; `holdout`: on the held-out images, None without such images.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searches = 3 if quick else 50
    rows = []
    for normal, anomalous in SCENES:
        labels = np.arange(normal + anomalous) >= normal
        for share in (0.0, SHARE):
            results = np.array([_search(seed, labels, share) for seed in range(searches)])
            means = [None if np.isnan(mean) else round(float(mean), 3) for mean in results.mean(axis=0)]
            row: dict[str, Any] = {"normal": normal, "anomalous": anomalous, "trials": TRIALS, "share": share}
            row |= dict(zip(("true", "apparent", "corrected", "holdout"), means, strict=True))
            rows.append(row | {"searches": searches})
    return rows


def _search(seed: int, labels: npt.NDArray[np.bool_], share: float) -> tuple[float, float, float, float]:
    """True, apparent, corrected and held-out AUROC of the best trial of one search."""
    objective = Objective(np.random.default_rng(seed), labels)
    samples = [Sample(f"/{i}", f"{i}", int(label), "bad" if label else "good") for i, label in enumerate(labels)]
    held_out = holdout_part(samples, share, seed) if share else np.zeros(len(labels), dtype=np.bool_)
    points = _points(objective, labels, ~held_out, seed)
    scores = [objective.scores(x) for x in points]
    values = [_auroc(one, labels, ~held_out) for one in scores]
    best = int(np.argmax(values))
    draws = auroc_draws(labels[~held_out], [one[~held_out] for one in scores])
    estimate = None if draws is None else corrected(*draws)
    outside = _auroc(scores[best], labels, held_out) if share else np.nan
    return objective.true_auroc(points[best]), values[best], np.nan if estimate is None else estimate, outside


def _points(
    objective: Objective, labels: npt.NDArray[np.bool_], images: npt.NDArray[np.bool_], seed: int
) -> list[Floats]:
    """The points of a search, from the sampler of the harness."""
    names = [f"x{i}" for i in range(AXES)]
    search = Search(num_samples=TRIALS, space={"model": "m", **{name: {"uniform": [0, 1]} for name in names}})
    points: list[Floats] = []

    def begin(trial_id: str, point: Mapping[str, Any]) -> dict[str, Any]:
        del trial_id
        points.append(np.array([point[name] for name in names]))
        return {}

    def end(trial_id: str, result: Mapping[str, Any]) -> Trial:
        return Trial(int(trial_id), {}, [], "done", result[VALUE])

    sampler = Sampler(search, search.domains, begin, end, seed)
    for number in range(TRIALS):
        sampler.suggest(str(number))
        sampler.on_trial_complete(str(number), {VALUE: _auroc(objective.scores(points[-1]), labels, images)})
    return points


def _auroc(scores: Floats, labels: npt.NDArray[np.bool_], images: npt.NDArray[np.bool_]) -> float:
    positives, negatives = scores[images & labels][:, None], scores[images & ~labels]
    return float((positives > negatives).mean())
