"""One run: trains the networks of all folds, predicts, and merges the probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.backbones.resolve import resolve
from harness.backends.base import Classified, RunContext
from harness.backends.cost import PeakMemory, latency, size, some, times
from harness.backends.supervised.classifier import Member, SupervisedScorer
from harness.backends.supervised.fold import FoldResult, fold_predictions, merge_folds
from harness.backends.supervised.module import FoldData, seed_of
from harness.backends.supervised.network import build
from harness.backends.supervised.one_class import class_targets, classes, merge
from harness.backends.supervised.pictures import Pixels, decode_once
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.training import OnEpoch, Trained, predict_all, train
from harness.common.devices import pick
from harness.config.spec import RunSpec, slug, thaw
from harness.data.images import read_image
from harness.data.labelled.base import LabelledSplit
from harness.metrics.classification import accuracy, macro_f1
from harness.predictions.classification import truth_of

Floats = npt.NDArray[np.float64]
EPOCHS = 10  # default of trainer.max_epochs


@dataclass(frozen=True)
class Unit:
    """One network of a run.

    Attributes:
        fold: number of the fold that is the network's validation subset.
        class_name: class of a one-class network; "" for a network of all labels.
        positions: positions of the network's labels.
    """

    fold: int
    class_name: str
    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name for folders and curves."""
        return f"fold{self.fold}" + (f"-{self.class_name}" if self.class_name else "")


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


