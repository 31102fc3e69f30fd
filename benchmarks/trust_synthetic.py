"""How well the ranking by synthetic defects agrees with the ranking by real ones, and when to withhold its answer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import HAZELNUT, MOBILENET
from harness.data.synthetic import ENOUGH
from harness.data.toy_images import CATEGORIES
from harness.metrics.synthetic import Wins, share_of_equals
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.synthetic import MOST_EQUALS, dataset_ranking, tau_and_regret, wins_of_run
from harness.results.store import ResultFolder

CONFIG = """
name: ranked
rank: synthetic
data: {data}
weights: {weights}
device: cpu
latency: false
save_models: none
grid:
  - {{{shared}, model: patchcore, coreset_sampling_ratio: [0.01, 0.1]}}
  - {{{shared}, model: padim, n_features: 24}}
  - {{{shared}, model: spade, num_neighbors: 5}}
"""
LAYERS = "[[blocks.1], [blocks.1, blocks.2], [blocks.2, blocks.4]]"
MEMBERS = (2, 3, 5, 8, 16, 36)  # configurations of a subset
HELD_OUT = (3, 5, 8, 12, 20)  # held-out images of a subset
SUBSETS = 60  # of each category and number of held-out images


@dataclass(frozen=True)
class Category:
    """All configurations of a category.

    Attributes:
        name: of the category.
        true: image AUROC of each configuration.
        wins: of each configuration.
    """

    name: str
    true: np.ndarray[Any, np.dtype[np.float64]]
    wins: list[Wins]

    @property
    def synthetic(self) -> list[float]:
        """Synthetic AUROC of each configuration."""
        return [float(one.pairs.mean()) for one in self.wins]


def synthetic(quick: bool) -> list[dict[str, Any]]:
    """A row for each category: Kendall's tau, and the regret in image AUROC of the choice by synthetic defects.

    Args:
        quick: one toy category, small images and few configurations.
    """
    rows = []
    for one in _categories(quick):
        tau, regret = tau_and_regret(one.true.tolist(), one.synthetic)
        rows.append({
            "category": one.name,
            "configurations": len(one.wins),
            "held_out_images": one.wins[0].pairs.shape[2],
            "kendall_tau": round(tau, 2),
            "regret": round(regret, 3),
            "regret_of_a_random_choice": round(float(one.true.max() - one.true.mean()), 3),
            "image_AUROC": f"{one.true.min():.3f} to {one.true.max():.3f}",
            "synthetic_AUROC": f"{min(one.synthetic):.3f} to {max(one.synthetic):.3f}",
            "answer": "given" if _equals(one.wins) <= MOST_EQUALS else "withheld",
        })  # fmt: skip
    return rows


def synthetic_subsets(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of held-out images, of random subsets of configurations and held-out images.

    Args:
        quick: as in `synthetic`, and fewer subsets.

    Returns:
        `given`: the share of subsets where at most `MOST_EQUALS` of the configurations equal the first one. The mean
        regret of these and of the other subsets, and that of a random choice. The last row has the rule of the report:
        an answer also needs `ENOUGH` held-out images.
    """
    rng, rows, drawn = np.random.default_rng(0), [], []
    for held_out in HELD_OUT:
        categories = [one for one in _categories(quick) if one.wins[0].pairs.shape[2] >= held_out]
        subsets = [_subset(rng, one, held_out) for one in categories for _ in range(5 if quick else SUBSETS)]
        drawn += [(clear and held_out >= ENOUGH, *regrets) for clear, *regrets in subsets]
        rows.append(_row(str(held_out), subsets))
    return [*rows, _row(f"all, with an answer from {ENOUGH} on", drawn)]


def _row(held_out: str, subsets: list[Any]) -> dict[str, Any]:
    clear, regret, random = (np.array(column) for column in zip(*subsets, strict=True))
    chosen = clear.astype(bool)

    def mean(values: Any) -> float | None:
        return round(float(values.mean()), 3) if len(values) else None

    return {
        "held_out_images": held_out,
        "subsets": len(subsets),
        "given": f"{chosen.mean():.0%}",
        "regret_given": mean(regret[chosen]),
        "regret_withheld": mean(regret[~chosen]),
        "random_choice_given": mean(random[chosen]),
        "random_choice_withheld": mean(random[~chosen]),
    }


def _subset(rng: np.random.Generator, category: Category, held_out: int) -> tuple[bool, float, float]:
    """Whether the first one is clear, its regret, and the regret of a random choice; in one random subset."""
    count = min(int(rng.choice(MEMBERS)), len(category.wins))
    members = rng.choice(len(category.wins), count, replace=False)
    images = np.sort(rng.choice(category.wins[0].pairs.shape[2], held_out, replace=False))
    wins, true = [_of_images(category.wins[i], images) for i in members], category.true[members]
    _, regret = tau_and_regret(true.tolist(), [float(one.pairs.mean()) for one in wins])
    return _equals(wins) <= MOST_EQUALS, regret, float(true.max() - true.mean())


def _of_images(wins: Wins, images: Any) -> Wins:
    """The wins of a subset of the held-out images; each of them is a background here."""
    assert len(wins.backgrounds) == wins.pairs.shape[2]
    return Wins(wins.pairs[:, images][:, :, images], np.arange(len(images)))


def _equals(wins: list[Wins]) -> float:
    first = int(np.argmax([one.pairs.mean() for one in wins]))
    return share_of_equals([[wins[first]], *([one] for i, one in enumerate(wins) if i != first)])


@cache
def _categories(quick: bool) -> list[Category]:
    """A grid of native detectors on toy images, and on real images where they lie beside the checkout."""
    names, sizes = ([*CATEGORIES][:1], "[32, 64]") if quick else ([*CATEGORIES], "[64, 96, 160]")
    toy = f"{{kind: toy, category: [{', '.join(names)}], size: 160, train: 80, val: 0.25}}"
    categories = _swept(toy, "auto", "tf_efficientnet_lite0", sizes)
    if not quick and HAZELNUT.is_dir() and MOBILENET.is_file():
        real = f"{{kind: mvtec, root: {HAZELNUT}, val: 0.25}}"
        categories += _swept(real, str(MOBILENET), "mobilenetv2_100", "[96, 160, 256]")
    return categories


def _swept(data: str, weights: str, backbone: str, sizes: str) -> list[Category]:
    shared = f"backend: native, backbone: {backbone}, layers: {LAYERS}, image_size: {sizes}"
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder) / "ranked.yaml", Path(folder) / "results"
        file.write_text(CONFIG.format(data=data, weights=weights, shared=shared))
        command = [sys.executable, "-m", "harness", "sweep", str(file), "--output", str(output)]
        subprocess.run(command, check=True, capture_output=True)
        results = Results.of(ResultFolder(output / "ranked"))
        (name,) = results.configurations
        ranking = dataset_ranking(results, name)
        assert ranking is not None
        runs = [one.by_category for one in ranking.configurations]
        return [
            Category(
                category,
                np.array([one[category][0].metrics[INTERVAL] for one in runs]),
                [wins for one in runs if (wins := wins_of_run(results, one[category][0])) is not None],
            )
            for category in runs[0]
        ]
