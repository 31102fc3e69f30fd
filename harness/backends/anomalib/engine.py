"""One run: Engine.fit, then one pass of Engine.test, which collects raw scores and maps before normalisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from harness.backbones.inject import backbone_weights
from harness.backends.anomalib.assets import local_assets
from harness.backends.anomalib.build import build_model, raw_by_path
from harness.backends.anomalib.data import SplitDataModule
from harness.backends.anomalib.epochs import EpochCallback
from harness.backends.anomalib.memory import steady_selection
from harness.backends.anomalib.needs import needs_of
from harness.backends.anomalib.places import before_crop
from harness.backends.anomalib.scorer import AnomalibScorer
from harness.backends.base import HELD_OUT, TEST_IMAGES, TEST_IMAGES_OF_TRIALS, Detected, RunContext
from harness.backends.cost import PeakMemory, size
from harness.common.devices import pick
from harness.config.spec import RunSpec, thaw
from harness.data.samples import Split
from harness.data.subset import part_of
from harness.metrics.validation import samples_of_trials
from harness.predictions.detection import Floats, join


class RawPredictions(Callback):
    """Collects raw scores and maps by image path.

    Lightning calls the callbacks of the trainer before those of the model. anomalib's normaliser is a callback of the
    model, so that these predictions are neither normalised nor clamped.

    Attributes:
        val: raw scores and maps of the validation images.
        test: raw scores and maps of the test images.
        val_step: the trainer's global step at the last validation; -1 before the first.
        test_seconds: time of the test so far.
    """

    def __init__(self) -> None:
        self.val: dict[str, tuple[float, Floats | None]] = {}
        self.test: dict[str, tuple[float, Floats | None]] = {}
        self.val_step = -1
        self.test_seconds = 0.0
        self._test_start = 0.0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the predictions of the validation before.

        Args:
            trainer: Lightning's trainer.
            pl_module: the model.
        """
        del trainer, pl_module
        self.val.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collect the predictions of a validation batch, except in Lightning's sanity check.

        Args:
            trainer: Lightning's trainer.
            pl_module: the model.
            outputs: the predicted batch.
            args: unused.
            kwargs: unused.
        """
        del pl_module, args, kwargs
        if not trainer.sanity_checking:
            self.val_step = trainer.global_step
            self.val |= raw_by_path(outputs)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock.

        Args:
            trainer: Lightning's trainer.
            pl_module: the model.
        """
        del trainer, pl_module
        # The time of all passes counts, where a run has several.
        self._test_start = time.perf_counter() - self.test_seconds

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collect the predictions of a test batch.

        Args:
            trainer: Lightning's trainer.
            pl_module: the model.
            outputs: the predicted batch.
            args: unused.
            kwargs: unused.
        """
        del trainer, pl_module, args, kwargs
        # The copy to the cpu waits for the device, so that the time is that of the finished batch.
        self.test |= raw_by_path(outputs)
        self.test_seconds = time.perf_counter() - self._test_start


def run_spec(spec: RunSpec, split: Split, context: RunContext) -> Detected:
    """Fit and test one spec.

    Args:
        spec: the run.
        split: its data.
        context: resources and options.

    Raises:
        Exception: any error of anomalib, Lightning or Torch.
    """
    seed_everything(spec.seed, workers=True, verbose=False)
    context.stage("building")
    with local_assets(spec), backbone_weights(spec.weights, spec.seed) as used:
        model = build_model(spec)
    device = pick(context.device)
    peak = PeakMemory(device)
    raw = RawPredictions()
    arguments, warnings = _trainer_arguments(spec, model)
    batch_size = needs_of(spec.model).batch or spec.train_batch_size
    if batch_size != spec.train_batch_size:
        warnings.append(_overruled("data.train_batch_size", spec.train_batch_size, batch_size, model))
    # anomalib validates on the first test, and its own metrics count all images of a test. So the images that neither
    # may see have a test of their own.
    allowed = {sample.path for sample in samples_of_trials(split.test, dict(spec.holdout)) if not sample.synthetic}
    counted, uncounted = (
        tuple(sample for sample in split.test if (sample.path in allowed) is count) for count in (True, False)
    )
    datamodules = [
        SplitDataModule(replace(split, test=samples), batch_size, spec.eval_batch_size, context.num_workers)
        for samples in (counted, uncounted)
        if samples
    ]
    datamodule = datamodules[0]
    epoch_callbacks = [] if context.watch is None else [EpochCallback(spec, split, context.watch)]
    engine = Engine(
        # anomalib requires a checkpoint callback; save_top_k=0 avoids a useless file.
        callbacks=[raw, *epoch_callbacks, ModelCheckpoint(dirpath=context.scratch, save_top_k=0)],
        default_root_dir=context.scratch,
        enable_progress_bar=False,
        enable_model_summary=False,
        **device.trainer_arguments(),
        **arguments,
    )
    context.stage("fitting")
    with steady_selection(), local_assets(spec):
        fit_seconds = _timed(lambda: engine.fit(model=model, datamodule=datamodule), device.synchronize)
    if split.val and raw.val_step != engine.trainer.global_step:
        # There was no validation, or it used an earlier state of the model.
        engine.validate(model=model, datamodule=datamodule, verbose=False)
    for callback in epoch_callbacks:
        warnings += callback.warnings
        fit_seconds -= callback.seconds
    context.stage("testing")
    metrics: list[dict[str, float]] = []

    def test() -> None:
        for one in datamodules:
            metrics.extend(engine.test(model=model, datamodule=one, verbose=False))

    test_seconds = _timed(test, device.synchronize)
    cost = peak.cost()
    cost["images_per_second"] = len(split.test) / raw.test_seconds
    cost["model_size"] = size(model.state_dict().values())
    context.stage("measuring")
    resized, moved = before_crop(model)
    return Detected(
        spec=spec,
        test=join(split.test, raw.test, resized),
        calibration=join(split.val, raw.val, resized) if split.val else None,
        seconds={"fit": fit_seconds, "test": test_seconds},
        device=device.description,
        save_model=_saver(engine, model),
        cost=cost,
        validation=HELD_OUT if split.val else TEST_IMAGES_OF_TRIALS if spec.holdout else TEST_IMAGES,
        own_metrics={f"anomalib_{key}": _finite(value) for key, value in (metrics[0] if metrics else {}).items()},
        weights=_weights_record(spec, used),
        warnings=warnings + moved + [weights.note for weights in used.values() if weights.note],
        scorer=partial(_scorer, model, spec, context.device),
    )


def run_unified(specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Detected]:
    """Fit and test one model for the specs of all categories, which differ in the category only.

    Args:
        specs: the runs.
        split: the data of all categories.
        context: resources and options.

    Yields:
        The outcome of each category. anomalib's own metrics are left out, since they count the images of all categories
        at once.

    Raises:
        Exception: any error of anomalib, Lightning or Torch.
    """
    whole = run_spec(specs[0], split, context)
    fit, test = whole.seconds["fit"], whole.seconds["test"]
    for number, spec in enumerate(specs):
        own = part_of(split, None, spec.seed, spec.category)
        calibration = None if whole.calibration is None or not own.val else whole.calibration.of(own.val)
        own_test = test * len(own.test) / len(split.test)
        # The first run needs the training, and the others use it.
        seconds = {"fit": fit, "test": own_test, "alone": fit + own_test, "spent": own_test + (0 if number else fit)}
        yield replace(
            whole,
            spec=spec,
            test=whole.test.of(own.test),
            calibration=calibration,
            seconds=seconds,
            own_metrics={},
        )


def _trainer_arguments(spec: RunSpec, model: AnomalibModule) -> tuple[dict[str, Any], list[str]]:
    """The config's arguments, and a warning for each that the model overrules."""
    arguments = {key: thaw(value) for key, value in spec.trainer}
    return arguments, [
        _overruled(f"trainer.{key}", arguments[key], value, model)
        for key, value in model.trainer_arguments.items()
        if key in arguments and arguments[key] != value
    ]


