"""A blend: an average of runs, then rules in order, each step with out-of-fold macro F1 before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.common.errors import StoreError
from harness.data.labelled.base import split_label
from harness.ensemble.average import predict_soup
from harness.ensemble.combine import average
from harness.ensemble.fit import fit_weights
from harness.ensemble.outside import read_outside
from harness.ensemble.recipe import Recipe, Source
from harness.ensemble.rules import Answers, LabelSet, Sides, apply_rule, check_rules, sides_of
from harness.ensemble.runs import ClassRun, check_all_classes, check_images, class_run
from harness.metrics.classification import macro_f1
from harness.predictions.classification import ClassPredictions


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
        alone: out-of-fold macro F1 of each source; None for a source without out-of-fold predictions.
        shares: share of each source in the average.
        steps: steps in order.
        warnings: limits of the metrics, one sentence each.
        runs: runs of the blend by short name, without sources from outside and averages of sources.
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
        StoreError: runs are missing or do not fit together, or an average has a run of some classes only.
        ConfigError: a rule names an unknown class, condition or label.
    """
    runs = _checked_runs(recipe)
    predictions: dict[str, ClassPredictions] = {}
    warnings: list[str] = []
    out_of_fold: dict[str, bool] = {}
    for name, own_runs in runs.items():
        warnings += dict.fromkeys(f"{name}: {text}" for run in own_runs for text in _warnings_on_metrics(run))
        predictions[name], out_of_fold[name], notes = _predictions(recipe, name, own_runs, device, stage)
        warnings += [f"{name}: {note}" for note in dict.fromkeys(notes)]
        if not out_of_fold[name]:
            warnings.append(
                f"{name}: networks averaged over folds saw every image. Out-of-fold predictions are those of the run."
            )
    first = next(iter(predictions.values()))
    judges: dict[str, Sides] = {}
    for name, source in recipe.runs.items():
        if source.out_of_fold is None:
            continue
        warnings.append(f"{name}: predictions from outside. The harness can't check that they are out of fold.")
        labels, probabilities, test = read_outside(source, first.names, first.test_names, first.labels)
        if source.own_labels:
            own = LabelSet(labels, tuple(split_label(label) for label in labels))
            judges[name] = Answers(own, probabilities), Answers(own, test)
        else:
            predictions[name] = replace(
                first, probabilities=probabilities, plain=None, network=None, test_by_fold=test[None]
            )
    for name, source in recipe.runs.items():
        if source.average_of is not None:
            predictions[name] = _average(source.average_of, predictions, recipe.average)
    # In the order of the recipe, which decides between equal runs.
    predictions = {name: predictions[name] for name in recipe.runs if name in predictions}
    only = {name: own_runs[0].only_classes for name, own_runs in runs.items()}
    sources = judges | {name: sides_of(one, only.get(name, ())) for name, one in predictions.items()}
    known = {name: sides[0].known for name, sides in sources.items()}
    check_rules(recipe.rules, known, LabelSet(first.labels, first.label_specs))
    k = len(first.labels)
    saw_all = {name for name, own in out_of_fold.items() if not own}
    saw_all |= {name for name, source in recipe.runs.items() if saw_all & set(source.average_of or {})}
    alone = {n: None if n in saw_all else macro_f1(p.truth, p.predicted, k) for n, p in predictions.items()}
    shares = _shares(recipe, _averaged(recipe, runs), predictions)
    if recipe.soft == "fit":
        warnings.append("soft: fit used the images of the metrics, so the metrics are slightly too high.")
    if recipe.rules:
        warnings.append("rules: a choice of rules by out-of-fold metrics makes these metrics too high.")
    current = _average({n: share for n, share in shares.items() if share}, predictions, recipe.average)
    best = max((value for value in alone.values() if value is not None), default=float("nan"))
    steps = []
    if len(predictions) > 1:
        kind = "average of logits of " if recipe.average == "logits" else "average of "
        text = kind + ", ".join(f"{share:.2f} {name}" for name, share in shares.items() if share)
        after = macro_f1(current.truth, current.predicted, k)
        best_name = max(predictions, key=lambda name: alone[name] or -1)
        steps.append(_step(text, predictions[best_name], current, best, after))
    for rule in recipe.rules:
        changed = apply_rule(rule, current, sources)
        before, after = (macro_f1(one.truth, one.predicted, k) for one in (current, changed))
        steps.append(_step(rule.sentence(), current, changed, before, after))
        current = changed
    return Blend(current, alone, shares, steps, warnings, runs)


