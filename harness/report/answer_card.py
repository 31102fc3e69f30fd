"""The answer of a detection's page: the recommended configuration, its key figures and two pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.metrics.intervals import binomial_interval
from harness.registry import SYNTHETIC_AUROC
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL, category, short_names
from harness.report.false_alarms import EXPECTED, GUARANTEE, false_alarms
from harness.report.holdout import unseen
from harness.report.key_figures import Figure, size_figure, time_figure
from harness.report.recommend import Recommendation, answers
from harness.report.results import Results
from harness.report.sheets import run_address
from harness.report.standings import interval
from harness.report.synthetic import dataset_ranking
from harness.results.record import RunRecord

OTHERS_SHOWN = 12
MISSED, FALSE_ALARM, FOUND = "missed", "false-alarm", "found"


def answer_cards(results: Results) -> list[dict[str, Any]]:
    """The answer on each data set, for the template of the page.

    Args:
        results: of the result folder.
    """
    recommendations = answers(results)
    names = short_names([answer.dataset for answer in recommendations])
    return [_card(results, answer, name) for answer, name in zip(recommendations, names, strict=True)]


def answer_pictures(results: Results) -> list[dict[str, Any]]:
    """The pictures of each answer, for the scripts of the page, in the order of the answers.

    Args:
        results: of the result folder.
    """
    chosen = [answer.configuration for answer in answers(results)]
    return [{"pictures": [], "note": ""} if one is None else defect_pictures(results, one) for one in chosen]


def _card(results: Results, answer: Recommendation, name: str) -> dict[str, Any]:
    configuration = answer.configuration
    ranking = dataset_ranking(results, answer.dataset)
    return {
        "dataset": name,
        "doubts": answer.doubts,
        "word": answer.word,
        "ranked": ranking.rows() if ranking else [],
        "chosen": configuration.name if configuration else None,
        "run": configuration.best_run if configuration else None,
        "figures": key_figures(results, configuration) if configuration else [],
        "reasons": answer.reasons,
        "others": [
            {
                "name": configuration.name,
                "run": configuration.best_run,
                "auroc": configuration.metric(INTERVAL),
                "mark": standing.mark,
                "upper": standing.upper,
                "ms": configuration.latency,
                "busy": configuration.busy,
            }
            for configuration, standing in answer.others[:OTHERS_SHOWN]
        ],
        "more": max(0, len(answer.others) - OTHERS_SHOWN),
    }


def key_figures(results: Results, configuration: Configuration) -> list[Figure]:
    """Quality, false alarms, missed defects, time and size of a configuration, those that are known.

    Args:
        results: of the result folder.
        configuration: the recommended one.
    """
    anomalous = sum(record.data["test_anomalous"] for record in configuration.records)
    normal = sum(record.data["test"] for record in configuration.records) - anomalous
    rates = false_alarms(configuration.records)
    rate = rates[EXPECTED]
    limit = "" if rate is None else f"{rates[GUARANTEE]} for new images: at most {100 * rate:.2g}%"
    place = " of the search" if configuration.first.spec.get("holdout") else ""
    figures = [
        _quality(results, configuration),
        _errors("false alarms", configuration, "image_FalsePositives", normal, f"normal images{place}", limit),
        _errors("missed defects", configuration, "image_FalseNegatives", anomalous, f"anomalous images{place}"),
        time_figure(configuration),
        size_figure(configuration),
    ]
    return [figure for figure in figures if figure is not None]


def _quality(results: Results, configuration: Configuration) -> Figure | None:
    tested = unseen(results, configuration.records, INTERVAL)
    if tested is not None:
        ends = tested.interval
        remark = f"95%: {ends[0]:.3f} to {ends[1]:.3f}; " if ends else ""
        remark += f"{tested.place}; {configuration.metric(INTERVAL):.3f} on the images of the search"
        return INTERVAL.replace("_", " "), f"{tested.value:.3f}", remark
    ends = interval(results, configuration)
    for name in (INTERVAL, SYNTHETIC_AUROC):
        if (value := configuration.metric(name)) is not None:
            remark = f"95%: {ends[0]:.3f} to {ends[1]:.3f}" if ends and name == INTERVAL else ""
            return name.replace("_", " "), f"{value:.3f}", remark
    return None


def _errors(
    name: str, configuration: Configuration, metric: str, images: int, of: str, limit: str = ""
) -> Figure | None:
    """A share of wrong predictions, summed over seeds and categories."""
    counts = [record.metrics.get(metric) for record in configuration.records]
    known = [count for count in counts if count is not None]
    if not images or len(known) < len(counts):
        return None
    wrong = sum(known)
    low, high = binomial_interval(wrong, images)
    remark = f"{wrong:.0f} of {images} {of} (95%: {low:.1%} to {high:.1%})"
    return name, f"{wrong / images:.1%}", "; ".join(filter(None, [remark, limit]))


def defect_pictures(results: Results, configuration: Configuration) -> dict[str, Any]:
    """A picture of a found defect and one of a missed defect, or a sentence that says why there is none.

    Args:
        results: of the result folder.
        configuration: the recommended one.

    Returns:
        `pictures`, each with the run, the role and what the gallery says; and `note`, a sentence or an empty text.
    """
    best = configuration.best_runs
    runs = [*best, *(run for run in configuration.records if run not in best)]
    if any(run.thresholds.get("image") is None for run in runs):
        return {"pictures": [], "note": "Without a threshold, no defect counts as found or missed."}
    pictures = list(_anomalous(results, runs))
    missed = next((one for one in pictures if one["role"] == MISSED), None)
    # Both pictures are of one run where possible, and the clearest defect is the last one of a gallery.
    found_defects = [one for one in pictures if one["role"] == FOUND]
    alike = [one for one in found_defects if missed is None or one["run"] == missed["run"]]
    shown = [*(alike or found_defects)[-1:], *([missed] if missed else [])]
    return {"pictures": shown, "note": _note(runs, bool(found_defects), missed is not None)}


def _anomalous(results: Results, runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """The pictures of anomalous test images."""
    for run in runs:
        for entry in results.details(run.run_id).get("gallery", []):
            if entry["label"] and entry["role"] != FALSE_ALARM:
                role = entry["role"] if entry["role"] == MISSED else FOUND
                place = {"run": run.run_id, "folder": run_address(run.run_id), "category": category(run)}
                yield {**entry, **place, "role": role, "threshold": run.thresholds["image"]}


def _note(runs: Sequence[RunRecord], has_found: bool, has_missed: bool) -> str:
    """What the pictures do not show."""
    anomalous = sum(run.data["test_anomalous"] for run in runs)
    misses = sum(run.metrics.get("image_FalseNegatives") or 0 for run in runs)
    if not anomalous:
        return "The test images have no defect."
    sentences = []
    if not has_found:
        sentences.append("No defect was found." if misses == anomalous else "There is no picture of a found defect.")
    if not has_missed:
        sentences.append("There is no picture of a missed defect." if misses else "No defect was missed.")
    return " ".join(sentences)
