"""A small case of each registered detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.detectors import Detector
from tests.networks import network

SMALL: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset_sampling_ratio": 0.2, "num_neighbors": 3},
    "padim": {"n_features": 20},
    "spade": {"num_neighbors": 3},
    "cflow": {"max_epochs": 1, "coupling_blocks": 2, "condition_vector": 16},
    "mhpatchcore": {"memory_bank_size": 40, "local_coreset_size": 30},
    "dinomaly": {"max_steps": 3, "decoder_depth": 2},
}
IN_A_TRANSFORMER = {"spade": {"pooled_layer": "blocks.5"}, "anomalydino": {"layers": ["blocks.5"]}}
NAMES = list(registry.DETECTORS)
AT_ONCE = [name for name in NAMES if not registry.load(registry.DETECTORS[name]).trains_in_epochs]


def make(name: str, **changes: Any) -> Detector:
    cls = registry.lookup(registry.DETECTORS, "detector", name)
    arguments = {"weights": "random", "image_size": 64, "progress": False, "device": "cpu", **network(name),
                 **SMALL.get(name, {}), **changes}  # fmt: skip
    detector: Detector = cls(**arguments)
    return detector


def evaluate_predictions(detector: Detector, images: list[Path]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    results = [detector.predict(path) for path in images]
    return np.array([one.score for one in results]), np.stack([one.anomaly_map for one in results])
