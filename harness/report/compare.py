"""Two runs side by side, with the paired test of their image AUROC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.common.errors import DataError, StoreError
from harness.common.terminal import plain_table
from harness.metrics.best import LEVEL
from harness.metrics.delong import difference, paired_test
from harness.metrics.intervals import Z
from harness.report.cells import number_format
from harness.report.configurations import axis_values, tested_on
from harness.report.facts import LATENCIES, axis_columns, busy, category, costs, metric_columns, protocol
from harness.report.results import Results, complete
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD
from harness.results.scores import TestScores, read_scores
from harness.results.store import ResultFolder

DEFAULT = "default"  # protocol


def load_run(path: Path) -> tuple[Results, RunRecord]:
    """The results and the record of one run.

    Args:
        path: the run's folder, or its record.json.

    Raises:
        StoreError: the folder has no record, or the run failed or was skipped.
    """
    folder = path.parent if path.name == RECORD else path
    results = ResultFolder(folder.absolute().parent.parent)
    record = results.read_record(folder.absolute().name) if folder.is_dir() else None
    if record is None:
        content = "no record.json" if folder.is_dir() else "nothing"
        raise StoreError(f"{path}: {content} found; expected a run's folder, such as results/patchcore/runs/<run>.")
    if record.status != "ok":
        raise StoreError(f"{path}: this run {_outcome(record)}; expected a finished one.")
    (record,) = complete([record])
    return Results(results, [record]), record


def _outcome(record: RunRecord) -> str:
    verb = "was skipped" if record.status == "skipped" else "failed"
    return f"{verb} ({(record.error or {}).get('message')})"


def side_by_side(first: Path, second: Path) -> tuple[Table, str]:
    """Axes, metrics and costs of two runs as a table, and a sentence with the paired test.

    Args:
        first: folder of a run.
        second: folder of the other run.

    Raises:
        StoreError: a folder holds no finished run, or a run has no scores.csv.
        DataError: the runs were not tested on the same images.
    """
    (results, one), (others, two) = load_run(first), load_run(second)
    sentence = _test(_scores(results, one), _scores(others, two), results, others, one, two)
    if protocol(one) != protocol(two):
        sentence += " The runs have different protocols, so their pixel metrics can't be compared."
    table = plain_table(("",))
    for heading in ("first", "second"):
        table.add_column(heading, justify="right")
    for name, left, right in _rows(one, two):
        table.add_row(name, left, right)
    return table, sentence


def _scores(results: Results, record: RunRecord) -> TestScores:
    folder = results.folder.run_folder(record.run_id)
    scores = read_scores(folder)
    if scores is None:
        raise StoreError(f"{folder}: no scores.csv found; expected one. Make the run again.")
    return scores


def _test(
    first: TestScores, second: TestScores, results: Results, others: Results, one: RunRecord, two: RunRecord
) -> str:
    if first.names != second.names or tested_on(one) != tested_on(two):
        raise DataError(
            f"compare: {one.run_id} was tested on {len(first.names)} images of {category(one)} (test images "
            f"{tested_on(one)}), {two.run_id} on {len(second.names)} of {category(two)} ({tested_on(two)}); the paired "
            "test expects the same images for both. Compare two runs of one category."
        )
    left, right = results.components(one.run_id), others.components(two.run_id)
    p = paired_test([right], [left]) if left and right else None
    if left is None or right is None or p is None:
        return "No paired test: it needs at least 2 normal and 2 anomalous test images."
    estimate = difference([right], [left])
    assert estimate is not None
    mean, error = estimate
    verdict = "have no significant difference" if p >= LEVEL else "have a significant difference"
    return (
        f"Image AUROC, second minus first: {mean:+.4f} (95%: {mean - Z * error:+.4f} to {mean + Z * error:+.4f}), "
        f"p = {p:.3g} (DeLong's paired test on {len(first.names)} images): at 5% they {verdict}."
    )


def _rows(one: RunRecord, two: RunRecord) -> Iterator[tuple[str, str, str]]:
    axes = axis_columns([one, two])
    facts = [{"category": category(r), **axis_values(r, axes), "seed": r.spec["seed"]} for r in (one, two)]
    for name in facts[0]:
        left, right = facts[0][name], facts[1][name]
        if left is not None or right is not None:
            yield name, _text(name, left), _text(name, right)
    for name in metric_columns([one, two]):
        left, right = one.metrics.get(name), two.metrics.get(name)
        if left is not None or right is not None:
            yield name, _text(name, left, one.intervals.get(name)), _text(name, right, two.intervals.get(name))
    if protocol(one) or protocol(two):
        yield "protocol", protocol(one) or DEFAULT, protocol(two) or DEFAULT
    yield "threshold from", str(one.thresholds.get("fixed_by")), str(two.thresholds.get("fixed_by"))
    for name, left in costs(one).items():
        right = costs(two)[name]
        if left is not None or right is not None:
            marks = [" (busy)" if name in LATENCIES and busy(record) else "" for record in (one, two)]
            yield name, _text(name, left) + marks[0], _text(name, right) + marks[1]


def _text(name: str, value: Any, ends: list[float] | None = None) -> str:
    """A value with the digits of the workbook, and its interval."""
    if value is None:
        return "-"
    style = number_format(name, [value]) if isinstance(value, float) else ""
    digits = style.partition(".")[2].partition(";")[0].count("0")
    text = f"{value:.{digits}f}" if style else str(value)
    return escape(text + (f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})" if ends else ""))
