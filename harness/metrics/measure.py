"""All registered metrics of one level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.metrics.ranking import Ranking


def measure(level: str, ranking: Ranking) -> dict[str, npt.NDArray[np.float64]]:
    """`<level>_<name>` -> its value or, of a ranking with leading axes, values; NaN where undefined."""
    return {f"{level}_{name}": registry.load(target)(ranking) for name, target in registry.METRICS[level].items()}
