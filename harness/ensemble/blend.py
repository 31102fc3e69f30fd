"""A blend: runs averaged, then rules in order, each with macro F1 out of fold before and after."""

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
from harness.ensemble.average import averaged
from harness.ensemble.fit import fit_weights
from harness.ensemble.recipe import Recipe, Rule, Source
from harness.ensemble.runs import ClassRun, class_run, same_images
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
        text: what was done.
        before, after: macro F1 out of fold.
        changed: out-of-fold images whose label changed.
        better, worse: of those, how many became right, and wrong.
        test_changed: test images whose label changed.
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
    """What came of a recipe.

    Attributes:
        predictions: at its end.
        alone: macro F1 out of fold of each run; None where a run has none.
        shares: how much each run counts.
        steps: in order.
        warnings: what to know of the figures.
        runs: that it was made of, by short name.
    """

    predictions: ClassPredictions
    alone: Mapping[str, float | None]
    shares: Mapping[str, float]
    steps: list[Step]
    warnings: list[str]
    runs: Mapping[str, list[ClassRun]]


def blend(recipe: Recipe, device: str = "auto", tell: Callable[[str], None] = lambda text: None) -> Blend:
    """Follow a recipe.

    Args:
        recipe: valid.
        device: where networks run whose weights are averaged.
        tell: what goes on.

    Raises:
        StoreError: runs are missing, or do not fit together.
        ConfigError: a rule names a class, state or label that there is none of.
    """
    runs = {name: _runs(source) for name, source in recipe.runs.items()}
    same_images([run for found in runs.values() for run in found])
    parts: dict[str, ClassPredictions] = {}
    warnings: list[str] = []
    own: dict[str, bool] = {}
    for name, source in recipe.runs.items():
        warnings += dict.fromkeys(f"{name}: {text}" for run in runs[name] for text in _of_figures(run))
        parts[name], own[name] = _predictions(name, source, runs[name], device, tell)
        if not own[name]:
            warnings.append(
                f"{name}: networks averaged over folds saw every image; out of fold, the run itself stands in."
            )
    first = next(iter(parts.values()))
    _check_rules(recipe.rules, first.labels, first.label_specs)
    k = len(first.labels)
    alone = {name: macro_f1(one.truth, one.predicted, k) if own[name] else None for name, one in parts.items()}
    shares = _shares(recipe, parts)
    if recipe.soft == "fit":
        warnings.append(
            "soft: fit chose weights on the very images that the figures are about, which flatters them a little."
        )
    if recipe.rules:
        warnings.append("rules: made after looking at out-of-fold figures, rules flatter them.")
    current = _average(parts, shares)
    best = max((value for value in alone.values() if value is not None), default=float("nan"))
    steps = []
    if len(parts) > 1:
        text = "average of " + ", ".join(f"{share:.2f} {name}" for name, share in shares.items() if share)
        after = macro_f1(current.truth, current.predicted, k)
        champion = max(parts, key=lambda name: alone[name] or -1)
        steps.append(_step(text, parts[champion], current, best, after))
    for rule in recipe.rules:
        changed = _apply(rule, current, parts)
        before, after = (macro_f1(one.truth, one.predicted, k) for one in (current, changed))
        steps.append(_step(rule.sentence(), current, changed, before, after))
        current = changed
    return Blend(current, alone, shares, steps, warnings, runs)


def _of_figures(run: ClassRun) -> list[str]:
    """Warnings of a run without those about its data, which the blend has itself."""
    notes = run.record.data.get("notes", [])
    return [text for text in run.record.warnings if text not in notes]


def _runs(source: Source) -> list[ClassRun]:
    return [class_run(Path(path)) for path in source.average_weights or [str(source.run)]]


def _predictions(
    name: str, source: Source, runs: list[ClassRun], device: str, tell: Callable[[str], None]
) -> tuple[ClassPredictions, bool]:
    if source.average_weights:
        found, own = averaged(runs, device, lambda text: tell(f"{name}: {text}"))
    else:
        found, own = runs[0].predictions, True
    if source.folds:
        there = runs[0].record.data["folds"]
        unknown = sorted(set(source.folds) - set(there))
        if unknown or len(found.test_by_fold) != len(there):
            raise StoreError(f"runs.{name}.folds: {unknown or list(source.folds)} found; the run has folds {there}.")
        weights = np.array([source.folds.get(fold, 0.0) for fold in there])
        mean = np.tensordot(weights / weights.sum(), found.test_by_fold, axes=1)
        found = replace(found, test_by_fold=mean[None].astype(np.float32))
    return found, own


def _shares(recipe: Recipe, parts: Mapping[str, ClassPredictions]) -> dict[str, float]:
    if recipe.soft == "fit":
        truth = next(iter(parts.values())).truth
        return dict(zip(parts, fit_weights([one.probabilities for one in parts.values()], truth).tolist(), strict=True))
    given = dict.fromkeys(parts, 1.0) if recipe.soft == "equal" else recipe.soft
    total = sum(given.values())
    return {name: given.get(name, 0.0) / total for name in parts}


def _average(parts: Mapping[str, ClassPredictions], shares: Mapping[str, float]) -> ClassPredictions:
    first = next(iter(parts.values()))
    own = sum(shares[name] * one.probabilities.astype(np.float64) for name, one in parts.items())
    test = sum(shares[name] * one.test_probabilities.astype(np.float64) for name, one in parts.items())
    return replace(
        first,
        probabilities=np.asarray(own, dtype=np.float32),
        plain=None,
        test_by_fold=np.asarray(test, dtype=np.float32)[None],
    )


