"""What a model of anomalib's says in the middle of its training, shown to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from harness.backends.anomalib.build import raw_scores
from harness.backends.anomalib.data import SplitDataset
from harness.backends.anomalib.places import before_crop
from harness.backends.base import EpochDetections, EpochObserver
from harness.config.spec import RunSpec
from harness.data.base import Sample, Split
from harness.predictions.detection import Floats, Predictions, join


class EpochCallback(Callback):
    """See the module. What is trained is the same, bit for bit, as if nobody watched.

    Args:
        spec: of the run.
        split: its data.
        watch: asked after each epoch but the last.

    Attributes:
        warnings: why a model could not be looked at.
        seconds: that looking took.
    """

    def __init__(self, spec: RunSpec, split: Split, watch: EpochObserver) -> None:
        self._spec, self._split, self._watch = spec, split, watch
        self.warnings: list[str] = []
        self.seconds = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After validation, which some models fit their scores by."""
        epoch = trainer.current_epoch + 1
        last = trainer.max_epochs not in {None, -1} and epoch >= (trainer.max_epochs or 0)
        if last or self.warnings or not self._watch.wants(self._spec, epoch):
            return
        start = time.perf_counter()
        try:
            with _undisturbed(pl_module):
                test = self._scored(trainer, pl_module, self._split.test)
                val = self._scored(trainer, pl_module, self._split.val) if self._split.val else None
        # Some model may not take it; the run goes on to its end.
        except Exception as error:  # noqa: BLE001
            self.warnings.append(f"could not be looked at after epoch {epoch} ({type(error).__name__}: {error})")
            return
        finally:
            self.seconds += time.perf_counter() - start
        self._watch.on_epoch(self._spec, epoch, EpochDetections(test, val))

    def _scored(self, trainer: Trainer, model: Any, samples: Sequence[Sample]) -> Predictions:
        data = SplitDataset(samples, with_masks=self._split.has_masks)
        # Images of different sizes can be batched once they are resized, as the datamodule has it done.
        data.augmentations = trainer.datamodule.test_data.augmentations
        found: dict[str, tuple[float, Floats | None]] = {}
        size = self._spec.eval_batch_size
        for start in range(0, len(samples), size):
            batch = data.collate_fn([data[i] for i in range(start, min(start + size, len(samples)))])
            batch = model.transfer_batch_to_device(batch, model.device, 0)
            if model.pre_processor:
                model.pre_processor.on_test_batch_start(trainer, model, batch, 0)
            with trainer.precision_plugin.test_step_context():
                scores, maps = raw_scores(model.test_step(batch, 0))
            for index, path in enumerate(batch.image_path):
                found[path] = (float(scores[index]), None if maps is None else maps[index])
        resized, _ = before_crop(model)
        return join(samples, found, resized)


@contextmanager
def _undisturbed(model: LightningModule) -> Iterator[None]:
    """In evaluation, without gradients; every part and every generator as before afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, training in modes:
            part.training = training
