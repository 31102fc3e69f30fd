"""One run: trains the networks of all folds, predicts, and merges the probabilities."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.backbones.resolve import resolve
from harness.backends.base import Classified, RunContext
from harness.backends.cost import PeakMemory
from harness.backends.supervised.batch_norm import MOST_INITIAL, initial_share
from harness.backends.supervised.callbacks import OnEpoch
from harness.backends.supervised.classifier import SupervisedScorer
from harness.backends.supervised.decoding import ImagesBySize, Pixels
from harness.backends.supervised.detector_scorer import with_detectors
from harness.backends.supervised.fold import FoldResult, fold_predictions, merge_folds
from harness.backends.supervised.fold_data import FoldData
from harness.backends.supervised.margins import Mask, of_outputs, with_margin
from harness.backends.supervised.network import Member, build
from harness.backends.supervised.one_class import class_targets, classes, merge, notes
from harness.backends.supervised.recipes import EPOCHS, settings_of
from harness.backends.supervised.training import Trained, predict_all, train
from harness.backends.supervised.tta import PLAIN, Views
from harness.backends.supervised.units import Unit, units
from harness.common.devices import pick
from harness.config.spec import RunSpec, slug, thaw
from harness.data.labelled.base import LabelledSplit
from harness.metrics.classification import accuracy, macro_f1_of_fold
from harness.predictions.classification import truth_of

Floats = npt.NDArray[np.float64]


def run_spec(spec: RunSpec, split: LabelledSplit, context: RunContext) -> Classified:
    """Train and test one spec.

    Args:
        spec: the run.
        split: its data.
        context: resources and options.

    Raises:
        HarnessError: the loss is NaN or infinite, or the images fit neither into memory nor on the disk.
        Exception: any error of Torch, timm or Lightning.
    """
    run = _Run(spec, split, context)
    return run.outcome()


@dataclass(frozen=True)
class _TrainedFold:
    """The networks of a fold, with the time of their training in seconds, without the reading of images."""

    fold: int
    networks: Mapping[Unit, Trained]
    seconds: float


class _Run:
    """The state of one run."""

    def __init__(self, spec: RunSpec, split: LabelledSplit, context: RunContext) -> None:
        self._spec, self._split, self._context = spec, split, context
        self._settings, self._recipe = settings_of(spec, split)
        self._device = pick(context.device)
        self._weights = resolve(spec.weights, str(spec.backbone))
        self._truth = truth_of(split.train, split.labels)
        self._positions = classes(split.label_specs, self._settings.only_classes)
        self._members: list[Member] = []
        self._trained: dict[str, Trained] = {}
        paths = [sample.path for sample in (*split.train, *split.test)]
        self._images = ImagesBySize(split.fingerprint, paths, context)
        assert context.unfinished is not None
        self._unfinished = context.unfinished

    def outcome(self) -> Classified:
        """Train and predict all folds."""
        peak = PeakMemory(self._device)
        start = time.perf_counter()
        trained = [self._trained_fold(fold) for fold in self._split.run_folds]
        # All trainings come first, so that images of only one size are in memory.
        folds = [self._fold(one) for one in trained]
        decode_seconds = self._images.seconds
        scorer, folds, notes = with_detectors(self._scorer(), folds, self._spec, self._split, self._context)
        predictions = merge_folds(folds, self._split, self._truth)
        fit, test = sum(fold.fit_seconds for fold in folds), sum(fold.test_seconds for fold in folds)
        cost: dict[str, float | None] = peak.cost()
        cost["model_size"] = scorer.size
        images = len(predictions.names) + len(predictions.test_names) * len(folds)
        cost["images_per_second"] = images / test if test else None
        return Classified(
            spec=self._spec,
            predictions=predictions,
            seconds={
                "fit": fit + decode_seconds,
                "test": test,
                "alone": fit + decode_seconds + test,
                "spent": time.perf_counter() - start,
            },
            device=self._device.description,
            save_model=scorer.save,
            cost=cost,
            weights={"backbone": self._spec.backbone, **self._weights.as_dict()},
            warnings=[*self._warnings(folds), *notes],
            scorer=scorer.on_device,
            folds=[fold.record for fold in folds],
            curves={name: trained.history for name, trained in self._trained.items()},
            recipe=self._recipe,
        )

    def _trained_fold(self, fold: int) -> _TrainedFold:
        start, decoding = time.perf_counter(), self._images.seconds
        planned = units(self._spec.model, self._settings, self._split.label_specs, fold)
        networks = {unit: self._train(unit) for unit in planned}
        for unit, trained in networks.items():
            self._members.append(Member(fold, unit.class_name, unit.positions, trained.network, unit.repeat))
            self._trained[unit.name] = trained
        return _TrainedFold(fold, networks, time.perf_counter() - start - (self._images.seconds - decoding))

    def _fold(self, one: _TrainedFold) -> FoldResult:
        fold, networks = one.fold, one.networks
        pixels = self._images.at(self._settings.eval_size)
        val = self._split.val_indices(fold)
        test = list(range(len(self._split.train), len(pixels)))
        self._context.stage(f"fold {fold}: predicting images")
        start = time.perf_counter()
        views = self._settings.views
        val_outputs = self._predict(networks, pixels, val, views)
        test_outputs = self._predict(networks, pixels, test, views)
        test_seconds = time.perf_counter() - start
        plain_outputs = val_outputs if views.views == PLAIN.views else self._predict(networks, pixels, val, PLAIN)
        probabilities, claims = self._merged(val_outputs)
        truth, labels = self._truth[val], probabilities.argmax(axis=1)
        record = {
            "fold": fold,
            "learnt": len(self._split.train_indices(fold)),
            "judged": len(val),
            "macro_F1": macro_f1_of_fold(truth, labels),
            "accuracy": accuracy(truth, labels),
            "epochs": max(len(trained.history) for trained in networks.values()),
            "kept_epoch": max(trained.epoch for trained in networks.values()),
            "resumed_after_epoch": max(trained.resumed for trained in networks.values()),
            "seconds": sum(entry["seconds"] for trained in networks.values() for entry in trained.history),
        }
        # A run with other views, or an earlier attempt, may have trained the networks already.
        fit_seconds = max(one.seconds, record["seconds"])
        plain, of_test = (self._merged(outputs)[0] for outputs in (plain_outputs, test_outputs))
        return FoldResult(fold, val, probabilities, plain, of_test, claims, record, fit_seconds, test_seconds)

    def _data(self, unit: Unit) -> FoldData:
        truth = truth_of([*self._split.train, *self._split.test], self._split.labels)
        return FoldData(
            pixels=self._images.at(self._settings.image_size),
            targets=class_targets(truth, unit.positions) if unit.class_name else truth,
            train_indices=self._split.train_indices(unit.fold),
            val_indices=self._split.val_indices(unit.fold),
            outputs=unit.outputs,
            with_margin=of_outputs(self._margin, unit.positions) if unit.class_name else self._margin,
            batch_size=self._spec.train_batch_size,
            eval_batch_size=self._spec.eval_batch_size,
            num_workers=self._context.num_workers,
            seed=unit.seed(self._spec.seed),
        )

    def _train(self, unit: Unit) -> Trained:
        spec, settings = self._spec, self._settings
        network = build(str(spec.backbone), unit.outputs, settings, self._weights, unit.seed(spec.seed))
        trainer = {"max_epochs": EPOCHS, **{key: thaw(value) for key, value in spec.trainer}}
        log_to = self._unfinished.parents[1] / "tensorboard" / f"{slug(spec)}-{self._unfinished.name}" / unit.name
        position = f"fold {self._split.run_folds.index(unit.fold) + 1} of {len(self._split.run_folds)}"
        prefix = f"{position}, {unit.text}" if unit.text else position
        return train(
            network,
            settings,
            partial(self._data, unit),
            self._unfinished / unit.name,
            self._device,
            trainer,
            log_to if settings.tensorboard else None,
            lambda text: self._context.stage(f"{prefix}, {text}"),
            self._on_epoch(unit),
        )

    def _on_epoch(self, unit: Unit) -> OnEpoch | None:
        """A callback that passes the predictions of the run's first network to the observer."""
        observer, split = self._context.watch, self._split
        if observer is None or unit.class_name or unit.fold != split.run_folds[0]:
            return None
        val = split.val_indices(unit.fold)

        def on_epoch(epoch: int, probabilities: npt.NDArray[np.float32]) -> None:
            if observer.wants(self._spec, epoch):
                predictions = fold_predictions(unit.fold, val, probabilities, split, self._truth)
                observer.on_epoch(self._spec, epoch, predictions)

        return on_epoch

    @property
    def _margin(self) -> Mask:
        settings, split = self._settings, self._split
        return with_margin(settings.arcface_classes, settings.arcface_labels, split.labels, split.label_specs)

    def _predict(
        self, networks: Mapping[Unit, Trained], pixels: Pixels, indices: Sequence[int], views: Views
    ) -> list[tuple[str, Floats]]:
        batch_size = self._spec.eval_batch_size
        return [
            (unit.class_name, predict_all(trained.network, pixels, indices, views, batch_size, self._device))
            for unit, trained in networks.items()
        ]

    def _merged(self, outputs: Sequence[tuple[str, Floats]]) -> tuple[Floats, Floats]:
        return merge(outputs, self._positions, len(self._split.labels), self._settings.combine_repeats)

    def _scorer(self) -> SupervisedScorer:
        return SupervisedScorer(
            self._spec.model,
            self._split.labels,
            self._split.label_specs,
            self._settings,
            self._members,
            str(self._spec.backbone),
            self._device,
        )

    def _warnings(self, folds: Sequence[FoldResult]) -> list[str]:
        warnings = [self._weights.note] if self._weights.note else []
        selections = [
            text
            for used, text in (
                (self._settings.keep == "best", "keep best"),
                (self._settings.early_stopping > 0, "early_stopping"),
                (self._settings.schedule == "plateau", "schedule plateau"),
            )
            if used
        ]
        if selections:
            warnings.append(
                f"{', '.join(selections)}: selected on the images of the metrics, which makes the metrics optimistic"
            )
        if note := self._statistics_note(folds):
            warnings.append(note)
        if self._spec.model == "one_class":
            claims = np.concatenate([fold.claims for fold in folds])
            truth = np.concatenate([self._truth[fold.indices] for fold in folds])
            predicted = np.concatenate([fold.probabilities for fold in folds]).argmax(axis=1)
            warnings += notes(claims, truth, predicted, self._positions, len(self._split.labels))
        resumed = [str(fold.number) for fold in folds if fold.record["resumed_after_epoch"]]
        if resumed:
            warnings.append(f"fold {', '.join(resumed)}: resumed after a stop; the seconds include both attempts")
        return warnings

    def _statistics_note(self, folds: Sequence[FoldResult]) -> str | None:
        """A sentence for a training that was too short for the running statistics of batch normalisation."""
        if self._settings.recomputes_statistics:
            return None
        batches = (fold.record["epochs"] * fold.record["learnt"] // self._spec.train_batch_size for fold in folds)
        least = min(batches)
        share = initial_share(self._members[0].network, least)
        if share <= MOST_INITIAL:
            return None
        return (
            f"batch normalisation: a training of {least} batches left {share:.0%} of the initial statistics, expected "
            f"at most {MOST_INITIAL:.0%}; set `bn_statistics: recomputed`, or a larger `bn_momentum`"
        )