def _apply(rule: Rule, current: ClassPredictions, parts: Mapping[str, ClassPredictions]) -> ClassPredictions:
    """Where the rule holds, the taken run's probabilities stand in."""
    taken = parts[rule.take]
    keeper = parts[rule.unless.run] if rule.unless else taken
    own = _holds(rule, current, current.predicted, taken.predicted, keeper.predicted)
    test = _holds(rule, current, current.test_predicted, taken.test_predicted, keeper.test_predicted)
    return replace(
        current,
        probabilities=np.where(own[:, None], taken.probabilities, current.probabilities),
        test_by_fold=np.where(test[:, None], taken.test_probabilities, current.test_probabilities)[None],
    )


def _holds(
    rule: Rule,
    current: ClassPredictions,
    now: npt.NDArray[np.int64],
    said: npt.NDArray[np.int64],
    keeper: npt.NDArray[np.int64],
) -> Mask:
    """For which images a rule holds: what they are called now, what the taken run says, and what the keeper says."""
    names = np.array(current.labels)
    classes, states = (np.array(part) for part in zip(*current.label_specs, strict=True))
    found = np.ones(len(now), dtype=np.bool_)
    if rule.classes:
        found &= np.isin(classes[now], rule.classes)
    if rule.where_state:
        found &= states[said] == rule.where_state
    if rule.where_state_not:
        found &= states[said] != rule.where_state_not
    if rule.where_label:
        found &= names[said] == rule.where_label
    if rule.unless is not None:
        found &= ~((states if rule.unless.state else names)[keeper] == (rule.unless.state or rule.unless.label))
    return found


def _check_rules(rules: list[Rule], labels: tuple[str, ...], label_specs: Sequence[LabelSpec]) -> None:
    classes, states = ({meaning[i] for meaning in label_specs} for i in (0, 1))
    problems = []
    for number, rule in enumerate(rules):
        named = [("class", name, classes) for name in rule.classes or []]
        named += [("state", name, states) for name in (rule.where_state, rule.where_state_not) if name]
        named += [("label", rule.where_label, set(labels))] if rule.where_label else []
        if rule.unless is not None:
            named += [("state", rule.unless.state, states)] if rule.unless.state else []
            named += [("label", rule.unless.label, set(labels))] if rule.unless.label else []
        problems += [
            f"rules[{number}]: {what} {name!r} found; there are {', '.join(sorted(known)[:12])}."
            for what, name, known in named
            if name not in known
        ]
    if problems:
        raise ConfigError(problems)


def _step(text: str, one: ClassPredictions, other: ClassPredictions, before: float, after: float) -> Step:
    changed = one.predicted != other.predicted
    return Step(
        text=text,
        before=before,
        after=after,
        changed=int(changed.sum()),
        better=int((changed & (other.predicted == one.truth)).sum()),
        worse=int((changed & (one.predicted == one.truth)).sum()),
        test_changed=int((one.test_predicted != other.test_predicted).sum()),
    )


def write_blend(recipe: Recipe, found: Blend) -> tuple[ResultFolder, str]:
    """Put a blend in a result folder of its own, as a run: it can be submitted, and shown beside other runs.

    Returns:
        The folder, and the run's name.

    Raises:
        StoreError: the folder holds something else, or can't be written.
    """
    folder = ResultFolder(Path(recipe.output) / recipe.name)
    others = [record for record in folder.read_records().good if record.spec["backend"] != "blend"]
    if others:
        raise StoreError(f"name: {folder.root} holds runs of a sweep; expected another name for a blend.")
    folder.create()
    first = next(iter(found.runs.values()))[0]
    params: dict[str, Any] = {
        "runs": [_told(name, recipe.runs[name], runs) for name, runs in found.runs.items()],
        "shares": [f"{share:.4f} {name}" for name, share in found.shares.items()],
        "rules": [rule.sentence() for rule in recipe.rules],
    }
    run_id = f"blend-{recipe.name}-{sha256(repr(params).encode()).hexdigest()[:8]}"
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    ends = macro_f1_interval(found.predictions.truth, found.predictions.predicted, len(found.predictions.labels))
    record = RunRecord(
        run_id=run_id,
        status="ok",
        spec={**first.record.spec, "backend": "blend", "model": "blend", "backbone": None, "image_size": None,
              "params": params, "seed": 0, "trainer": {}},
        axes=list(params),
        data=first.record.data,
        weights={**first.record.weights, "backbone": None},
        metrics=metrics(found.predictions),
        intervals={} if ends is None else {"macro_F1": list(ends)},
        warnings=[*found.warnings, *(f"{s.text}: {s.before:.4f} -> {s.after:.4f}" for s in found.steps)],
        provenance={**provenance(), "began": now, "ended": now},
        task="classification",
    )  # fmt: skip
    root = Path(first.record.data["root"])
    stage = folder.stage(run_id)
    write_files(stage, found.predictions, {}, {name: root / name for name in found.predictions.names})
    folder.commit(record)
    folder.clear_work([run_id])
    return folder, run_id


def _told(name: str, source: Source, runs: Sequence[ClassRun]) -> str:
    """What stands behind a short name, all of it: blends that differ in it are different runs."""
    names = ", ".join(run.record.run_id for run in runs)
    folds = "".join(f", fold {fold} x {weight:g}" for fold, weight in sorted(source.folds.items()))
    return f"{name}: {'weights averaged of ' if source.average_weights else ''}{names}{folds}"
