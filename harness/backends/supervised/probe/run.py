"""One run of a probe: fits a head for each fold on frozen features, predicts, and merges the probabilities."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.backbones.resolve import resolve
from harness.backends.base import Classified, RunContext
from harness.backends.cost import PeakMemory
from harness.backends.supervised.fold import FoldResult, merge_folds
from harness.backends.supervised.probe.features import FrozenFeatures, features_once
from harness.backends.supervised.probe.heads import HEADS, Features, ProbeHead, Targets
from harness.backends.supervised.probe.scorer import ProbeScorer
from harness.backends.supervised.probe.settings import ProbeSettings
from harness.common.devices import pick
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit
from harness.metrics.classification import accuracy, macro_f1_of_fold
from harness.predictions.classification import truth_of


def run_probe(spec: RunSpec, split: LabelledSplit, context: RunContext) -> Classified:
    """Fit and test one probe.

    Args:
        spec: the run.
        split: its data.
        context: resources and options.

    Raises:
        HarnessError: an image cannot be read, the images fit neither into memory nor on the disk, or the weights do not
            fit the backbone.
        Exception: any error of Torch, timm or scikit-learn.
    """
    device = pick(context.device)
    peak, start = PeakMemory(device), time.perf_counter()
    settings, weights = ProbeSettings.of(spec), resolve(spec.weights, str(spec.backbone))
    frozen = features_once(spec, settings, split, weights, device, context)
    truth = truth_of(split.train, split.labels)
    context.stage("fitting the probe")
    fitted = [_fold(fold, frozen, settings, split, truth) for fold in split.run_folds]
    folds, heads = [one.result for one in fitted], [one.head for one in fitted]
    numbers = [fold.number for fold in folds]
    scorer = ProbeScorer(
        str(spec.backbone), frozen.network, heads, numbers, split.labels, split.label_specs, settings, device
    )
    fit = frozen.train_seconds + sum(fold.fit_seconds for fold in folds)
    test = frozen.test_seconds + sum(fold.test_seconds for fold in folds)
    cost: dict[str, float | None] = {**peak.cost(), "model_size": scorer.size}
    # The features of the test images have a time of their own; without test images, that of the training images counts.
    cost["images_per_second"] = (
        len(split.test) / test if split.test else len(split.train) / (frozen.train_seconds + test)
    )
    return Classified(
        spec=spec,
        predictions=merge_folds(folds, split, truth),
        seconds={"fit": fit, "test": test, "alone": fit + test, "spent": time.perf_counter() - start},
        device=device.description,
        save_model=scorer.save,
        cost=cost,
        weights={"backbone": spec.backbone, **weights.as_dict()},
        warnings=[text for text in (weights.note, *(one.warning for one in fitted)) if text],
        scorer=scorer.on_device,
        timing_key=(settings.probe_head, settings.num_neighbors),
        folds=[fold.record for fold in folds],
    )


@dataclass(frozen=True)
class _Fitted:
    head: ProbeHead
    result: FoldResult
    warning: str


def _fold(fold: int, frozen: FrozenFeatures, settings: ProbeSettings, split: LabelledSplit, truth: Targets) -> _Fitted:
    training, val = split.train_indices(fold), split.val_indices(fold)
    head_type, labels = HEADS[settings.probe_head], len(split.labels)
    start = time.perf_counter()
    tensors, warning = head_type.fit(frozen.train[training], truth[training], labels, settings)
    head = head_type(tensors, settings, labels)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    probabilities, of_test = _predict(head, frozen.train[val]), _predict(head, frozen.test)
    test_seconds = time.perf_counter() - start
    predicted = probabilities.argmax(axis=1)
    record: dict[str, Any] = {
        "fold": fold,
        "learnt": len(training),
        "judged": len(val),
        "macro_F1": macro_f1_of_fold(truth[val], predicted),
        "accuracy": accuracy(truth[val], predicted),
        # A probe has no epochs.
        "epochs": 0,
        "kept_epoch": 0,
        "resumed_after_epoch": 0,
        "seconds": fit_seconds,
    }
    claims = np.ones(len(val))
    result = FoldResult(fold, val, probabilities, probabilities, of_test, claims, record, fit_seconds, test_seconds)
    return _Fitted(head, result, f"fold {fold}: {warning}" if warning else "")


def _predict(head: ProbeHead, features: Features) -> npt.NDArray[np.float64]:
    with torch.inference_mode():
        return head(torch.from_numpy(features)).double().numpy()