class _Run:
    """The state of one run."""

    def __init__(self, spec: RunSpec, split: LabelledSplit, context: RunContext) -> None:
        self._spec, self._split, self._context = spec, split, context
        self._settings = Settings.of(spec)
        self._device = pick(context.device)
        self._weights = resolve(spec.weights, str(spec.backbone))
        self._truth = truth_of(split.train, split.labels)
        self._positions = classes(split.label_specs)
        self._members: list[Member] = []
        self._trained: dict[str, Trained] = {}
        assert context.unfinished is not None
        self._unfinished = context.unfinished

    def outcome(self) -> Classified:
        """Train and predict all folds."""
        peak = PeakMemory(self._device)
        start = time.perf_counter()
        pixels = self._decoded()
        decode_seconds = time.perf_counter() - start
        folds = [self._fold(fold, pixels) for fold in self._split.run_folds]
        predictions = merge_folds(folds, self._split, self._truth)
        fit, test = sum(fold.fit_seconds for fold in folds), sum(fold.test_seconds for fold in folds)
        scorer = self._scorer()
        cost: dict[str, float | None] = peak.cost()
        cost["model_size"] = sum(size(member.network.state_dict().values()) for member in self._members)
        images = len(predictions.names) + len(predictions.test_names) * len(folds)
        cost["images_per_second"] = images / test if test else None
        warnings = self._warnings(folds)
        if self._context.latency:
            self._context.stage("timing single images")
            timing = _single_images(scorer, [sample.path for sample in self._split.train])
            cost |= latency(timing.seconds)
            warnings += timing.warnings()
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
            warnings=warnings,
            folds=[fold.record for fold in folds],
            curves={name: trained.history for name, trained in self._trained.items()},
        )

    def _decoded(self) -> Pixels:
        self._context.stage("reading images")
        paths = [sample.path for sample in (*self._split.train, *self._split.test)]
        size, context = self._settings.image_size, self._context
        return decode_once(self._split.fingerprint, paths, size, context.scratch, context.memory_limit)

    def _units(self, fold: int) -> Iterator[Unit]:
        if self._spec.model == "baseline":
            yield Unit(fold, "", tuple(range(len(self._split.labels))))
            return
        for class_name, positions in self._positions.items():
            yield Unit(fold, class_name, tuple(positions))

    def _fold(self, fold: int, pixels: Pixels) -> FoldResult:
        val = self._split.judged(fold)
        test = list(range(len(self._split.train), len(pixels)))
        start = time.perf_counter()
        networks = {unit: self._train(unit, pixels) for unit in self._units(fold)}
        fit_seconds = time.perf_counter() - start
        self._context.stage(f"fold {fold}: predicting images")
        start = time.perf_counter()
        val_outputs = self._predict(networks, pixels, val, self._settings.views)
        test_outputs = self._predict(networks, pixels, test, self._settings.views)
        test_seconds = time.perf_counter() - start
        plain_outputs = self._predict(networks, pixels, val, ()) if self._settings.views else val_outputs
        probabilities, claims = self._merged(val_outputs)
        for unit, trained in networks.items():
            self._members.append(Member(fold, unit.class_name, unit.positions, trained.network))
            self._trained[unit.name] = trained
        truth, labels = self._truth[val], probabilities.argmax(axis=1)
        record = {
            "fold": fold,
            "learnt": len(self._split.learnt(fold)),
            "judged": len(val),
            "macro_F1": macro_f1(truth, labels, len(self._split.labels)),
            "accuracy": accuracy(truth, labels),
            "epochs": max(len(trained.history) for trained in networks.values()),
            "kept_epoch": max(trained.epoch for trained in networks.values()),
            "resumed_after_epoch": max(trained.resumed for trained in networks.values()),
            "seconds": sum(entry["seconds"] for trained in networks.values() for entry in trained.history),
        }
        # A run with other views, or an earlier attempt, may have trained the networks already.
        fit_seconds = max(fit_seconds, record["seconds"])
        plain, of_test = (self._merged(outputs)[0] for outputs in (plain_outputs, test_outputs))
        return FoldResult(fold, val, probabilities, plain, of_test, claims, record, fit_seconds, test_seconds)

    def _train(self, unit: Unit, pixels: Pixels) -> Trained:
        spec, settings = self._spec, self._settings
        seed = seed_of(spec.seed, unit.fold, *unit.class_name.encode())
        truth = truth_of([*self._split.train, *self._split.test], self._split.labels)
        targets = class_targets(truth, unit.positions) if unit.class_name else truth
        outputs = len(unit.positions) + bool(unit.class_name)
        data = FoldData(
            pixels=pixels,
            targets=targets,
            learnt=self._split.learnt(unit.fold),
            judged=self._split.judged(unit.fold),
            outputs=outputs,
            with_margin=self._with_margin(),
            batch_size=spec.train_batch_size,
            eval_batch_size=spec.eval_batch_size,
            num_workers=self._context.num_workers,
            seed=seed,
        )
        network = build(str(spec.backbone), outputs, settings, self._weights, seed)
        trainer = {"max_epochs": EPOCHS, **{key: thaw(value) for key, value in spec.trainer}}
        log_to = self._unfinished.parents[1] / "tensorboard" / f"{slug(spec)}-{self._unfinished.name}" / unit.name
        position = f"fold {self._split.run_folds.index(unit.fold) + 1} of {len(self._split.run_folds)}"
        prefix = f"{position}, {unit.class_name}" if unit.class_name else position
        return train(
            network,
            settings,
            data,
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
        val = split.judged(unit.fold)

        def on_epoch(epoch: int, probabilities: npt.NDArray[np.float32]) -> None:
            if observer.wants(self._spec, epoch):
                predictions = fold_predictions(unit.fold, val, probabilities, split, self._truth)
                observer.on_epoch(self._spec, epoch, predictions)

        return on_epoch

    def _with_margin(self) -> npt.NDArray[np.bool_] | None:
        names = self._settings.arcface_classes
        if not names:
            return None
        mask = np.zeros(len(self._split.labels), dtype=np.bool_)
        mask[[position for name in names for position in self._positions[name]]] = True
        return mask

    def _predict(
        self, networks: Mapping[Unit, Trained], pixels: Pixels, indices: Sequence[int], kinds: Sequence[str]
    ) -> dict[str, Floats]:
        batch_size = self._spec.eval_batch_size
        return {
            unit.class_name: predict_all(trained.network, pixels, indices, kinds, batch_size, self._device)
            for unit, trained in networks.items()
        }

    def _merged(self, by_class: dict[str, Floats]) -> tuple[Floats, Floats]:
        if self._spec.model == "baseline":
            return by_class[""], np.ones(len(by_class[""]))
        return merge(by_class, self._positions, len(self._split.labels))

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
        if self._spec.model == "one_class":
            claims = np.concatenate([fold.claims for fold in folds])
            none, several = int((claims == 0).sum()), int((claims > 1).sum())
            if none or several:
                warnings.append(
                    f"one_class: the networks of several classes claimed {several} of {len(claims)} images, and no "
                    f"network claimed {none}; the most probable label was predicted"
                )
        resumed = [str(fold.number) for fold in folds if fold.record["resumed_after_epoch"]]
        if resumed:
            warnings.append(f"fold {', '.join(resumed)}: resumed after a stop; the seconds include both attempts")
        return warnings


def _single_images(scorer: SupervisedScorer, paths: Sequence[str]) -> Any:
    """Times of single images, from decoded image to probabilities, with all networks."""
    evenly_spaced: Callable[[Sequence[Any]], list[Any]] = some
    images = [read_image(path) for path in evenly_spaced(paths)]
    with torch.inference_mode():
        timing = times(lambda pixels: scorer.probabilities([scorer.prepare(pixels)]), images, scorer.torch_device)
    scorer.to_cpu()
    return timing
