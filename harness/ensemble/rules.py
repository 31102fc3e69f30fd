"""Rules of a blend: which images get another label, and which one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError
from harness.data.labelled.base import LabelSpec
from harness.ensemble.combine import Mask, Positions, count_votes, second_label, with_second_first
from harness.ensemble.recipe import CURRENT, Rule, Unless
from harness.predictions.classification import ClassPredictions, Probabilities


@dataclass(frozen=True)
class LabelSet:
    """The labels that a source may give.

    Attributes:
        labels: all labels, in the order of the columns of its probabilities.
        label_specs: class and condition of each label.
        only_classes: classes that the source knows; a label of another class is null. Empty for all classes.
    """

    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    only_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """A source's probabilities for n images, all out of fold or all of the test.

    Attributes:
        known: labels of the source.
        probabilities: shape (n, labels).
    """

    known: LabelSet
    probabilities: Probabilities

    def first(self) -> Chosen:
        """The most probable label of each image."""
        return self.chosen(np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64), self.probabilities)

    def chosen(self, positions: Positions, probabilities: Probabilities) -> Chosen:
        """Labels by position, with their probabilities.

        Args:
            positions: of the labels, shape (n,).
            probabilities: of all labels, shape (n, labels).
        """
        classes, conditions = zip(*self.known.label_specs, strict=True)
        only = self.known.only_classes or classes
        return Chosen(
            positions=positions,
            labels=np.array(self.known.labels)[positions],
            classes=np.array(classes)[positions],
            conditions=np.array(conditions)[positions],
            confidence=probabilities[np.arange(len(positions)), positions],
            is_null=~np.isin(classes, only)[positions],
        )


@dataclass(frozen=True)
class Chosen:
    """One label for each of n images. Each attribute has shape (n,).

    Attributes:
        positions: positions of the labels.
        labels: the labels.
        classes: their classes.
        conditions: their conditions.
        confidence: their probabilities.
        is_null: whether the source does not know the class of the label.
    """

    positions: Positions
    labels: npt.NDArray[np.str_]
    classes: npt.NDArray[np.str_]
    conditions: npt.NDArray[np.str_]
    confidence: Probabilities
    is_null: Mask


# Out of fold, and for the test images.
Sides = tuple[Answers, Answers]


def sides_of(predictions: ClassPredictions, only_classes: tuple[str, ...] = ()) -> Sides:
    """The out-of-fold answers and the test answers of predictions.

    Args:
        predictions: of a source.
        only_classes: see `LabelSet`.
    """
    known = LabelSet(predictions.labels, predictions.label_specs, only_classes)
    return Answers(known, predictions.probabilities), Answers(known, predictions.test_probabilities)


def apply_rule(rule: Rule, current: ClassPredictions, sources: Mapping[str, Sides]) -> ClassPredictions:
    """Replace the probabilities of images to which a rule applies.

    Args:
        rule: the rule.
        current: predictions before the rule.
        sources: answers of each source by short name.

    Returns:
        Predictions after the rule.
    """
    out_of_fold, test = (
        _apply(rule, now, {CURRENT: now, **{name: sides[side] for name, sides in sources.items()}})
        for side, now in enumerate(sides_of(current))
    )
    return replace(current, probabilities=out_of_fold, test_by_fold=test[None])


def _apply(rule: Rule, now: Answers, sources: Mapping[str, Answers]) -> Probabilities:
    current = now.first()
    if rule.vote is not None:
        probabilities, new, mask = _vote(rule, now, sources)
    else:
        probabilities, new = _take(rule, sources[str(rule.take)])
        mask = ~new.is_null
    mask &= _conditions_hold(rule, new if rule.of == "new" else current)
    if rule.classes:
        mask &= np.isin(current.classes, rule.classes)
    if rule.unless is not None:
        mask &= ~_says(rule.unless, sources[rule.unless.run].first())
    return np.asarray(np.where(mask[:, None], probabilities, now.probabilities), dtype=np.float32)


def _take(rule: Rule, taken: Answers) -> tuple[Probabilities, Chosen]:
    if rule.choice == "first":
        return taken.probabilities, taken.first()
    chosen = taken.chosen(second_label(taken.probabilities), taken.probabilities)
    return with_second_first(taken.probabilities), chosen


def _vote(rule: Rule, now: Answers, sources: Mapping[str, Answers]) -> tuple[Probabilities, Chosen, Mask]:
    weights = rule.vote or {}
    votes = []
    for name in weights:
        vote = sources[name].first()
        null = vote.is_null.copy()
        if rule.null_below is not None:
            null |= vote.confidence < rule.null_below
        if rule.null_unless_class:
            null |= ~np.isin(vote.classes, rule.null_unless_class)
        votes.append((vote.positions, null))
    shares, winners, won = count_votes(votes, list(weights.values()), len(now.known.labels), rule.ties)
    return shares, now.chosen(winners, shares), won


def _conditions_hold(rule: Rule, label: Chosen) -> Mask:
    mask = np.ones(len(label.positions), dtype=np.bool_)
    if rule.where_state:
        mask &= label.conditions == rule.where_state
    if rule.where_state_not:
        mask &= label.conditions != rule.where_state_not
    if rule.where_label:
        mask &= label.labels == rule.where_label
    if rule.where_class:
        mask &= np.isin(label.classes, rule.where_class)
    if rule.unless_class:
        mask &= ~np.isin(label.classes, rule.unless_class)
    if rule.where_confidence_below is not None:
        mask &= label.confidence < rule.where_confidence_below
    return mask


def _says(unless: Unless, label: Chosen) -> Mask:
    says = label.conditions == unless.state if unless.state else label.labels == unless.label
    if unless.confidence_from is not None:
        says = says & (label.confidence >= unless.confidence_from)
    return np.asarray(says & ~label.is_null, dtype=np.bool_)


def check_rules(rules: Sequence[Rule], known: Mapping[str, LabelSet], runs: LabelSet) -> None:
    """Check the names of classes, conditions and labels in rules.

    Args:
        rules: the rules in order.
        known: labels of each source by short name.
        runs: the labels of the runs, which the blend has too.

    Raises:
        ConfigError: a rule names an unknown class, condition or label; or asks one label for its second.
    """
    problems = []
    for number, rule in enumerate(rules):
        problems += [f"rules[{number}]: {text}" for text in _unknown(rule, known, runs)]
        if rule.choice == "second" and len(runs.labels) < 2:
            problems.append(
                f"rules[{number}].choice: second found, for one label; expected runs with 2 labels or more."
            )
    if problems:
        raise ConfigError(problems)


def _unknown(rule: Rule, known: Mapping[str, LabelSet], runs: LabelSet) -> list[str]:
    classes, conditions = ({spec[i] for spec in runs.label_specs} for i in (0, 1))
    named = [*(rule.classes or []), *(rule.where_class or []), *(rule.unless_class or [])]
    uses = [("class", name, classes) for name in [*named, *(rule.null_unless_class or [])]]
    uses += [("state", name, conditions) for name in (rule.where_state, rule.where_state_not) if name]
    uses += [("label", rule.where_label, set(runs.labels))] if rule.where_label else []
    if rule.unless is not None:
        its = known.get(rule.unless.run, runs)
        uses += [("state", rule.unless.state, {spec[1] for spec in its.label_specs})] if rule.unless.state else []
        uses += [("label", rule.unless.label, set(its.labels))] if rule.unless.label else []
    return [
        f"{key} {name!r} found; expected one of {', '.join(sorted(names)[:12])}."
        for key, name, names in uses
        if name not in names
    ]
