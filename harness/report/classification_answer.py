"""The answer of a classification: the best configuration of each data set in words, and its key figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.metrics.classification import macro_f1
from harness.report.classification_coverage import coverage_sentence
from harness.report.classification_results import ClassificationResults
from harness.report.configurations import Configuration
from harness.report.facts import short_names
from harness.report.key_figures import Figure, size_figure, time_figure
from harness.report.results import Results
from harness.report.selection import RIVALS, macro_f1_without_bias
from harness.report.standings import in_words


def answers(classification: ClassificationResults) -> list[str]:
    """The best configuration in words, for each data set.

    Args:
        classification: results of a folder.
    """
    groups = [group for group in classification.results.configurations.values() if _has_metric(group)]
    return [_in_words(classification, group) for group in groups]


def answer_cards(classification: ClassificationResults) -> list[dict[str, Any]]:
    """The answer on each data set, for the template of the page.

    Args:
        classification: results of a folder.
    """
    named = classification.results.configurations
    names = short_names(list(named))
    return [_card(classification, name, group) for name, group in zip(names, named.values(), strict=True)]


def most_confused(classification: ClassificationResults, run_id: str) -> dict[str, Any] | None:
    """The pair of labels that a run confuses most often; None where every image has its true label.

    Args:
        classification: results of a folder.
        run_id: the run.

    Returns:
        The true `label`, the label `said` in its place, the number of such `images`, and those `of` the true label.
    """
    pairs: list[dict[str, Any]] = classification.results.details(run_id).get("confused", [])
    return max(pairs, key=lambda pair: pair["images"], default=None)


def _has_metric(group: Sequence[Configuration]) -> bool:
    return group[0].metric("macro_F1") is not None


def _card(classification: ClassificationResults, name: str, group: Sequence[Configuration]) -> dict[str, Any]:
    best = group[0]
    figures = [
        _quality(classification, best),
        _accuracy(best),
        _confused(classification, best),
        time_figure(best),
        size_figure(best),
    ]
    sentences = [_compared(classification, group), _guessing(classification, best)] if _has_metric(group) else []
    return {
        "dataset": name,
        "chosen": best.name,
        "figures": [figure for figure in figures if figure is not None],
        "sentences": [*filter(None, sentences), coverage_sentence(classification, best.best_run)],
    }


def _quality(classification: ClassificationResults, best: Configuration) -> Figure | None:
    value, ends = best.metric("macro_F1"), classification.interval(best)
    if value is None:
        return None
    remark = f"95%: {ends[0]:.3f} to {ends[1]:.3f}, out of fold" if ends else "out of fold"
    return "macro F1", f"{value:.3f}", remark


def _accuracy(best: Configuration) -> Figure | None:
    accuracy = best.metric("accuracy")
    return None if accuracy is None else ("accuracy", f"{accuracy:.1%}", "of the images get the right label")


def _confused(classification: ClassificationResults, best: Configuration) -> Figure | None:
    pair = most_confused(classification, best.best_run)
    if pair is None:
        return None
    return "most often confused", f"{pair['images']} of {pair['of']}", f"{pair['label']} with {pair['said']}"


def _in_words(classification: ClassificationResults, group: Sequence[Configuration]) -> str:
    """The whole answer on a data set, for the terminal and the workbook."""
    best = group[0]
    value, ends = best.metric("macro_F1"), classification.interval(best)
    interval = f" (95%: {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    accuracy, pair = best.metric("accuracy"), most_confused(classification, best.best_run)
    sentences = [
        f"Recommended: {best.name}. Its macro F1 is {value:.3f} out of fold{interval}.",
        "" if accuracy is None else f"{accuracy:.1%} of the images get the right label.",
        ""
        if pair is None
        else f"Most often confused: {pair['label']} with {pair['said']}, {pair['images']} of {pair['of']}.",
        _compared(classification, group),
        _guessing(classification, best),
        _cost(best),
    ]
    return " ".join(filter(None, sentences))


def _compared(classification: ClassificationResults, group: Sequence[Configuration]) -> str:
    """The other configurations against the best one; empty without a comparison."""
    marks = [standing.mark for standing in classification.standings(group)]
    value = group[0].metric("macro_F1")
    if not any(marks[1:]) or value is None:
        return ""
    return f"{in_words(marks[1:])}{_on_new_images(classification.results, group, value)}"


def _guessing(classification: ClassificationResults, best: Configuration) -> str:
    """The macro F1 of the most frequent label for every image."""
    predictions = classification.predictions(best.first.run_id)
    truth, labels = predictions.truth, predictions.labels
    frequent = int(np.bincount(truth, minlength=len(labels)).argmax())
    baseline = macro_f1(truth, np.full(len(truth), frequent, dtype=np.int64), len(labels))
    return f"The label {labels[frequent]!r} for every image would have a macro F1 of {baseline:.3f}."


def _cost(configuration: Configuration) -> str:
    """A sentence on the time of an image and the size of the model; empty without both."""
    megabytes, ms = configuration.cost("model_MB"), configuration.latency
    parts = [] if ms is None else [f"An image takes {ms:.1f} ms on {configuration.first.device}"]
    if configuration.busy and ms is not None:
        parts[0] += " (timed on a busy machine: too long)"
    if megabytes is not None:
        parts.append(f"{'the' if parts else 'The'} model has {megabytes:.1f} MB")
    return f"{', and '.join(parts)}." if parts else ""


def _on_new_images(results: Results, tested: Sequence[Configuration], value: float) -> str:
    """A sentence after a space: the macro F1 of the best one without the bias of the choice."""
    if results.folder.search.is_file():
        # A search proposes its trials from the same images, and its own part of the report says more.
        return ""
    members = [one.records for one in tested[:RIVALS]]
    key = ("macro F1 without bias", tested[0].first.run_id)
    estimate = results.once(key, lambda: macro_f1_without_bias(results, members))
    text = f" The best of {len(tested)} is chosen by these very images: expect "
    # With few images of a label, labels are missing in a bootstrap sample, and the estimate may be too high.
    if estimate is None or estimate >= value:
        return f"{text}a somewhat lower macro F1 on new ones."
    return f"{text}a macro F1 of about {estimate:.3f} on new ones (bootstrap bias corrected)."
