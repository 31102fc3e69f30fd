"""Intermediate evaluation of an anomalib model during its training, for an observer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from harness.backends.anomalib.build import raw_by_path
from harness.backends.anomalib.data import SplitDataset
from harness.backends.anomalib.places import before_crop
from harness.backends.base import EpochDetections, EpochObserver
from harness.config.spec import RunSpec
from harness.data.samples import Sample, Split
from harness.predictions.detection import Floats, Predictions, join


class EpochCallback(Callback):
    """Predicts after epochs and passes the predictions to an observer. The trained model is the same, bit for bit.

    Args:
        spec: the run.
        split: its data.
        observer: called after each epoch except the last.

    Attributes:
        warnings: why an intermediate evaluation failed.
        seconds: time of all intermediate evaluations.
    """

    def __init__(self, spec: RunSpec, split: Split, observer: EpochObserver) -> None:
        self._spec, self._split, self._observer = spec, split, observer
        self.warnings: list[str] = []
        self.seconds = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict after the validation, which some models need to fit their scores.

        Args:
            trainer: Lightning's trainer.
            pl_module: the model.
        """
        epoch = trainer.current_epoch + 1
        last = trainer.max_epochs not in {None, -1} and epoch >= (trainer.max_epochs or 0)
        if last or self.warnings or not self._observer.wants(self._spec, epoch):
            return
        start = time.perf_counter()
        try:
            with _evaluation_mode(pl_module):
                test = self._predict(trainer, pl_module, self._split.real_test)
                val = self._predict(trainer, pl_module, self._split.val) if self._split.val else None
        # Some models may not support an intermediate evaluation; the training continues without it.
        except Exception as error:  # noqa: BLE001
            self.warnings.append(f"the evaluation after epoch {epoch} failed ({type(error).__name__}: {error})")
            return
        finally:
            self.seconds += time.perf_counter() - start
        self._observer.on_epoch(self._spec, epoch, EpochDetections(test, val))

    def _predict(self, trainer: Trainer, model: Any, samples: Sequence[Sample]) -> Predictions:
        data = SplitDataset(samples, with_masks=self._split.has_masks)
        # The datamodule's augmentations resize the images, so that images of different sizes fit into one batch.
        data.augmentations = trainer.datamodule.test_data.augmentations
        predictions: dict[str, tuple[float, Floats | None]] = {}
        size = self._spec.eval_batch_size
        for start in range(0, len(samples), size):
            batch = data.collate_fn([data[i] for i in range(start, min(start + size, len(samples)))])
            batch = model.transfer_batch_to_device(batch, model.device, 0)
            if model.pre_processor:
                model.pre_processor.on_test_batch_start(trainer, model, batch, 0)
            with trainer.precision_plugin.test_step_context():
                predictions |= raw_by_path(model.test_step(batch, 0))
        resized, _ = before_crop(model)
        return join(samples, predictions, resized)


@contextmanager
def _evaluation_mode(model: LightningModule) -> Iterator[None]:
    """Evaluation mode without gradients; restores the mode of each module and the random generators afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes:
            module.training = training
