"""The sentences of a recommendation: its quality, why it was chosen, its cost, and doubts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.config.axes import NORMALIZATION
from harness.registry import SYNTHETIC_AUROC
from harness.report.budget import Budget
from harness.report.configurations import Configuration, axis_values
from harness.report.facts import INTERVAL
from harness.report.false_alarms import rate_sentence
from harness.report.holdout import unseen
from harness.report.results import Results
from harness.report.selection import RIVALS, auroc_without_bias
from harness.report.standings import AS_GOOD, SIMILAR, WORSE, Standing, difference_interval, interval
from harness.results.exported import ExportedCost, exported_costs
from harness.results.scores import HOLDOUT

BUSY = ", timed on a busy machine: too long"
GUESSING = 0.5  # AUROC of random scores
FEW = 10  # images of a class; a test set with fewer is too small for a recommendation
PIXELS = ("pixel_AUPRO", "pixel_AUROC")


def quality(results: Results, leader: Configuration) -> str:
    """Metrics of the recommended configuration, and its errors at the threshold.

    Args:
        results: of the result folder.
        leader: the recommended configuration.
    """
    tested = unseen(results, leader.records, INTERVAL)
    text = f"Image AUROC {tested or _with_interval(results, leader)}"
    if tested is not None:
        text += f". On the images of the search: image AUROC {leader.metric(INTERVAL):.3f}"
    for name in PIXELS:
        value = leader.metric(name)
        if value is not None:
            text += f", {name.replace('_', ' ')} {value:.3f}"
    text += "."
    missed, alarms = (
        [record.metrics.get(name) for record in leader.records]
        for name in ("image_FalseNegatives", "image_FalsePositives")
    )
    if all(value is not None for value in (*missed, *alarms)):
        bad = sum(record.data["test_anomalous"] for record in leader.records)
        good = sum(record.data["test"] for record in leader.records) - bad
        where = " There, at its threshold it" if tested else " At its threshold it"
        missed_ones, false_ones = (sum(v for v in values if v is not None) for values in (missed, alarms))
        text += (
            f"{where} misses {missed_ones:.0f} of {bad} anomalous images, and calls {false_ones:.0f} of {good} normal "
            f"ones anomalous (threshold from {leader.first.thresholds.get('fixed_by')})"
            + (", summed over seeds and categories." if len(leader.records) > 1 else ".")
        )
    return " ".join(filter(None, [text, rate_sentence(leader.records)]))


def _of_search(configuration: Configuration) -> bool:
    """Whether a search chose the configuration, and held out images."""
    return bool(configuration.first.spec.get("holdout"))


def _with_interval(results: Results, leader: Configuration) -> str:
    ends = interval(results, leader)
    return f"{leader.metric(INTERVAL):.3f}" + (f" (95%: {ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def choice(results: Results, leader: Configuration, tested: Sequence[tuple[Configuration, Standing]]) -> str:
    """Why this configuration, and how the others compare.

    Args:
        results: of the result folder.
        leader: the recommended configuration.
        tested: the configurations inside the limits with their standings, best first.
    """
    best, tried = tested[0][0], len(tested)
    if tried == 1:
        return "It is the only configuration."
    if leader is best:
        place = " on the images of the search" if _of_search(leader) else ""
        text = f"It has the highest mean image AUROC of {tried} configurations{place}."
    else:
        standing = next(standing for one, standing in tested if one is leader)
        difference = f"not significantly better (p = {standing.p:.2f})"
        if standing.mark == AS_GOOD:
            # Such a difference may be significant, and is still too small to count.
            difference = f"better by less than the margin of {results.limits.margin:g}"
        text = (
            f"{best.name} ({best.metric(INTERVAL):.3f}) is {difference}, and this configuration takes "
            f"{leader.latency:.1f} ms an image instead of {best.latency:.1f}."
        )
    return " ".join(filter(None, [text, _others(results, tested), _on_new_images(results, [one for one, _ in tested])]))


def _others(results: Results, tested: Sequence[tuple[Configuration, Standing]]) -> str:
    """How the others compare with the best, and how large a difference could have been missed."""
    counts = Counter(standing.mark for _, standing in tested[1:])
    parts = [
        (WORSE, "worse (significantly, at 5%)"),
        ("", "not tested: too few images of a class, or no scores.csv"),
        (AS_GOOD, f"as good as the best (image AUROC lower by less than {results.limits.margin:g})"),
        (SIMILAR, "with no significant difference from the best"),
    ]
    listed = [f"{counts[mark]} {words}" for mark, words in parts if counts[mark]]
    text = f"Compared with the best: {'; '.join(listed)}."
    bounds = [standing.upper for _, standing in tested if standing.mark == SIMILAR and standing.upper is not None]
    if bounds:
        text += f" The test images are too few to exclude that one of the last is worse by {max(bounds):.2f}."
    return text


def faster(leader: Configuration, best: Configuration, candidates: Sequence[Configuration], margin: float) -> str:
    """Why a faster configuration is not the recommended one; empty without such a configuration.

    Args:
        leader: the recommended configuration.
        best: the best configuration.
        candidates: those with no significant difference from the best, best first.
        margin: of equal quality.
    """
    for one in candidates:
        lower = [name.replace("_", " ") for name in metrics_below(one, best, margin)]
        if lower and not one.busy and one.latency is not None and one.latency < (leader.latency or 0):
            return (
                f"{one.name} takes {one.latency:.1f} ms. But its {' and its '.join(lower)} "
                f"{'is' if len(lower) == 1 else 'are'} below that of the best by more than the margin of {margin:g}."
            )
    return ""


def metrics_below(configuration: Configuration, best: Configuration, margin: float) -> list[str]:
    """The image and pixel metrics that are lower than those of the best by more than the margin, or missing.

    Args:
        configuration: any.
        best: the best configuration.
        margin: of equal quality.
    """
    below = []
    for metric in (INTERVAL, *PIXELS):
        value, best_value = configuration.metric(metric), best.metric(metric)
        if best_value is not None and (value is None or value < best_value - margin):
            below.append(metric)
    return below


def _on_new_images(results: Results, tested: Sequence[Configuration]) -> str:
    """The estimate of the best one's AUROC without the bias of the choice."""
    if _of_search(tested[0]):
        if unseen(results, tested[0].records, INTERVAL) is None:
            return f"The best of {len(tested)} was chosen by the images of the search: expect a lower image AUROC."
        return (
            f"The best of {len(tested)} was chosen by the images of the search. The image AUROC on the held-out images "
            "does not have the bias of this choice."
        )
    text = f"The best of {len(tested)} is chosen by these very images: expect "
    estimate = auroc_without_bias(results, [one.by_category for one in tested[:RIVALS]])
    if estimate is None:
        return f"{text}a somewhat lower image AUROC on new ones."
    return f"{text}an image AUROC of about {estimate:.3f} on new ones (bootstrap bias corrected)."


