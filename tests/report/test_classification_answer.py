"""The answer of a classification names the pair of labels that is confused most often."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from harness.report.classification_answer import answer_cards, answers, most_confused
from harness.report.classification_results import ClassificationResults
from harness.report.results import Results
from harness.results.run_folder import DETAILS
from harness.results.store import ResultFolder
from tests.conftest import ROOT


def stored(tmp_path: Path) -> ResultFolder:
    """A copy of the results of an earlier version."""
    folder = ResultFolder(tmp_path / "named")
    shutil.copytree(ROOT / "tests" / "stored" / "results" / "named", folder.root)
    return folder


def test_the_card_names_the_pair_of_the_confusion_matrix(tmp_path: Path) -> None:
    classification = ClassificationResults(Results.of(stored(tmp_path)))
    best = classification.configurations[0]
    details = classification.results.details(best.best_run)
    labels = [one["label"] for one in details["labels"]]
    wrong = np.array(details["confusion"])
    np.fill_diagonal(wrong, 0)
    pair = most_confused(classification, best.best_run)
    assert pair is not None
    assert wrong[labels.index(pair["label"]), labels.index(pair["said"])] == pair["images"] == wrong.max()
    (card,) = answer_cards(classification)
    figures = {name: (value, remark) for name, value, remark in card["figures"]}
    assert figures["most often confused"] == (
        f"{pair['images']} of {pair['of']}",
        f"{pair['label']} with {pair['said']}",
    )
    assert figures["macro F1"][0] == f"{best.metric('macro_F1'):.3f}"
    (sentence,) = answers(classification)
    assert sentence.startswith(
        f"Recommended: {best.name}. Its macro F1 is {best.metric('macro_F1'):.3f} out of fold (95%: "
    )
    assert f"Most often confused: {pair['label']} with {pair['said']}, {pair['images']} of {pair['of']}." in sentence
    assert all(part in sentence for part in card["sentences"][:-1])


def test_without_an_error_no_pair_is_named(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    for file in folder.runs.glob(f"*/{DETAILS}"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "confused": []}))
    classification = ClassificationResults(Results.of(folder))
    assert "confused" not in " ".join(answers(classification))
    assert "most often confused" not in [name for name, *_ in answer_cards(classification)[0]["figures"]]
