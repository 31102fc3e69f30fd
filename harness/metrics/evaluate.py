"""All registered metrics, for images and for pixels."""

from __future__ import annotations

from harness import registry
from harness.metrics.ranking import Ranking
from harness.metrics.thresholds import Thresholds
from harness.predictions import Predictions


def evaluate(test: Predictions, thresholds: Thresholds) -> dict[str, float | None]:
    """`image_<name>` and `pixel_<name>` for every metric; None where it is undefined, never 0 by accident."""
    levels = {"image": Ranking.of(test.scores, test.labels, thresholds.image)}
    if test.maps is not None and test.masks is not None:
        levels["pixel"] = Ranking.of(test.maps, test.masks, thresholds.pixel)
    values: dict[str, float | None] = {}
    for level in ("image", "pixel"):
        for name, target in registry.METRICS.items():
            values[f"{level}_{name}"] = registry.load(target)(levels[level]) if level in levels else None
    return values
