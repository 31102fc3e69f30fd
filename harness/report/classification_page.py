"""The data of a classification's report.html; its layout lies in page/classification.*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.report.classification_answer import answer_cards
from harness.report.classification_calibration import calibration_sentence, diagram
from harness.report.classification_coverage import coverage_sentence
from harness.report.classification_results import ClassificationResults
from harness.report.classification_tables import notices, summary_table
from harness.report.configurations import Configuration
from harness.report.glossary import CLASSIFICATION, with_margin
from harness.report.model_styles import ModelStyles
from harness.report.parts import PagePart
from harness.report.results import Results
from harness.report.sheets import run_address

SCRIPTS = ("common.js", "styles.js", "plots.js", "search.js", "classification.js")
SHOWN = 60  # configurations whose details are in the page
POINTS = 200  # of a risk-coverage curve
PAIRS = 12  # confused pairs of each configuration


def page_part(results: Results) -> PagePart:
    """The template of the page, its scripts and their data."""
    classification = ClassificationResults(results)
    table = summary_table(classification)
    configurations = classification.configurations[:SHOWN]
    columns = [str(name) for name in table if name != "best_run"]
    rows = [[_cell(str(name), row[name]) for name in columns] for row in table.to_dict("records")]
    page = {
        "answers": answer_cards(classification),
        "columns": [name.replace("_", " ") for name in columns],
        "rows": rows,
        "settings": [configuration.name for configuration in configurations],
    }
    data = {"settings": [_configuration(classification, configuration) for configuration in configurations]}
    terms = with_margin(CLASSIFICATION, results.limits.margin)
    context = {"page": page, "notices": notices(classification), "terms": terms}
    return PagePart("classification.html", SCRIPTS, data, context)


def _cell(name: str, value: Any) -> dict[str, Any]:
    missing = value is None or pd.isna(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if missing:
        return {"text": "", "number": number, "sort": None}
    if isinstance(value, float) and name.endswith(("_seconds", "_MB", "ms_per_image_p50")):
        return {"text": f"{value:.1f}", "number": True, "sort": value}
    if isinstance(value, float) and (
        "F1" in name or name.endswith("accuracy") or name in {"p_vs_best", "may_be_lower_by"}
    ):
        return {"text": f"{value:.3f}", "number": True, "sort": value}
    return {"text": str(value), "number": number, "sort": value if number else str(value)}


def _configuration(classification: ClassificationResults, configuration: Configuration) -> dict[str, Any]:
    details = classification.results.details(configuration.best_run)
    folder = run_address(configuration.best_run)
    record = next(one for one in configuration.records if one.run_id == configuration.best_run)
    return {
        "name": configuration.name,
        "style": ModelStyles.of(classification.results).style(record),
        "folder": folder,
        "labels": details.get("labels", []),
        "classes": details.get("classes", []),
        "states": details.get("states", []),
        "confusion": details.get("confusion", []),
        "confused": _pairs(classification, configuration.best_run, details.get("confused", [])[:PAIRS]),
        "cam_note": details.get("cam_note", ""),
        "epochs": details.get("epochs", {}),
        "distribution": details.get("distribution", {}),
        "folds": record.folds,
        "coverage": coverage_sentence(classification, configuration.best_run),
        "calibration": calibration_sentence(classification, configuration.best_run),
        "reliability": diagram(classification, configuration.best_run),
        "risk": _risk(classification, configuration.best_run),
        "warnings": record.warnings,
    }


def _pairs(classification: ClassificationResults, run_id: str, pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Confused pairs with the pictures of their examples, and with calibrated probabilities."""
    predictions, folder = classification.predictions(run_id), run_address(run_id)
    calibrated = classification.temperature(run_id).apply(predictions.probabilities)
    rows = {name: row for row, name in enumerate(predictions.names)}
    columns = {label: column for column, label in enumerate(predictions.labels)}
    return [
        {
            **pair,
            "examples": [
                {
                    **one,
                    "file": folder + one["file"],
                    **({"cam": folder + one["cam"]} if one.get("cam") else {}),
                    "probability": float(calibrated[rows[one["name"]], columns[pair["said"]]]),
                }
                for one in pair["examples"]
                if one.get("file") and one["name"] in rows and pair["said"] in columns
            ],
        }
        for pair in pairs
    ]


def _risk(classification: ClassificationResults, run_id: str) -> dict[str, list[float]]:
    """At most `POINTS` points of the risk-coverage curve."""
    curve = classification.risk(run_id)
    last = len(curve.answered) - 1
    places = [] if last < 0 else sorted({round(place) for place in np.linspace(0, last, POINTS).tolist()})
    return {
        name: [round(float(values[i]), 5) for i in places]
        for name, values in (("answered", curve.answered), ("risk", curve.risk), ("probability", curve.probability))
    }
