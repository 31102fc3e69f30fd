"""Notices above the tables of a report: what a reader needs to know before any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.backends.base import TEST_IMAGES, TEST_IMAGES_OF_TRIALS
from harness.data.base import joint_notes
from harness.data.mask_images import ABOVE_0
from harness.predictions.detection import Protocol
from harness.registry import METRICS, metric
from harness.report.facts import busy, category, protocol
from harness.report.false_alarms import threshold_notices
from harness.report.results import Results
from harness.report.tables import CHANGED
from harness.results.record import RunRecord

DAMAGED_SHOWN = 5  # files named in notices


def notices(results: Results) -> list[str]:
    """Warnings that a reader needs before any number, one sentence each."""
    ok = results.ok()
    sentences = [*random_weights_notice(ok), *unfinished_notice(results), *damaged_notice(results)]
    sentences += [*data_notices(ok), *protocol_notices(ok)]
    count = sum(record.data.get("validation") in {TEST_IMAGES, TEST_IMAGES_OF_TRIALS} for record in ok)
    if count:
        sentences.append(
            f"VALIDATED ON TEST IMAGES in {count} of {len(ok)} runs: with data.val 0 anomalib takes the test images "
            "for validation, but not those that a search holds out. Its own metrics (anomalib_*), and choices of a "
            "model by validation, depend on them."
        )
    return [*sentences, *busy_notice(ok), *threshold_notices(ok), *_changed_notice(results), *left_out_notice(results)]


def busy_notice(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence if single images were timed on a busy machine."""
    number = sum(busy(record) is not None for record in ok)
    if not number:
        return []
    return [
        f"BUSY MACHINE in {number} of {len(ok)} runs: other programs ran while single images were timed. These times "
        "are marked and too long. Use --fresh on a quiet machine for better ones."
    ]


def protocol_notices(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence for each protocol of the pixel metrics that is not the default, and one if there are several."""
    counts = Counter(protocol(record) for record in ok)
    sentences = [
        f"PROTOCOL of the pixel metrics in {count} of {len(ok)} runs: {name}."
        for name, count in counts.items()
        if name is not None
    ]
    if len(counts) > 1:
        sentences.append("Compare pixel metrics between runs of one protocol only.")
    return sentences


def protocol_sentences(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence about each protocol of the pixel metrics, also about the default; empty without pixel metrics."""
    measured = [record for record in ok if _pixel_metrics(record)]
    groups: dict[str | None, list[RunRecord]] = {}
    for record in measured:
        groups.setdefault(protocol(record), []).append(record)
    sentences = []
    for records in groups.values():
        runs = f" of {len(records)} of {len(measured)} runs" if len(groups) > 1 else ""
        sentences.append(f"Pixel metrics{runs}: {_protocol_words(records[0])}.")
        area = _protocol(records[0]).min_area
        if area > 1:
            sentences.append(f"Region metrics leave out regions below {area} pixels.")
        names = dict.fromkeys(name for one in records for name in _pixel_metrics(one) if metric(name).at_original)
        if names and not _protocol(records[0]).original:
            sentences.append(f"{' and '.join(names)} count resized masks too, unlike the evaluation of their data set.")
    return sentences


def _protocol(record: RunRecord) -> Protocol:
    return Protocol(**(record.spec.get("protocol") or {}))


def _protocol_words(record: RunRecord) -> str:
    """What the protocol of a run does, in words."""
    values = _protocol(record)
    size = "maps are resized to the masks" if values.original else "masks are resized to the maps"
    rule = "not 0" if values.mask == ABOVE_0 else "above half of the range"
    return f"{size} (protocol {values.size}), and a value {rule} is anomalous ({values.mask})"


def _pixel_metrics(record: RunRecord) -> list[str]:
    """Names of the metrics of a run that depend on its protocol, in the order of the registry."""
    shared = [one.key for one in METRICS if one.level in {"pixel", "region"}]
    return [name for name in shared if record.metrics.get(name) is not None]


def _changed_notice(results: Results) -> list[str]:
    """A sentence if a user changed thresholds after their runs."""
    count = sum(results.changed_threshold(record.run_id) is not None for record in results.ok())
    if not count:
        return []
    runs = "1 run was" if count == 1 else f"{count} runs were"
    return [
        f"The threshold of {runs} changed after the test: predict, export and demo use the one in {CHANGED}. All "
        "metrics here are those of the test's threshold."
    ]


def random_weights_notice(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence if runs have random weights."""
    random = [record for record in ok if record.weights.get("source") == "random"]
    if not random:
        return []
    fallback = any(record.weights.get("fallback") for record in random)
    reason = "version 0.1 found no pretrained weights for toy data" if fallback else "as the config asks"
    return [
        f"RANDOM WEIGHTS in {len(random)} of {len(ok)} runs: {reason}. The numbers show that the harness works, not "
        "which model to trust. Put weights in weights/ and run again."
    ]


def unfinished_notice(results: Results) -> list[str]:
    """A sentence if runs were skipped, and one if runs failed."""
    failed, skipped, total = len(results.failed()), results.skipped(), len(results.records)
    sentences = [_skipped_notice(skipped, total)] if skipped else []
    return [*sentences, f"{failed} of {total} runs failed: see Failures."] if failed else sentences


def data_notices(ok: Sequence[RunRecord]) -> list[str]:
    """Notes on problems in the data of the runs, each sentence once."""
    several = len({record.spec["category"] for record in ok}) > 1
    # A note on every run concerns the sweep, and not a category.
    return joint_notes([(category(record) if several else "", record.data.get("notes") or []) for record in ok])


def damaged_notice(results: Results) -> list[str]:
    """A sentence for each of the first damaged files, and one for the rest."""
    sentences = [f"LEFT OUT: {sentence}" for sentence in results.damaged[:DAMAGED_SHOWN]]
    more = len(results.damaged) - len(sentences)
    return [*sentences, f"LEFT OUT: {more} more files that can't be used."] if more > 0 else sentences


def _skipped_notice(skipped: Sequence[RunRecord], total: int) -> str:
    backbones = list(dict.fromkeys(str(record.spec["backbone"]) for record in skipped))
    reasons = dict.fromkeys((record.error or {}).get("reason", "") for record in skipped)
    file = backbones[0] if len(backbones) == 1 else "<backbone>"
    return (
        f"SKIPPED {len(skipped)} of {total} runs: no weights for {', '.join(backbones)} "
        f"({', '.join(filter(None, reasons))}). Put them at weights/{file}.safetensors and call the same command again."
    )


def left_out_notice(results: Results) -> list[str]:
    """A sentence if runs can't be compared with the others."""
    ok = results.ok()
    compared = {
        record.run_id
        for group in results.configurations.values()
        for configuration in group
        for record in configuration.records
    }
    fewer = len(ok) - len(results.rivals())
    left_out = sum(record.run_id not in compared for record in results.rivals())
    sentences = []
    if fewer:
        sentences.append(
            f"{fewer} of {len(ok)} runs use fewer normal images than the others (n_train). They are in Learning curve "
            "and Runs only: no table compares them, and none of them is recommended."
        )
    if not left_out:
        return sentences
    return [
        *sentences,
        f"{left_out} of {len(ok)} runs are shown in Runs only: their test images were changed since, or the same "
        "configuration (all axes but category and seed) was run again later, or with real weights.",
    ]