def none_inside(budget: Budget, configurations: Sequence[Configuration]) -> list[str]:
    """Why no configuration is recommended, and which limits would have to change.

    Args:
        budget: the limits.
        configurations: all that were considered, best first.
    """
    nearest = budget.nearest(configurations)
    assert nearest is not None
    return [
        f"No configuration keeps all limits ({budget.text()}).",
        f"The nearest is {nearest.name} ({_auroc(nearest)}): change {budget.changes(nearest)}.",
        *filter(None, [_late(budget, configurations)]),
    ]


def _late(budget: Budget, configurations: Sequence[Configuration]) -> str:
    """A sentence on times from a busy machine, where a limit counts them; else empty."""
    late = sum(one.busy for one in configurations)
    if not late or not any(limit.timed for limit in budget.limits):
        return ""
    times = "1 time is" if late == 1 else f"{late} times are"
    return f"{times} from a busy machine and too long: run the sweep again with --fresh when it is idle."


def _auroc(configuration: Configuration) -> str:
    """Image AUROC, or synthetic AUROC where it is undefined."""
    value = configuration.metric(INTERVAL)
    if value is None:
        return f"synthetic AUROC {configuration.metric(SYNTHETIC_AUROC):.3f}"
    return f"image AUROC {value:.3f}"


def cost_of_limits(
    results: Results, budget: Budget, leader: Configuration, configurations: Sequence[Configuration]
) -> str:
    """What the limits cost in image AUROC, and the nearest better configuration outside.

    Args:
        results: of the result folder.
        budget: the limits.
        leader: the recommended configuration.
        configurations: all that were considered, best first.
    """
    if not budget.limits:
        return ""
    best, value = configurations[0], leader.metric(INTERVAL)
    text = " ".join(filter(None, [f"It keeps all limits ({budget.text()}).", _late(budget, configurations)]))
    better = [one for one in configurations if budget.exceeded(one) and (one.metric(INTERVAL) or 0) > (value or 0)]
    if not better:
        return f"{text} No configuration outside the limits has a higher image AUROC."
    ends = difference_interval(results, best, leader)
    lost = (best.metric(INTERVAL) or 0) - (value or 0)
    text += f" They cost {lost:.3f} of image AUROC"
    text += f" (95%: {ends[1]:.3f} to {ends[2]:.3f})" if ends else ""
    text += f" against the best without limits, {best.name}."
    nearest = budget.nearest(better)
    assert nearest is not None
    return (
        f"{text} The nearest better one outside is {nearest.name} (image AUROC {nearest.metric(INTERVAL):.3f}): change "
        f"{budget.changes(nearest)}."
    )


