"""A blend: an average of runs, then rules in order, each step with out-of-fold macro F1 before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError, StoreError
from harness.data.labelled.base import LabelSpec
from harness.ensemble.average import predict_soup
from harness.ensemble.fit import fit_weights
from harness.ensemble.recipe import Recipe, Rule, Source
from harness.ensemble.runs import ClassRun, check_images, class_run
from harness.metrics.classification import macro_f1, macro_f1_interval
from harness.predictions.classification import ClassPredictions
from harness.results.provenance import provenance
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tasks.classification import metrics, write_files

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One step of a blend.

    Attributes:
        text: the step as a phrase.
        before: out-of-fold macro F1 before the step.
        after: out-of-fold macro F1 after the step.
        changed: number of out-of-fold images with a changed label.
        better: number of changed labels that became right.
        worse: number of changed labels that became wrong.
        test_changed: number of test images with a changed label.
    """

    text: str
    before: float
    after: float
    changed: int
    better: int
    worse: int
    test_changed: int


@dataclass(frozen=True)
class Blend:
    """The result of a recipe.

    Attributes:
        predictions: predictions after the last step.
        alone: out-of-fold macro F1 of each run; None for a run without out-of-fold predictions.
        shares: share of each run in the average.
        steps: steps in order.
        warnings: limits of the metrics, one sentence each.
        runs: runs of the blend by short name.
    """

    predictions: ClassPredictions
    alone: Mapping[str, float | None]
    shares: Mapping[str, float]
    steps: list[Step]
    warnings: list[str]
    runs: Mapping[str, list[ClassRun]]


def blend(recipe: Recipe, device: str = "auto", stage: Callable[[str], None] = lambda text: None) -> Blend:
    """Average the runs of a recipe and apply its rules.

    Args:
        recipe: the content of the blend's YAML file.
        device: device of the networks with averaged weights.
        stage: called with a phrase on the work in progress.

    Returns:
        The predictions, with the metrics of each step.

    Raises:
        StoreError: runs are missing, or do not fit together.
        ConfigError: a rule names an unknown class, condition or label.
    """
    runs = {name: _runs(source) for name, source in recipe.runs.items()}
    check_images([run for runs_of_name in runs.values() for run in runs_of_name])
    predictions: dict[str, ClassPredictions] = {}
    warnings: list[str] = []
    out_of_fold: dict[str, bool] = {}
    for name, source in recipe.runs.items():
        warnings += dict.fromkeys(f"{name}: {text}" for run in runs[name] for text in _warnings_on_metrics(run))
        predictions[name], out_of_fold[name] = _predictions(name, source, runs[name], device, stage)
        if not out_of_fold[name]:
            warnings.append(
                f"{name}: networks averaged over folds saw every image. Out-of-fold predictions are those of the run."
            )
    first = next(iter(predictions.values()))
    _check_rules(recipe.rules, first.labels, first.label_specs)
    k = len(first.labels)
    alone = {n: macro_f1(p.truth, p.predicted, k) if out_of_fold[n] else None for n, p in predictions.items()}
    shares = _shares(recipe, predictions)
    if recipe.soft == "fit":
        warnings.append("soft: fit used the images of the metrics, so the metrics are slightly too high.")
    if recipe.rules:
        warnings.append("rules: a choice of rules by out-of-fold metrics makes these metrics too high.")
    current = _average(predictions, shares)
    best = max((value for value in alone.values() if value is not None), default=float("nan"))
    steps = []
    if len(predictions) > 1:
        text = "average of " + ", ".join(f"{share:.2f} {name}" for name, share in shares.items() if share)
        after = macro_f1(current.truth, current.predicted, k)
        best_name = max(predictions, key=lambda name: alone[name] or -1)
        steps.append(_step(text, predictions[best_name], current, best, after))
    for rule in recipe.rules:
        changed = _apply(rule, current, predictions)
        before, after = (macro_f1(one.truth, one.predicted, k) for one in (current, changed))
        steps.append(_step(rule.sentence(), current, changed, before, after))
        current = changed
    return Blend(current, alone, shares, steps, warnings, runs)


