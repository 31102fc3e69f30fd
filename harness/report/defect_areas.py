"""The sheet of the recall by the area of the defect: are small defects found?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report.configurations import axis_values
from harness.report.facts import axis_columns, category
from harness.report.results import Results
from harness.report.tables import WIDEST
from harness.results.record import RunRecord

RECALL = "recall"


def defect_areas_table(results: Results) -> pd.DataFrame:
    """A row for each group of defects of similar area, and each run of the best configurations.

    The groups are the deciles of the area, see `harness.metrics.region_recall.recall_by_area`. Runs without this table
    have no row.
    """
    records = [
        run
        for group in results.configurations.values()
        for configuration in group[:WIDEST]
        for run in configuration.records
    ]
    axes = axis_columns(records)
    rows = [
        {**_group(number, group), **_run(record, axes)}
        for record in records
        for number, group in enumerate(results.details(record.run_id).get("recall_by_area", []), 1)
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    for column in axes:
        frame[column] = pd.Series([row[column] for row in rows], dtype=object)
    frame.insert(0, "category", frame.pop("category"))
    return frame.sort_values(["category", "run", "group"], ignore_index=True)


def _group(number: int, group: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": number,
        "smallest_area": group["smallest"],
        "largest_area": group["largest"],
        "defects": group["defects"],
        "found": group["found"],
        RECALL: group["found"] / group["defects"],
    }


def _run(record: RunRecord, axes: list[str]) -> dict[str, Any]:
    values = {key: value for key, value in axis_values(record, axes).items() if key != "weights_source"}
    return {"category": category(record), **values, "seed": record.spec["seed"], "run": record.run_id}
