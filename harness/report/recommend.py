"""The answer: which setting to take, why, and what can't be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.settings import Setting
from harness.report.ties import BEST, TIED, Standing, interval, settings_against

# A tied setting is taken instead of the best only if it loses no more than this ...
CLOSE = 0.01
# ... and is at least so many times faster: less is within the noise of a timing.
FASTER = 1.1
PIXELS = ("pixel_AUPRO", "pixel_AUROC")


@dataclass(frozen=True)
class Answer:
    """What to take on one data set.

    Attributes:
        dataset: its name.
        chosen: the setting recommended; None where image AUROC is undefined.
        tied: the others that can't be told from the best, best first, each with how it stands.
        reasons: sentences, the most important first.
    """

    dataset: str
    chosen: Setting | None
    tied: Sequence[tuple[Setting, Standing]]
    reasons: Sequence[str]


def answers(results: Results) -> list[Answer]:
    """One for each data set."""
    return [_answer(results, name, found) for name, found in results.settings.items()]


def _answer(results: Results, dataset: str, found: Sequence[Setting]) -> Answer:
    best = found[0]
    if best.metric(INTERVAL) is None:
        reason = "No recommendation: image AUROC is undefined, the test images are all normal or all anomalous."
        return Answer(dataset, None, [], [reason])
    standings = settings_against(results, best, found)
    tied = [(s, standing) for s, standing in zip(found, standings, strict=True) if standing.mark in {BEST, TIED}]
    chosen = _fastest([setting for setting, _ in tied if _as_good(setting, best)], best)
    others = [(setting, standing) for setting, standing in tied if setting is not chosen]
    reasons = [_quality(results, chosen), _why(chosen, best, tied, len(found)), _cost(chosen)]
    return Answer(dataset, chosen, others, [reason for reason in reasons if reason])


def _as_good(setting: Setting, best: Setting) -> bool:
    """Whether a setting loses next to nothing against the best, in images and in pixels."""
    for metric in (INTERVAL, *PIXELS):
        own, top = setting.metric(metric), best.metric(metric)
        if own is not None and top is not None and own < top - CLOSE:
            return False
    return True


def _fastest(candidates: Sequence[Setting], best: Setting) -> Setting:
    timed = [(ms, setting) for setting in candidates if (ms := setting.cost("ms_per_image_p50")) is not None]
    of_best = best.cost("ms_per_image_p50")
    if of_best is None or not timed:
        return best
    ms, fastest = min(timed, key=lambda pair: pair[0])
    return fastest if of_best / ms >= FASTER else best


def _quality(results: Results, chosen: Setting) -> str:
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
            f"raises {sum(v for v in alarms if v is not None):.0f} false alarms on {good} normal ones"
            + (", summed over seeds and categories." if len(chosen.records) > 1 else ".")
        )
    return text


def _why(chosen: Setting, best: Setting, tied: Sequence[tuple[Setting, Standing]], tried: int) -> str:
    top = best.metric(INTERVAL)
    if chosen is best:
        text = f"It has the highest mean image AUROC of {tried} settings." if tried > 1 else "It is the only setting."
    else:
        p = next(standing.p for setting, standing in tied if setting is chosen)
        own, of_best = chosen.cost("ms_per_image_p50"), best.cost("ms_per_image_p50")
        text = (
            f"{best.name} reaches {top:.3f}, but the difference is within chance (p = {p:.2f}), and this one takes "
            f"{own:.1f} ms an image instead of {of_best:.1f}."
        )
    rest = len(tied) - 1
    if rest > 0:
        text += f" {rest} of the other {tried - 1} settings can't be told from the best at 5% (DeLong's paired test)."
    elif tried > 1:
        text += " No other setting is tied with it at 5% (DeLong's paired test)."
    return text


def _cost(chosen: Setting) -> str:
    named = (
        ("fit_seconds", "fit {:.1f} s"),
        ("ms_per_image_p50", "{:.1f} ms an image"),
        ("ms_per_image_p95", "95% within {:.1f} ms"),
        ("images_per_second", "{:.0f} images a second in batches"),
        ("peak_memory_MB", "peak memory {:.0f} MB"),
        ("model_MB", "model {:.1f} MB"),
    )
    parts = [text.format(value) for name, text in named if (value := chosen.cost(name)) is not None]
    return f"Cost: {', '.join(parts)} (on {chosen.first.device})." if parts else ""