def _warnings_on_metrics(run: ClassRun) -> list[str]:
    """The warnings of a run without those on its data, which the blend's record repeats elsewhere."""
    notes = run.record.data.get("notes", [])
    return [text for text in run.record.warnings if text not in notes]


def _runs(source: Source) -> list[ClassRun]:
    return [class_run(Path(path)) for path in source.average_weights or [str(source.run)]]


def _predictions(
    name: str, source: Source, runs: list[ClassRun], device: str, stage: Callable[[str], None]
) -> tuple[ClassPredictions, bool]:
    """The predictions of a source, and whether its out-of-fold predictions are its own."""
    if source.average_weights:
        predictions, out_of_fold = predict_soup(runs, device, lambda text: stage(f"{name}: {text}"))
    else:
        predictions, out_of_fold = runs[0].predictions, True
    if source.folds:
        folds = runs[0].record.data["folds"]
        unknown = sorted(set(source.folds) - set(folds))
        if unknown or len(predictions.test_by_fold) != len(folds):
            raise StoreError(f"runs.{name}.folds: {unknown or list(source.folds)} found; the run has folds {folds}.")
        weights = np.array([source.folds.get(fold, 0.0) for fold in folds])
        mean = np.tensordot(weights / weights.sum(), predictions.test_by_fold, axes=1)
        predictions = replace(predictions, test_by_fold=mean[None].astype(np.float32))
    return predictions, out_of_fold


def _shares(recipe: Recipe, predictions: Mapping[str, ClassPredictions]) -> dict[str, float]:
    if recipe.soft == "fit":
        truth = next(iter(predictions.values())).truth
        weights = fit_weights([one.probabilities for one in predictions.values()], truth)
        return dict(zip(predictions, weights.tolist(), strict=True))
    shares = dict.fromkeys(predictions, 1.0) if recipe.soft == "equal" else recipe.soft
    total = sum(shares.values())
    return {name: shares.get(name, 0.0) / total for name in predictions}


def _average(predictions: Mapping[str, ClassPredictions], shares: Mapping[str, float]) -> ClassPredictions:
    first = next(iter(predictions.values()))
    out_of_fold = sum(shares[name] * one.probabilities.astype(np.float64) for name, one in predictions.items())
    test = sum(shares[name] * one.test_probabilities.astype(np.float64) for name, one in predictions.items())
    return replace(
        first,
        probabilities=np.asarray(out_of_fold, dtype=np.float32),
        plain=None,
        test_by_fold=np.asarray(test, dtype=np.float32)[None],
    )


def _apply(rule: Rule, current: ClassPredictions, predictions: Mapping[str, ClassPredictions]) -> ClassPredictions:
    """Replace the probabilities of images to which the rule applies by those of the rule's run."""
    taken = predictions[rule.take]
    exception = predictions[rule.unless.run] if rule.unless else taken
    out_of_fold = _mask(rule, current, current.predicted, taken.predicted, exception.predicted)
    test = _mask(rule, current, current.test_predicted, taken.test_predicted, exception.test_predicted)
    return replace(
        current,
        probabilities=np.where(out_of_fold[:, None], taken.probabilities, current.probabilities),
        test_by_fold=np.where(test[:, None], taken.test_probabilities, current.test_probabilities)[None],
    )


def _mask(
    rule: Rule,
    current: ClassPredictions,
    label: npt.NDArray[np.int64],
    taken: npt.NDArray[np.int64],
    exception: npt.NDArray[np.int64],
) -> Mask:
    """Whether a rule applies to each image, by its current label, that of the rule's run, and that of its exception."""
    labels = np.array(current.labels)
    classes, conditions = (np.array(names) for names in zip(*current.label_specs, strict=True))
    mask = np.ones(len(label), dtype=np.bool_)
    if rule.classes:
        mask &= np.isin(classes[label], rule.classes)
    if rule.where_state:
        mask &= conditions[taken] == rule.where_state
    if rule.where_state_not:
        mask &= conditions[taken] != rule.where_state_not
    if rule.where_label:
        mask &= labels[taken] == rule.where_label
    if rule.unless is not None:
        names = conditions if rule.unless.state else labels
        mask &= ~(names[exception] == (rule.unless.state or rule.unless.label))
    return mask


