"""The answer: which setting to take, why, and what can't be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.axes import NORMALIZATION
from harness.report.configurations import Configuration, described
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.ties import BEST, TIED, Standing, configurations_against, interval

# A tied setting is taken instead of the best only if it loses no more than this ...
CLOSE = 0.01
# ... and is at least so many times faster: less is within the noise of a timing.
FASTER = 1.1
GUESSING = 0.5
FEW = 10  # images of a class, below which a test set decides nothing
PIXELS = ("pixel_AUPRO", "pixel_AUROC")


@dataclass(frozen=True)
class Recommendation:
    """What to take on one data set.

    Attributes:
        dataset: its name.
        chosen: the setting recommended; None where image AUROC is undefined.
        tied: the others that can't be told from the best, best first, each with how it stands.
        reasons: sentences, the most important first.
        doubts: sentences on why it should not be relied on yet; mostly none.
    """

    dataset: str
    chosen: Configuration | None
    tied: Sequence[tuple[Configuration, Standing]]
    reasons: Sequence[str]
    doubts: Sequence[str] = ()


def answers(results: Results) -> list[Recommendation]:
    """One for each data set."""
    return [_answer(results, name, found) for name, found in results.configurations.items()]


def recommendations(results: Results) -> list[str]:
    """A sentence for each data set, for where there is no room for the reasons."""
    found = answers(results)
    return [
        f"{'Leading, not to be relied on yet' if answer.doubts else 'Recommended'}"
        f"{f' on {answer.dataset}' if len(found) > 1 else ''}: {answer.chosen.name}. report.html says why."
        for answer in found
        if answer.chosen
    ]


def _answer(results: Results, dataset: str, found: Sequence[Configuration]) -> Recommendation:
    best = found[0]
    if best.metric(INTERVAL) is None:
        reason = "No recommendation: image AUROC is undefined, the test images are all normal or all anomalous."
        return Recommendation(dataset, None, [], [reason])
    whole = [configuration for configuration in found if len(configuration.by_category) == len(best.by_category)]
    standings = configurations_against(results, best, whole)
    tied = [(s, standing) for s, standing in zip(whole, standings, strict=True) if standing.mark in {BEST, TIED}]
    chosen = _fastest([configuration for configuration, _ in tied if _as_good(configuration, best)], best)
    others = [(configuration, standing) for configuration, standing in tied if configuration is not chosen]
    untested = sum(not standing.mark for standing in standings)
    reasons = [
        _quality(results, chosen),
        _why(chosen, best, tied, len(whole), untested),
        _left_out(found, whole, best),
        _cost(chosen),
        _in_full(chosen),
    ]
    return Recommendation(dataset, chosen, others, [reason for reason in reasons if reason], _doubts(results, chosen))


def _doubts(results: Results, chosen: Configuration) -> list[str]:
    """What speaks against relying on the leader, whoever it is."""
    found = []
    ends = interval(results, chosen)
    if ends is not None and ends[0] <= GUESSING:
        found.append(f"It can't be told from guessing: the interval of its image AUROC goes down to {ends[0]:.2f}.")
    bad = sum(record.data["test_anomalous"] for record in chosen.records)
    missed = [record.metrics.get("image_FalseNegatives") for record in chosen.records]
    if bad and sum(value or 0 for value in missed) == bad:
        found.append("At its threshold it finds no defect at all.")
    classes = [(r.data["test_anomalous"], r.data["test"] - r.data["test_anomalous"]) for r in chosen.records]
    # A class that is absent leaves AUROC undefined, which is said elsewhere.
    fewest = min(min(both) or FEW for both in classes)
    if fewest < FEW:
        images = f"{fewest} test image{'s' if fewest > 1 else ''}"
        found.append(f"A category has only {images} of a class: too few to decide by.")
    if any(record.weights.get("source") == "random" for record in chosen.records):
        found.append("Its weights are random.")
    return found


def _as_good(configuration: Configuration, best: Configuration) -> bool:
    """Whether a setting loses next to nothing against the best, in images and in pixels."""
    for metric in (INTERVAL, *PIXELS):
        own, top = configuration.metric(metric), best.metric(metric)
        if top is not None and (own is None or own < top - CLOSE):
            return False
    return True


def _fastest(candidates: Sequence[Configuration], best: Configuration) -> Configuration:
    """The fastest of those timed on the machine that the best was timed on, unless that is no gain."""
    of_best = best.cost("ms_per_image_p50")
    timed = [
        (ms, configuration)
        for configuration in candidates
        if (ms := configuration.cost("ms_per_image_p50")) is not None and _machines(configuration) == _machines(best)
    ]
    if of_best is None or not timed:
        return best
    ms, fastest = min(timed, key=lambda pair: pair[0])
    return fastest if of_best / ms >= FASTER else best


def _machines(configuration: Configuration) -> set[tuple[str, str]]:
    return {(record.device, str(record.provenance.get("cpu"))) for record in configuration.records}


def _quality(results: Results, chosen: Configuration) -> str:
    ends = interval(results, chosen)
    parts = [f"image AUROC {chosen.metric(INTERVAL):.3f}" + (f" (95%: {ends[0]:.3f} to {ends[1]:.3f})" if ends else "")]
    for name in PIXELS:
        value = chosen.metric(name)
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.3f}")
    text = ", ".join(parts)
    text = text[0].upper() + text[1:] + "."
    missed, alarms = (
        [record.metrics.get(name) for record in chosen.records]
        for name in ("image_FalseNegatives", "image_FalsePositives")
    )
    if all(value is not None for value in (*missed, *alarms)):
        bad = sum(record.data["test_anomalous"] for record in chosen.records)
        good = sum(record.data["test"] for record in chosen.records) - bad
        text += (
            f" At its threshold it misses {sum(v for v in missed if v is not None):.0f} of {bad} anomalous images and "
            f"raises {sum(v for v in alarms if v is not None):.0f} false alarms on {good} normal ones (threshold from "
            f"{chosen.first.thresholds.get('fixed_by')})"
            + (", summed over seeds and categories." if len(chosen.records) > 1 else ".")
        )
    return text


def _why(
    chosen: Configuration,
    best: Configuration,
    tied: Sequence[tuple[Configuration, Standing]],
    tried: int,
    untested: int,
) -> str:
    if tried == 1:
        return "It is the only setting."
    if chosen is best:
        text = f"It has the highest mean image AUROC of {tried} settings."
    else:
        p = next(standing.p for configuration, standing in tied if configuration is chosen)
        own, of_best = chosen.cost("ms_per_image_p50"), best.cost("ms_per_image_p50")
        text = (
            f"{best.name} ({best.metric(INTERVAL):.3f}) is not better by more than chance (p = {p:.2f}), and this "
            f"one takes {own:.1f} ms an image instead of {of_best:.1f}."
        )
    rest, others = len(tied) - 1, tried - 1
    if rest:
        which = "The other one" if others == 1 else f"{rest} of the {others} others"
        text += f" {which} can't be told from the best at 5% (DeLong's paired test)."
    elif others > untested:
        text += " All others that could be tested are worse at 5% (DeLong's paired test)."
    if untested:
        text += f" {untested} could not be tested: too few images of a class, or no scores.csv."
    return text + f" As the best of {tried} on these very images, expect somewhat less of it on new ones."


def _left_out(found: Sequence[Configuration], whole: Sequence[Configuration], best: Configuration) -> str:
    """What the comparison does not cover."""
    text = []
    if len(whole) < len(found):
        missing = len(found) - len(whole)
        text.append(f"{missing} settings lack runs on some categories and are left out.")
    blank = [name for name, runs in best.by_category.items() if all(r.metrics.get(INTERVAL) is None for r in runs)]
    if blank:
        text.append(f"Image AUROC is undefined on {', '.join(blank)} (one class only): left out of the mean.")
    return " ".join(text)


def _cost(chosen: Configuration) -> str:
    named = (
        ("fit_seconds", "fit {:.1f} s"),
        ("ms_per_image_p50", "{:.1f} ms an image"),
        ("ms_per_image_p95", "95% of single images within {:.1f} ms"),
        ("images_per_second", "{:.0f} images a second in batches"),
        ("peak_memory_MB", "peak memory of the process {:.0f} MB"),
        ("model_MB", "model {:.1f} MB"),
    )
    parts = [text.format(value) for name, text in named if (value := chosen.cost(name)) is not None]
    return f"Cost: {', '.join(parts)} (on {chosen.first.device})." if parts else ""


def _in_full(chosen: Configuration) -> str:
    """Everything that somebody needs to make it again, also what it shares with all others."""
    spec = chosen.first.spec
    facts = described(chosen.first, [*sorted(spec["params"]), NORMALIZATION])
    parts = [f"{name} {value}" for name, value in facts.items() if value is not None and name != "weights_source"]
    return f"In full: {', '.join(parts)}."
