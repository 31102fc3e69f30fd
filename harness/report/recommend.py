"""The recommendation: one configuration, the reasons, and those with no significant difference from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.axes import NORMALIZATION
from harness.report.configurations import Configuration, axis_values
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.ties import BEST, TIED, Standing, configurations_against, interval

# A tied configuration is recommended instead of the best only if its metrics are lower by no more than this ...
CLOSE = 0.01
# ... and it is at least so many times faster: smaller differences are noise of the timing.
FASTER = 1.1
GUESSING = 0.5  # AUROC of random scores
FEW = 10  # images of a class; a test set with fewer is too small for a recommendation
PIXELS = ("pixel_AUPRO", "pixel_AUROC")


@dataclass(frozen=True)
class Recommendation:
    """The recommendation on one data set.

    Attributes:
        dataset: its name.
        configuration: the recommended one; None where image AUROC is undefined.
        tied: the others with no significant difference from the best, best first.
        reasons: sentences, the most important first.
        doubts: sentences against relying on the recommendation; usually none.
    """

    dataset: str
    configuration: Configuration | None
    tied: Sequence[tuple[Configuration, Standing]]
    reasons: Sequence[str]
    doubts: Sequence[str] = ()


def answers(results: Results) -> list[Recommendation]:
    """A recommendation for each data set."""
    return [_answer(results, name, group) for name, group in results.configurations.items()]


def recommendations(results: Results) -> list[str]:
    """A short sentence for each data set, for the terminal."""
    items = answers(results)
    return [
        f"{'Leading, not to be relied on yet' if answer.doubts else 'Recommended'}"
        f"{f' on {answer.dataset}' if len(items) > 1 else ''}: {answer.configuration.name}. report.html says why."
        for answer in items
        if answer.configuration
    ]


def _answer(results: Results, dataset: str, group: Sequence[Configuration]) -> Recommendation:
    best = group[0]
    if best.metric(INTERVAL) is None:
        reason = "No recommendation: image AUROC is undefined, because the test images are all normal or all anomalous."
        return Recommendation(dataset, None, [], [reason])
    complete = [configuration for configuration in group if len(configuration.by_category) == len(best.by_category)]
    standings = configurations_against(results, best, complete)
    tied = [(s, standing) for s, standing in zip(complete, standings, strict=True) if standing.mark in {BEST, TIED}]
    leader = _fastest([configuration for configuration, _ in tied if _as_good(configuration, best)], best)
    others = [(configuration, standing) for configuration, standing in tied if configuration is not leader]
    untested = sum(not standing.mark for standing in standings)
    reasons = [
        _quality(results, leader),
        _why(leader, best, tied, len(complete), untested),
        _left_out(group, complete, best),
        _cost(leader),
        _in_full(leader),
    ]
    return Recommendation(dataset, leader, others, [reason for reason in reasons if reason], _doubts(results, leader))


def _doubts(results: Results, leader: Configuration) -> list[str]:
    """Sentences against relying on the leading configuration."""
    sentences = []
    ends = interval(results, leader)
    if ends is not None and ends[0] <= GUESSING:
        sentences.append(f"It is not significantly better than guessing: image AUROC may be only {ends[0]:.2f}.")
    anomalous = sum(record.data["test_anomalous"] for record in leader.records)
    misses = [record.metrics.get("image_FalseNegatives") for record in leader.records]
    if anomalous and sum(value or 0 for value in misses) == anomalous:
        sentences.append("At its threshold it detects no defect at all.")
    counts = [(r.data["test_anomalous"], r.data["test"] - r.data["test_anomalous"]) for r in leader.records]
    # Only one class in the test set: another sentence reports that AUROC is undefined.
    fewest = min(min(both) or FEW for both in counts)
    if fewest < FEW:
        images = f"{fewest} test image{'s' if fewest > 1 else ''}"
        sentences.append(f"A category has only {images} of a class: too few for a reliable choice.")
    if any(record.weights.get("source") == "random" for record in leader.records):
        sentences.append("Its weights are random.")
    return sentences


def _as_good(configuration: Configuration, best: Configuration) -> bool:
    """Whether image and pixel metrics are lower than those of the best by at most `CLOSE`."""
    for metric in (INTERVAL, *PIXELS):
        value, best_value = configuration.metric(metric), best.metric(metric)
        if best_value is not None and (value is None or value < best_value - CLOSE):
            return False
    return True


def _fastest(candidates: Sequence[Configuration], best: Configuration) -> Configuration:
    """The fastest candidate on the machine of the best one; the best one if the gain is below `FASTER`."""
    best_ms = best.cost("ms_per_image_p50")
    timed = [
        (ms, configuration)
        for configuration in candidates
        if (ms := configuration.cost("ms_per_image_p50")) is not None and _machines(configuration) == _machines(best)
    ]
    if best_ms is None or not timed:
        return best
    ms, fastest = min(timed, key=lambda pair: pair[0])
    return fastest if best_ms / ms >= FASTER else best


def _machines(configuration: Configuration) -> set[tuple[str, str]]:
    return {(record.device, str(record.provenance.get("cpu"))) for record in configuration.records}


def _quality(results: Results, leader: Configuration) -> str:
    ends = interval(results, leader)
    parts = [f"image AUROC {leader.metric(INTERVAL):.3f}" + (f" (95%: {ends[0]:.3f} to {ends[1]:.3f})" if ends else "")]
    for name in PIXELS:
        value = leader.metric(name)
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.3f}")
    text = ", ".join(parts)
    text = text[0].upper() + text[1:] + "."
    missed, alarms = (
        [record.metrics.get(name) for record in leader.records]
        for name in ("image_FalseNegatives", "image_FalsePositives")
    )
    if all(value is not None for value in (*missed, *alarms)):
        bad = sum(record.data["test_anomalous"] for record in leader.records)
        good = sum(record.data["test"] for record in leader.records) - bad
        text += (
            f" At its threshold it misses {sum(v for v in missed if v is not None):.0f} of {bad} anomalous images and "
            f"raises {sum(v for v in alarms if v is not None):.0f} false alarms on {good} normal ones (threshold from "
            f"{leader.first.thresholds.get('fixed_by')})"
            + (", summed over seeds and categories." if len(leader.records) > 1 else ".")
        )
    return text


def _why(
    leader: Configuration,
    best: Configuration,
    tied: Sequence[tuple[Configuration, Standing]],
    tried: int,
    untested: int,
) -> str:
    if tried == 1:
        return "It is the only configuration."
    if leader is best:
        text = f"It has the highest mean image AUROC of {tried} configurations."
    else:
        p = next(standing.p for configuration, standing in tied if configuration is leader)
        ms, best_ms = leader.cost("ms_per_image_p50"), best.cost("ms_per_image_p50")
        text = (
            f"{best.name} ({best.metric(INTERVAL):.3f}) is not significantly better (p = {p:.2f}), and this "
            f"configuration takes {ms:.1f} ms an image instead of {best_ms:.1f}."
        )
    others = tried - 1
    if len(tied) > 1:
        subject = "The other one has" if others == 1 else f"{len(tied) - 1} of the {others} others have"
        text += f" {subject} no significant difference from the best at 5% (DeLong's paired test)."
    elif others > untested:
        text += " All others that could be tested are significantly worse at 5% (DeLong's paired test)."
    if untested:
        text += f" {untested} could not be tested: too few images of a class, or no scores.csv."
    return text + f" It is the best of {tried} on these very images: expect a somewhat lower image AUROC on new ones."


def _left_out(group: Sequence[Configuration], complete: Sequence[Configuration], best: Configuration) -> str:
    """Sentences on configurations and categories that the comparison leaves out."""
    sentences = []
    if len(complete) < len(group):
        missing = len(group) - len(complete)
        sentences.append(f"{missing} configurations lack runs on some categories and are left out.")
    undefined = [name for name, runs in best.by_category.items() if all(r.metrics.get(INTERVAL) is None for r in runs)]
    if undefined:
        sentences.append(f"Image AUROC is undefined on {', '.join(undefined)} (one class only): left out of the mean.")
    return " ".join(sentences)


def _cost(leader: Configuration) -> str:
    formats = (
        ("fit_seconds", "fit {:.1f} s"),
        ("ms_per_image_p50", "{:.1f} ms an image"),
        ("ms_per_image_p95", "95% of single images within {:.1f} ms"),
        ("images_per_second", "{:.0f} images a second in batches"),
        ("peak_memory_MB", "peak memory of the process {:.0f} MB"),
        ("model_MB", "model {:.1f} MB"),
    )
    parts = [text.format(value) for name, text in formats if (value := leader.cost(name)) is not None]
    return f"Cost: {', '.join(parts)} (on {leader.first.device})." if parts else ""


def _in_full(leader: Configuration) -> str:
    """All values of the configuration, also those that it shares with the others."""
    spec = leader.first.spec
    facts = axis_values(leader.first, [*sorted(spec["params"]), NORMALIZATION])
    parts = [f"{name} {value}" for name, value in facts.items() if value is not None and name != "weights_source"]
    return f"In full: {', '.join(parts)}."