def _check_rules(rules: list[Rule], labels: tuple[str, ...], label_specs: Sequence[LabelSpec]) -> None:
    classes, conditions = ({spec[i] for spec in label_specs} for i in (0, 1))
    problems = []
    for number, rule in enumerate(rules):
        uses = [("class", name, classes) for name in rule.classes or []]
        uses += [("state", name, conditions) for name in (rule.where_state, rule.where_state_not) if name]
        uses += [("label", rule.where_label, set(labels))] if rule.where_label else []
        if rule.unless is not None:
            uses += [("state", rule.unless.state, conditions)] if rule.unless.state else []
            uses += [("label", rule.unless.label, set(labels))] if rule.unless.label else []
        problems += [
            f"rules[{number}]: {key} {name!r} found; expected one of {', '.join(sorted(names)[:12])}."
            for key, name, names in uses
            if name not in names
        ]
    if problems:
        raise ConfigError(problems)


def _step(text: str, old: ClassPredictions, new: ClassPredictions, before: float, after: float) -> Step:
    changed = old.predicted != new.predicted
    return Step(
        text=text,
        before=before,
        after=after,
        changed=int(changed.sum()),
        better=int((changed & (new.predicted == old.truth)).sum()),
        worse=int((changed & (old.predicted == old.truth)).sum()),
        test_changed=int((old.test_predicted != new.test_predicted).sum()),
    )


def write_blend(recipe: Recipe, result: Blend) -> tuple[ResultFolder, str]:
    """Write a blend as a run to its result folder, so that `submit` and `report` accept the blend.

    Args:
        recipe: the recipe of the blend.
        result: the blend itself.

    Returns:
        The result folder, and the id of the run.

    Raises:
        StoreError: the folder holds runs of a sweep, or can't be written.
    """
    folder = ResultFolder(Path(recipe.output) / recipe.name)
    others = [record for record in folder.read_records().good if record.spec["backend"] != "blend"]
    if others:
        raise StoreError(f"name: {folder.root} holds runs of a sweep; expected another name for a blend.")
    folder.create()
    first = next(iter(result.runs.values()))[0]
    params: dict[str, Any] = {
        "runs": [_identity(name, recipe.runs[name], runs) for name, runs in result.runs.items()],
        "shares": [f"{share:.4f} {name}" for name, share in result.shares.items()],
        "rules": [rule.sentence() for rule in recipe.rules],
    }
    run_id = f"blend-{recipe.name}-{sha256(repr(params).encode()).hexdigest()[:8]}"
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    predictions = result.predictions
    interval = macro_f1_interval(predictions.truth, predictions.predicted, len(predictions.labels))
    record = RunRecord(
        run_id=run_id,
        status="ok",
        spec={**first.record.spec, "backend": "blend", "model": "blend", "backbone": None, "image_size": None,
              "params": params, "seed": 0, "trainer": {}},
        axes=list(params),
        data=first.record.data,
        weights={**first.record.weights, "backbone": None},
        metrics=metrics(predictions),
        intervals={} if interval is None else {"macro_F1": list(interval)},
        warnings=[*result.warnings, *(f"{s.text}: {s.before:.4f} -> {s.after:.4f}" for s in result.steps)],
        provenance={**provenance(), "began": now, "ended": now},
        task="classification",
    )  # fmt: skip
    root = Path(first.record.data["root"])
    write_files(folder.stage(run_id), predictions, {}, {name: root / name for name in predictions.names})
    folder.commit(record)
    folder.clear_work([run_id])
    return folder, run_id


def _identity(name: str, source: Source, runs: Sequence[ClassRun]) -> str:
    """The complete source behind a short name. The id of a blend's run contains a hash of this text."""
    names = ", ".join(run.record.run_id for run in runs)
    folds = "".join(f", fold {fold} x {weight:g}" for fold, weight in sorted(source.folds.items()))
    return f"{name}: {'weights averaged of ' if source.average_weights else ''}{names}{folds}"