def left_out(group: Sequence[Configuration], complete: Sequence[Configuration], best: Configuration) -> str:
    """Sentences on configurations and categories that the comparison leaves out.

    Args:
        group: all configurations of the data set.
        complete: those with runs on all categories.
        best: the best of them.
    """
    sentences = []
    if len(complete) < len(group):
        missing = len(group) - len(complete)
        sentences.append(f"{missing} configurations lack runs on some categories and are left out.")
    undefined = [name for name, runs in best.by_category.items() if all(r.metrics.get(INTERVAL) is None for r in runs)]
    if undefined:
        sentences.append(f"Image AUROC is undefined on {', '.join(undefined)} (one class only): left out of the mean.")
    return " ".join(sentences)


def cost(results: Results, leader: Configuration) -> str:
    """Times, memory and size of the recommended configuration, and of its exported models.

    Args:
        results: of the result folder.
        leader: the recommended configuration.
    """
    formats = (
        ("fit_seconds", "fit {:.1f} s"),
        ("ms_per_image_p50", "{:.1f} ms an image"),
        ("ms_per_image_p95", "95% of single images within {:.1f} ms"),
        ("images_per_second", "{:.0f} images a second in batches"),
        ("peak_memory_MB", "peak memory of the process {:.0f} MB"),
        ("model_MB", "model {:.1f} MB"),
    )
    parts = [text.format(value) for name, text in formats if (value := leader.cost(name)) is not None]
    if not parts:
        return ""
    text = f"Cost: {', '.join(parts)} (on {leader.first.device}{BUSY if leader.busy else ''})."
    return " ".join([text, *dict.fromkeys(_exported(one) for one in _exported_costs(results, leader))])


def _exported_costs(results: Results, leader: Configuration) -> list[ExportedCost]:
    folders = (results.folder.run_folder(record.run_id) for record in leader.records)
    return [cost for folder in folders for cost in exported_costs(folder)]


def _exported(one: ExportedCost) -> str:
    return f"Exported as {one.format}: {one.ms:.1f} ms an image{BUSY if one.busy else ''}, {one.megabytes:.1f} MB."


def in_full(leader: Configuration) -> str:
    """All values of the configuration, also those that it shares with the others."""
    spec = leader.first.spec
    facts = axis_values(leader.first, [*sorted(spec["params"]), NORMALIZATION])
    parts = [f"{name} {value}" for name, value in facts.items() if value is not None and name != "weights_source"]
    return f"In full: {', '.join(parts)}."


def doubts(results: Results, leader: Configuration) -> list[str]:
    """Sentences against relying on the recommended configuration.

    Args:
        results: of the result folder.
        leader: the recommended configuration.
    """
    sentences = []
    tested = unseen(results, leader.records, INTERVAL)
    ends = interval(results, leader) if tested is None else tested.interval
    if ends is not None and ends[0] <= GUESSING:
        sentences.append(f"It is not significantly better than guessing: image AUROC may be only {ends[0]:.2f}.")
    anomalous = sum(record.data["test_anomalous"] for record in leader.records)
    misses = [record.metrics.get("image_FalseNegatives") for record in leader.records]
    if anomalous and sum(value or 0 for value in misses) == anomalous:
        sentences.append("At its threshold it detects no defect at all.")
    counts = [(r.data["test_anomalous"], r.data["test"] - r.data["test_anomalous"]) for r in leader.records]
    if tested is not None:
        held_out = [results.scores(record.run_id, HOLDOUT) for record in leader.records]
        counts += [(int(one.labels.sum()), int((~one.labels).sum())) for one in held_out if one is not None]
        if tested.validated:
            sentences.append("Its backend validated on all test images, the held-out ones too.")
    # Only one class in the test set: another sentence reports that AUROC is undefined.
    fewest = min(min(both) or FEW for both in counts)
    if fewest < FEW:
        images = f"{fewest} test image{'s' if fewest > 1 else ''}"
        sentences.append(f"A category has only {images} of a class: too few for a reliable choice.")
    if any(record.weights.get("source") == "random" for record in leader.records):
        sentences.append("Its weights are random.")
    return sentences