def _warnings_on_metrics(run: ClassRun) -> list[str]:
    """The warnings of a run without those on its data, which the blend's record repeats elsewhere."""
    notes = run.record.data.get("notes", [])
    return [text for text in run.record.warnings if text not in notes]


def _checked_runs(recipe: Recipe) -> dict[str, list[ClassRun]]:
    runs = {name: _runs(source) for name, source in recipe.runs.items() if source.has_runs}
    check_images([run for runs_of_name in runs.values() for run in runs_of_name])
    averaged = {*_averaged(recipe, runs), *(name for one in recipe.runs.values() for name in one.average_of or {})}
    check_all_classes([run for name, runs_of_name in runs.items() if name in averaged for run in runs_of_name])
    return runs


def _averaged(recipe: Recipe, runs: Mapping[str, list[ClassRun]]) -> list[str]:
    """Short names of the sources in the average. Only explicit shares can name a run of some classes."""
    names = recipe.averaged
    complete = [name for name in names if not any(run.only_classes for run in runs.get(name, []))]
    return names if isinstance(recipe.soft, dict) else complete or names


def _runs(source: Source) -> list[ClassRun]:
    return [class_run(Path(path)) for path in source.average_weights or [str(source.run)]]


def _predictions(
    recipe: Recipe, name: str, runs: list[ClassRun], device: str, stage: Callable[[str], None]
) -> tuple[ClassPredictions, bool, list[str]]:
    """The predictions of a source, whether its out-of-fold predictions are its own, and notes for the user."""
    source = recipe.runs[name]
    if source.average_weights:
        predictions, out_of_fold, notes = predict_soup(runs, device, lambda text: stage(f"{name}: {text}"))
    else:
        predictions, out_of_fold, notes = runs[0].predictions, True, []
    if source.folds:
        folds = runs[0].record.data["folds"]
        unknown = sorted(set(source.folds) - set(folds))
        if unknown or len(predictions.test_by_fold) != len(folds):
            raise StoreError(f"runs.{name}.folds: {unknown or list(source.folds)} found; the run has folds {folds}.")
        weights = [source.folds.get(fold, 0.0) for fold in folds]
        mean = average(list(predictions.test_by_fold), weights, recipe.average)
        predictions = replace(predictions, test_by_fold=mean[None])
    elif recipe.average == "logits" and len(predictions.test_by_fold):
        by_fold = list(predictions.test_by_fold)
        predictions = replace(predictions, test_by_fold=average(by_fold, [1.0] * len(by_fold), "logits")[None])
    return predictions, out_of_fold, notes


def _shares(recipe: Recipe, names: Sequence[str], predictions: Mapping[str, ClassPredictions]) -> dict[str, float]:
    if recipe.soft == "fit":
        used = [predictions[name] for name in names]
        fitted = fit_weights([one.probabilities for one in used], used[0].truth)
        weights = dict(zip(names, fitted.tolist(), strict=True))
    else:
        weights = dict.fromkeys(names, 1.0) if recipe.soft == "equal" else dict(recipe.soft)
    total = sum(weights.values())
    return {name: weights.get(name, 0.0) / total for name in predictions}


def _average(names: Mapping[str, float], predictions: Mapping[str, ClassPredictions], kind: str) -> ClassPredictions:
    """The average of predictions by short name, with the weight of each name."""
    sources = [predictions[name] for name in names]
    weights = list(names.values())
    test = average([one.test_probabilities for one in sources], weights, kind)
    return replace(
        sources[0],
        probabilities=average([one.probabilities for one in sources], weights, kind),
        plain=None,
        network=None,
        test_by_fold=test[None],
    )


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
