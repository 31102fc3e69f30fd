"""One spec: every fold (and, one class at a time, every network) trained, its images named, all put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.backbones.resolve import resolve
from harness.backends.base import Classified, RunContext
from harness.backends.cost import PeakMemory, latency, size, some, times
from harness.backends.supervised.classifier import Member, SupervisedScorer
from harness.backends.supervised.fold import Fold, of_fold, together
from harness.backends.supervised.module import FoldData, seed_of
from harness.backends.supervised.network import build
from harness.backends.supervised.one_class import classes, merge, own_targets
from harness.backends.supervised.pictures import Pixels, decode_once
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.training import Look, Trained, predict_all, train
from harness.common.devices import pick
from harness.config.spec import RunSpec, slug, thaw
from harness.data.images import read_image
from harness.data.labelled.base import LabelledSplit
from harness.metrics.classification import accuracy, macro_f1
from harness.predictions.classification import truth_of

Floats = npt.NDArray[np.float64]
EPOCHS = 10  # where trainer.max_epochs says nothing


@dataclass(frozen=True)
class Unit:
    """One network to be trained.

    Attributes:
        fold: the fold that judges it.
        part: the class whose states it tells apart; "" for all labels.
        own: positions of its labels.
    """

    fold: int
    part: str
    own: tuple[int, ...]

    @property
    def name(self) -> str:
        """For folders and curves."""
        return f"fold{self.fold}" + (f"-{self.part}" if self.part else "")


def run_spec(spec: RunSpec, split: LabelledSplit, context: RunContext) -> Classified:
    """Train and name; see `harness.backends.base.Backend.run`.

    Raises:
        HarnessError: the loss is no number, or images do not fit.
        Exception: whatever Torch, timm or Lightning raise.
    """
    run = _Run(spec, split, context)
    return run.outcome()


class _Run:
    """One spec at work."""

    def __init__(self, spec: RunSpec, split: LabelledSplit, context: RunContext) -> None:
        self._spec, self._split, self._context = spec, split, context
        self._settings = Settings.of(spec)
        self._device = pick(context.device)
        self._weights = resolve(spec.weights, str(spec.backbone))
        self._truth = truth_of(split.train, split.labels)
        self._parts = classes(split.label_specs)
        self._members: list[Member] = []
        self._trained: dict[str, Trained] = {}
        assert context.unfinished is not None
        self._unfinished = context.unfinished

    def outcome(self) -> Classified:
        """Everything."""
        peak = PeakMemory(self._device)
        start = time.perf_counter()
        pixels = self._decoded()
        decoded = time.perf_counter() - start
        folds = [self._fold(fold, pixels) for fold in self._split.run_folds]
        predictions = together(folds, self._split, self._truth)
        fit, test = sum(fold.fit for fold in folds), sum(fold.test for fold in folds)
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
                "fit": fit + decoded,
                "test": test,
                "alone": fit + decoded + test,
                "spent": time.perf_counter() - start,
            },
            device=self._device.description,
            save_model=scorer.save,
            cost=cost,
            weights={"backbone": self._spec.backbone, **self._weights.as_dict()},
            warnings=warnings,
            folds=[fold.about for fold in folds],
            curves={name: one.history for name, one in self._trained.items()},
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
        for part, own in self._parts.items():
            yield Unit(fold, part, tuple(own))

    def _fold(self, fold: int, pixels: Pixels) -> Fold:
        judged = self._split.judged(fold)
        tested = list(range(len(self._split.train), len(pixels)))
        units = list(self._units(fold))
        start = time.perf_counter()
        trained = {unit.part: self._train(unit, pixels) for unit in units}
        fit = time.perf_counter() - start
        self._context.stage(f"fold {fold}: naming images")
        start = time.perf_counter()
        answers = {u.part: self._named(trained[u.part], pixels, judged, self._settings.views) for u in units}
        of_test = {u.part: self._named(trained[u.part], pixels, tested, self._settings.views) for u in units}
        test = time.perf_counter() - start
        plain = answers
        if self._settings.views:
            plain = {u.part: self._named(trained[u.part], pixels, judged, ()) for u in units}
        own, claims = self._merged(answers)
        for unit in units:
            self._members.append(Member(fold, unit.part, unit.own, trained[unit.part].network))
            self._trained[unit.name] = trained[unit.part]
        truth, said = self._truth[judged], own.argmax(axis=1)
        about = {
            "fold": fold,
            "learnt": len(self._split.learnt(fold)),
            "judged": len(judged),
            "macro_F1": macro_f1(truth, said, len(self._split.labels)),
            "accuracy": accuracy(truth, said),
            "epochs": max(len(one.history) for one in trained.values()),
            "kept_epoch": max(one.epoch for one in trained.values()),
            "resumed_after_epoch": max(one.resumed for one in trained.values()),
            "seconds": sum(entry["seconds"] for one in trained.values() for entry in one.history),
        }
        # Networks may be there already, of a run that is looked at otherwise, or of a try that was cut short.
        fit = max(fit, about["seconds"])
        return Fold(fold, judged, own, self._merged(plain)[0], self._merged(of_test)[0], claims, about, fit, test)

    def _train(self, unit: Unit, pixels: Pixels) -> Trained:
        spec, settings = self._spec, self._settings
        seed = seed_of(spec.seed, unit.fold, *unit.part.encode())
        known = truth_of([*self._split.train, *self._split.test], self._split.labels)
        targets = known if not unit.part else own_targets(known, unit.own)
        outputs = len(unit.own) + bool(unit.part)
        lesson = FoldData(
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
        total = len(self._split.run_folds)
        where = f"fold {self._split.run_folds.index(unit.fold) + 1} of {total}" + (
            f", {unit.part}" if unit.part else ""
        )
        return train(
            network,
            settings,
            lesson,
            self._unfinished / unit.name,
            self._device,
            trainer,
            log_to if settings.tensorboard else None,
            lambda text: self._context.stage(f"{where}, {text}"),
            self._look(unit),
        )

    def _look(self, unit: Unit) -> Look | None:
        """Shows what the first network of the run says of its fold, to whoever watches."""
        watch = self._context.watch
        if watch is None or unit.part or unit.fold != self._split.run_folds[0]:
            return None
        judged = self._split.judged(unit.fold)

        def look(epoch: int, said: npt.NDArray[np.float32]) -> None:
            if watch.wants(self._spec, epoch):
                watch.on_epoch(self._spec, epoch, of_fold(unit.fold, judged, said, self._split, self._truth))

        return look

    def _with_margin(self) -> npt.NDArray[np.bool_] | None:
        chosen = self._settings.arcface_classes
        if not chosen:
            return None
        found = np.zeros(len(self._split.labels), dtype=np.bool_)
        found[[position for part in chosen for position in self._parts[part]]] = True
        return found

    def _named(self, one: Trained, pixels: Pixels, chosen: Sequence[int], kinds: Sequence[str]) -> Floats:
        return predict_all(one.network, pixels, chosen, kinds, self._spec.eval_batch_size, self._device)

    def _merged(self, answers: dict[str, Floats]) -> tuple[Floats, Floats]:
        if self._spec.model == "baseline":
            found = answers[""]
            return found, np.ones(len(found))
        return merge(answers, self._parts, len(self._split.labels))

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

    def _warnings(self, folds: Sequence[Fold]) -> list[str]:
        found = [self._weights.note] if self._weights.note else []
        chosen = [
            text
            for asked, text in (
                (self._settings.keep == "best", "keep best"),
                (self._settings.early_stopping > 0, "early_stopping"),
                (self._settings.schedule == "plateau", "schedule plateau"),
            )
            if asked
        ]
        if chosen:
            found.append(
                f"{', '.join(chosen)}: chosen by the very images that the figures are about, which flatters them"
            )
        if self._spec.model == "one_class":
            claims = np.concatenate([fold.claims for fold in folds])
            none, several = int((claims == 0).sum()), int((claims > 1).sum())
            if none or several:
                found.append(
                    f"one_class: of {len(claims)} images {several} were claimed by several classes' networks and "
                    f"{none} by none; the surest claim decided"
                )
        resumed = [str(fold.number) for fold in folds if fold.about["resumed_after_epoch"]]
        if resumed:
            found.append(f"fold {', '.join(resumed)}: went on after a stop; its seconds are of both tries")
        return found


def _single_images(scorer: SupervisedScorer, paths: Sequence[str]) -> Any:
    """Times of single images, from decoded to probabilities, all networks."""
    chosen: Callable[[Sequence[Any]], list[Any]] = some
    images = [read_image(path) for path in chosen(paths)]
    with torch.inference_mode():
        found = times(lambda pixels: scorer.probabilities([scorer.prepare(pixels)]), images, scorer.torch_device)
    scorer.to_cpu()
    return found
