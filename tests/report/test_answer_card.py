"""The answer's card on the page: key figures, and pictures of a found and a missed defect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.report.answer_card import answer_pictures, defect_pictures, key_figures
from harness.report.configurations import Configuration
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.report.conftest import Run

LABELS, SCORES = [0, 0, 1, 1], [0.1, 0.6, 0.2, 0.9]
FIXED = {"image": 0.5, "fixed_by": "4 held-out normal images"}


def only(folder: ResultFolder) -> tuple[Results, Configuration]:
    results = Results.of(folder)
    ((configuration,),) = results.configurations.values()
    return results, configuration


def add_gallery(folder: ResultFolder, run_id: str, roles: list[str]) -> None:
    """Give a run pictures with these roles."""
    file = folder.run_folder(run_id) / "details.json"
    pictures = [
        {"file": f"heatmaps/{number}.jpg", "role": role, "name": f"{role}.png", "defect": "dent", "score": 0.3,
         "label": int(role not in {"false-alarm", "highest-normal"}), "width": 400, "height": 100}
        for number, role in enumerate(roles)
    ]  # fmt: skip
    file.write_text(json.dumps({**json.loads(file.read_text()), "gallery": pictures}))


def test_figures_are_sums_over_categories(folder: ResultFolder, run: Run) -> None:
    counts = {"image_FalsePositives": 1, "image_FalseNegatives": 0}
    rate = {"false_alarms": 0.05, "false_alarms_asked": 0.05, "guarantee": "promised"}
    for category in ("bottle", "plate"):
        run(SCORES, LABELS, spec={"category": category}, metrics=counts, thresholds=FIXED | rate)
    figures = {name: (value, remark) for name, value, remark in key_figures(*only(folder))}
    assert figures["false alarms"] == (
        "50.0%",
        "2 of 4 normal images (95%: 6.8% to 93.2%); promised for new images: at most 5%",
    )
    assert figures["missed defects"] == ("0.0%", "0 of 4 anomalous images (95%: 0.0% to 60.2%)")
    assert figures["time for an image"] == ("10.0 ms", "on cpu")
    assert figures["image AUROC"][0] == "0.750"


def test_a_found_and_a_missed_defect_are_of_one_run(folder: ResultFolder, run: Run) -> None:
    for seed in (0, 1):
        run(SCORES, LABELS, spec={"seed": seed}, metrics={"image_FalseNegatives": seed}, thresholds=FIXED)
    add_gallery(folder, "run-0", ["lowest-anomalous", "highest-anomalous"])
    add_gallery(folder, "run-1", ["missed", "false-alarm", "lowest-anomalous", "highest-anomalous"])
    shown = defect_pictures(*only(folder))
    pictures: list[dict[str, Any]] = shown["pictures"]
    assert [(one["role"], one["name"], one["run"]) for one in pictures] == [
        ("found", "highest-anomalous.png", "run-1"),
        ("missed", "missed.png", "run-1"),
    ]
    assert shown["note"] == ""


@pytest.mark.parametrize(
    ("misses", "roles", "note"),
    [
        (0, ["highest-anomalous"], "No defect was missed."),
        (1, ["highest-anomalous"], "There is no picture of a missed defect."),
        (2, ["missed"], "No defect was found."),
        (0, [], "There is no picture of a found defect. No defect was missed."),
    ],
)
def test_a_sentence_says_what_has_no_picture(
    folder: ResultFolder, run: Run, misses: int, roles: list[str], note: str
) -> None:
    run(SCORES, LABELS, metrics={"image_FalseNegatives": misses}, thresholds=FIXED)
    add_gallery(folder, "run-0", roles)
    (shown,) = answer_pictures(Results.of(folder))
    assert (shown["note"], len(shown["pictures"])) == (note, len(roles))


def test_without_a_threshold_nothing_counts_as_missed(folder: ResultFolder, run: Run) -> None:
    run(SCORES, LABELS)
    add_gallery(folder, "run-0", ["highest-anomalous"])
    assert defect_pictures(*only(folder)) == {
        "pictures": [],
        "note": "Without a threshold, no defect counts as found or missed.",
    }