def _overruled(key: str, requested: Any, used: Any, model: AnomalibModule) -> str:
    return f"{key}: found {requested}, but anomalib's {type(model).__name__} requires {used}; {used} was used"


@contextmanager
def _scorer(model: AnomalibModule, spec: RunSpec, device: str) -> Iterator[AnomalibScorer]:
    try:
        yield AnomalibScorer(model, spec, device)
    finally:
        model.to("cpu")


def _saver(engine: Engine, model: AnomalibModule) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        _plain_enums(model)
        engine.trainer.save_checkpoint(folder / "model.ckpt")

    return save


def _plain_enums(model: AnomalibModule) -> None:
    """Replace enum parameters by their values where Python (up to 3.11.3) pickles an enum as a call of `getattr`.

    A loader that executes no code refuses such a call. anomalib accepts the values too.
    """
    for name, value in list(model.hparams.items()):
        if isinstance(value, Enum) and value.__reduce_ex__(2)[0] is getattr:
            model.hparams[name] = value.value


def _timed(work: Callable[[], None], synchronize: Callable[[], None]) -> float:
    """Seconds of a call; the queue of the device is empty before and after the call."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def _finite(value: float) -> float | None:
    number = float(value)
    return number if torch.isfinite(torch.tensor(number)) else None


def _weights_record(spec: RunSpec, used: dict[str, Any]) -> dict[str, Any]:
    """The record of the backbones' weights: the first backbone, and a list of the others."""
    if not used:
        return {"policy": spec.weights, "source": "none", "note": "this model asks for no pretrained backbone"}
    first, *others = ({"backbone": name, **weights.as_dict()} for name, weights in used.items())
    return {**first, "others": others} if others else first
