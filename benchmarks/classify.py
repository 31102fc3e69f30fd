"""Training images a second of a classification, beside a bare Lightning loop over the same network and loader.

Both train the same network from the same weights on the same augmented batches, in turn, and validate once an epoch.
The bare loop is a LightningModule with a cross entropy and an optimiser, and Lightning's Trainer as it comes, which
writes a checkpoint an epoch; ours also checks each loss, keeps a history, and writes its network at the end.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from harness.backends.supervised.augment import augmentation
from harness.backends.supervised.fold_data import FoldData, FoldDataset, as_images, seed_of
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.schedules import optimizer
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.training import train
from harness.common.devices import pick

WANTED = 0.95
# Network, size, batch, images.
CASES = (("mobilenetv2_100", 128, 16, 320), ("resnet18", 128, 16, 320))
LABELS = 16


class Bare(pl.LightningModule):
    """What somebody would write by hand."""

    def __init__(self, network: Classifier, settings: Settings, fold_data: FoldData) -> None:
        super().__init__()
        self.network = network
        self._settings, self._fold_data = settings, fold_data

    def train_dataloader(self) -> DataLoader[Any]:
        """The same loader as ours."""
        fold_data, epoch = self._fold_data, self.trainer.current_epoch
        seed = seed_of(fold_data.seed, epoch)
        augment = augmentation(self._settings.augment)
        dataset = FoldDataset(fold_data.pixels, fold_data.targets, fold_data.train_indices, augment, seed)
        return DataLoader(dataset, batch_sampler=fold_data.batches(self._settings, epoch))

    def val_dataloader(self) -> DataLoader[Any]:
        """The same as ours."""
        fold_data = self._fold_data
        dataset = FoldDataset(fold_data.pixels, fold_data.targets, fold_data.val_indices)
        return DataLoader(dataset, batch_size=fold_data.eval_batch_size)

    def configure_optimizers(self) -> Any:
        """The same as ours."""
        return optimizer(self._settings, self.network)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Cross entropy."""
        del batch_idx
        return torch.nn.functional.cross_entropy(self.network(as_images(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """A figure."""
        del batch_idx
        self.log("accuracy", (self.network(as_images(batch[0])).argmax(dim=1) == batch[1]).float().mean())


def measure(quick: bool) -> dict[str, Any]:
    """Images a second of both, medians over alternating repetitions, and their ratio."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    repeats, epochs = (1, 1) if quick else (5, 2)
    cases = []
    for backbone, side, batch, images in CASES[:1] if quick else CASES:
        settings, fold_data = _fold_data(side, batch, images)
        pairs = []
        for repeat in range(repeats if quick else repeats + 1):
            bare = _timed_bare(backbone, settings, fold_data, epochs)
            ours = _timed_ours(backbone, settings, fold_data, epochs)
            if repeat or quick:
                # The first pair warms up.
                pairs.append((bare, ours))
        learnt = epochs * len(fold_data.train_indices)
        ratio = statistics.median(bare / ours for bare, ours in pairs)
        cases.append({
            "backbone": backbone,
            "size": side,
            "batch": batch,
            "bare_images_per_second": round(learnt / statistics.median(bare for bare, _ in pairs), 1),
            "ours_images_per_second": round(learnt / statistics.median(ours for _, ours in pairs), 1),
            "ratio": round(ratio, 3),
            "within": ratio >= WANTED,
        })  # fmt: skip
    return {"repeats": repeats, "epochs": epochs, "wanted": WANTED, "cases": cases}


def _fold_data(side: int, batch: int, images: int) -> tuple[Settings, FoldData]:
    rng = np.random.default_rng(0)
    total = images + images // 4
    settings = Settings(image_size=(side, side), augment="rotate45", lr=1e-3)
    fold_data = FoldData(
        pixels=rng.integers(0, 255, (total, 3, side, side), dtype=np.uint8),
        targets=rng.integers(0, LABELS, total),
        train_indices=range(images),
        val_indices=range(images, total),
        outputs=LABELS,
        with_margin=None,
        batch_size=batch,
        eval_batch_size=32,
        num_workers=0,
        seed=0,
    )
    return settings, fold_data


def _timed_bare(backbone: str, settings: Settings, fold_data: FoldData, epochs: int) -> float:
    module = Bare(build(backbone, LABELS, settings, None, 0), settings, fold_data)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
            reload_dataloaders_every_n_epochs=1,
        )  # fmt: skip
        start = time.perf_counter()
        trainer.fit(module)
        return time.perf_counter() - start


def _timed_ours(backbone: str, settings: Settings, fold_data: FoldData, epochs: int) -> float:
    network = build(backbone, LABELS, settings, None, 0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trainer = {"max_epochs": epochs}
        train(network, settings, lambda: fold_data, Path(folder), pick("cpu"), trainer, None, lambda text: None)
        return time.perf_counter() - start
