"""Tiny trainings of supervised networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends.supervised.fold_data import FoldData
from harness.backends.supervised.network import build
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.training import Trained, train
from harness.backends.supervised.tta import Views, views_of
from harness.common.devices import pick

SIZE = (32, 32)
BACKBONE = "test_resnet"
CPU = pick("cpu")
FLIPPED = Views(views_of("flips"))


def settings(**options: Any) -> Settings:
    return Settings(image_size=SIZE, **{"lr": 3e-3, **options})


def squares(n: int = 24, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Squares whose colour is their label, and noise."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % labels
    images = rng.integers(0, 90, (n, 3, *SIZE), dtype=np.uint8)
    images[np.arange(n), targets, 8:24, 8:24] += 150
    return images, targets.astype(np.int64)


def fold_data(seed: int = 0, n: int = 24, **changes: Any) -> FoldData:
    pixels, targets = squares(n)
    values: dict[str, Any] = {
        "pixels": pixels, "targets": targets, "train_indices": range(n - 6), "val_indices": range(n - 6, n),
        "outputs": 3, "with_margin": None, "batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "seed": seed,
    }  # fmt: skip
    return FoldData(**values | changes)


def learn(
    folder: Path,
    epochs: int = 3,
    data: FoldData | None = None,
    stage: Callable[[str], None] = str,
    trainer: dict[str, Any] | None = None,
    **options: Any,
) -> Trained:
    train_settings, chosen = settings(**options), data or fold_data()
    network = build(BACKBONE, chosen.outputs, train_settings, None, chosen.seed)
    return train(
        network, train_settings, lambda: chosen, folder, CPU, {"max_epochs": epochs, **(trainer or {})}, None, stage
    )
