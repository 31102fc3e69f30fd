"""The data of a classification's report.html; its layout lies in page/classification.*."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pandas as pd

from harness.report.classification_tables import ClassificationResults, answers, notices, summary_table
from harness.report.configurations import Configuration
from harness.report.parts import PagePart
from harness.report.results import Results
from harness.results.store import RUNS

SCRIPTS = ("common.js", "plots.js", "search.js", "classification.js")
SHOWN = 60  # configurations whose details are in the page
PAIRS = 12  # confused pairs of each configuration


def page_part(results: Results) -> PagePart:
    """The template of the page, its scripts and their data."""
    classification = ClassificationResults(results)
    table = summary_table(classification)
    configurations = classification.configurations[:SHOWN]
    columns = [str(name) for name in table if name != "best_run"]
    rows = [[_cell(str(name), row[name]) for name in columns] for row in table.to_dict("records")]
    page = {
        "answers": answers(classification),
        "notices": notices(classification),
        "columns": [name.replace("_", " ") for name in columns],
        "rows": rows,
        "settings": [configuration.name for configuration in configurations],
    }
    data = {"settings": [_configuration(results, configuration) for configuration in configurations]}
    return PagePart("classification.html", SCRIPTS, data, {"page": page})


def _cell(name: str, value: Any) -> dict[str, Any]:
    missing = value is None or pd.isna(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if missing:
        return {"text": "", "number": number, "sort": None}
    if isinstance(value, float) and name.endswith(("_seconds", "_MB", "ms_per_image_p50")):
        return {"text": f"{value:.1f}", "number": True, "sort": value}
    if isinstance(value, float) and ("F1" in name or name.endswith("accuracy") or name.startswith("p_")):
        return {"text": f"{value:.3f}", "number": True, "sort": value}
    return {"text": str(value), "number": number, "sort": value if number else str(value)}


def _configuration(results: Results, configuration: Configuration) -> dict[str, Any]:
    details = results.details(configuration.best_run)
    folder = f"{RUNS}/{quote(configuration.best_run, safe='+')}/"
    pairs = [
        {**pair, "examples": [{**one, "file": folder + one["file"]} for one in pair["examples"] if one.get("file")]}
        for pair in details.get("confused", [])[:PAIRS]
    ]
    record = next(one for one in configuration.records if one.run_id == configuration.best_run)
    return {
        "name": configuration.name,
        "folder": folder,
        "labels": details.get("labels", []),
        "classes": details.get("classes", []),
        "states": details.get("states", []),
        "confusion": details.get("confusion", []),
        "confused": pairs,
        "epochs": details.get("epochs", {}),
        "folds": record.folds,
        "warnings": record.warnings,
    }
