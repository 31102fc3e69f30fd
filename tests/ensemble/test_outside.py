"""Predictions from outside: CSV and NPY files, joined by file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.ensemble.blend import Blend, blend
from harness.ensemble.recipe import load_recipe
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.ensemble.written import write_run

LABELS = ("a-bad", "a-good", "b-good")
ROWS = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]
TEST = [[0.1, 0.8, 0.1]]
SOURCE = {"out_of_fold": "train.csv", "test": "test.csv"}


@pytest.fixture(autouse=True)
def _run() -> None:
    write_run("run", LABELS, [2, 0], [[0.6, 0.2, 0.2], [0.6, 0.2, 0.2]], [[0.6, 0.2, 0.2]])


def table(*rows: Sequence[object], header: Sequence[str] = ("file_name", *LABELS)) -> str:
    return "\n".join(",".join(map(str, row)) for row in (header, *rows))


GOOD = table(("0.png", *ROWS[0]), ("1.png", *ROWS[1]))
GOOD_TEST = table(("t0.png", *TEST[0]))


def write_recipe(source: dict[str, Any], **keys: Any) -> Path:
    recipe = {"runs": {"A": "run", "out": source}, "soft": {"out": 1}, **keys}
    Path("mix.yaml").write_text(yaml.safe_dump(recipe))
    return Path("mix.yaml")


def blended(source: dict[str, Any], **keys: Any) -> Blend:
    return blend(load_recipe(write_recipe(source, **keys)))


def check(result: Blend) -> None:
    np.testing.assert_allclose(result.predictions.probabilities, ROWS, rtol=1e-5)
    np.testing.assert_allclose(result.predictions.test_probabilities, TEST, rtol=1e-5)


def test_a_csv_file_joins_by_name_in_any_order_of_rows_and_columns() -> None:
    shuffled = [("train/1.png", 0.2, 0.5, 0.3), ("train/0.png", 0.7, 0.1, 0.2)]
    Path("train.csv").write_text(table(*shuffled, header=("file_name", "b-good", "a-bad", "a-good")))
    Path("test.csv").write_text(GOOD_TEST)
    result = blended(SOURCE)
    check(result)
    assert "out: predictions from outside. The harness can't check that they are out of fold." in result.warnings


def test_logits_become_probabilities() -> None:
    # A number for each image that softmax ignores.
    Path("train.csv").write_text(table(*((f"{i}.png", *(np.log(ROWS[i]) + 50 * i)) for i in range(2))))
    Path("test.csv").write_text(table(("t0.png", *np.log(TEST[0]))))
    check(blended({**SOURCE, "values": "logits"}))


@pytest.mark.parametrize("labels", [None, ["b-good", "a-bad", "a-good"]])
def test_an_npy_file_has_names_beside_it(labels: list[str] | None) -> None:
    order = [LABELS.index(label) for label in labels or LABELS]
    np.save("train.npy", np.array(ROWS)[::-1][:, order])
    Path("train.txt").write_text("1.png\n0.png\n")
    np.save("test.npy", np.array(TEST, dtype=np.float32)[:, order])
    Path("test.txt").write_text("t0.png")
    source: dict[str, Any] = {"out_of_fold": "train.npy", "test": "test.npy"}
    check(blended({**source, "labels": labels} if labels else source))


def test_own_labels_only_decide_where_a_rule_does_not_apply() -> None:
    own = ("file_name", "a-ok", "a-nok")
    Path("train.csv").write_text(table(("0.png", 0.9, 0.1), ("1.png", 0.1, 0.9), header=own))
    Path("test.csv").write_text(table(("t0.png", 0.6, 0.4), header=own))
    source = {**SOURCE, "own_labels": True}
    rule = {"take": "current", "choice": "second", "unless": {"run": "out", "state": "ok", "confidence_from": 0.8}}
    result = blended(source, soft="equal", rules=[rule])
    assert result.shares == {"A": 1}
    assert result.predictions.predicted.tolist() == [0, 1]
    assert result.predictions.test_predicted.tolist() == [1]


def test_other_values_from_outside_are_another_blend(cli: Cli) -> None:
    Path("train.csv").write_text(GOOD)
    for row in (TEST[0], [0.2, 0.7, 0.1]):
        Path("test.csv").write_text(table(("t0.png", *row)))
        assert cli("blend", write_recipe(SOURCE), "--out", "sub.csv").exit_code == 0
    assert len(ResultFolder(Path("results/mix")).records()) == 2


def refused(cli: Cli, source: dict[str, Any], words: str, **keys: Any) -> None:
    result = cli("blend", write_recipe(source, **keys))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            table(("0.png", *ROWS[0])),
            "train.csv: rows do not fit the images: 1 (1.png) missing, 0 unknown, 0 more than",
        ),
        (f"{GOOD}\n9.png,1,0,0", "0 missing, 1 (9.png) unknown"),
        (f"{GOOD}\n1.png,1,0,0", "0 unknown, 1 (1.png) more than once; expected one row for each of 2 images"),
        (GOOD.replace("a-bad", "a-odd"), "columns do not fit the labels: 1 (a-bad) missing, 1 (a-odd) unknown"),
        (GOOD.replace("a-bad", "a-good"), "1 (a-bad) missing, 0 unknown, 1 (a-good) more than once"),
        (GOOD.replace("file_name", "image"), "train.csv: first column image found; expected file_name"),
        ("", "first column none found; expected file_name"),
        (f"{GOOD},0.5", "row 3 has 5 cells; expected 4"),
        (GOOD.replace("0.7", "high"), "a cell is no number (could not convert string to float: 'high')"),
        (
            GOOD.replace("0.7", "nan"),
            "NaN or infinite values found; expected finite numbers (first: train/0.png; 1 rows)",
        ),
        (GOOD.replace("0.7", "inf"), "NaN or infinite values found"),
        (
            GOOD.replace("0.7", "0.8"),
            "rows found that do not sum to 1; expected probabilities, or set `values: logits`",
        ),
        (GOOD.replace("0.1", "-0.1"), "negative values found; expected probabilities, or set `values: logits`"),
    ],
)
def test_a_wrong_csv_file_is_refused(cli: Cli, text: str, words: str) -> None:
    Path("train.csv").write_text(text)
    Path("test.csv").write_text(GOOD_TEST)
    refused(cli, SOURCE, words)


def test_the_file_of_the_test_images_is_checked_too(cli: Cli) -> None:
    Path("train.csv").write_text(GOOD)
    refused(cli, SOURCE, "test.csv: nothing found; expected a file with predictions")
    refused(cli, {"out_of_fold": "train.csv"}, "no file for the 1 test images found; expected the key `test`")
    Path("test.csv").write_text(GOOD)
    refused(cli, SOURCE, "test.csv: rows do not fit the images: 1 (t0.png) missing, 2 (0.png, 1.png) unknown")
    Path("test.csv").write_text(table(("t0.png", 1, 0), header=("file_name", "x-y", "x-z")))
    refused(cli, {**SOURCE, "own_labels": True}, "test.csv: other labels than in train.csv found", soft="equal")


@pytest.mark.parametrize(
    ("array", "names", "words"),
    [
        (np.array(ROWS, dtype=object), "0.png\n1.png", "expected an array of numbers, without Python objects. Save it"),
        (np.array([["a"] * 3] * 2), "0.png\n1.png", "<U1 of shape (2, 3) found; expected numbers of shape (2, 3)"),
        (np.array(ROWS)[:, :2], "0.png\n1.png", "shape (2, 2) found; expected numbers of shape (2, 3)"),
        (np.array(ROWS), "0.png", "shape (2, 3) found; expected numbers of shape (1, 3): the rows of train.txt"),
        (np.array(ROWS), "0.png\n0.png", "1 (1.png) missing, 0 unknown, 1 (0.png) more than once"),
        (np.array(ROWS), None, "train.txt: nothing found; expected a file with predictions"),
        (None, "0.png\n1.png", "train.npy: can't be read"),
    ],
)
def test_a_wrong_npy_file_is_refused(cli: Cli, array: Any, names: str | None, words: str) -> None:
    if array is None:
        Path("train.npy").write_bytes(b"no array")
    else:
        np.save("train.npy", array, allow_pickle=True)
    if names is not None:
        Path("train.txt").write_text(names)
    Path("test.csv").write_text(GOOD_TEST)
    refused(cli, {**SOURCE, "out_of_fold": "train.npy"}, words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"run": "run", "test": "test.csv"}, "test: expected only with `out_of_fold`"),
        ({"run": "run", "values": "logits"}, "values: expected only with `out_of_fold`"),
        ({**SOURCE, "values": "scores"}, "found 'scores', expected 'probabilities' or 'logits'"),
        ({**SOURCE, "test": "test.xlsx"}, "'test.xlsx' found; expected a .csv or .npy file"),
        ({**SOURCE, "folds": {0: 1}}, "folds: expected only with `run` or `average_weights`"),
        ({**SOURCE, "labels": ["a-bad"]}, "labels: expected different labels, and only with an .npy file"),
        ({"out_of_fold": "a.npy", "own_labels": True}, "own_labels: expected `labels` too"),
        ({**SOURCE, "own_labels": True}, "'out' has `own_labels`; expected only `unless` to name it"),
    ],
)
def test_a_wrong_source_is_refused(cli: Cli, source: dict[str, Any], words: str) -> None:
    refused(cli, source, words)


def test_a_blend_needs_a_run_of_the_harness(cli: Cli) -> None:
    refused(cli, SOURCE, "runs: expected a run of the harness", runs={"out": SOURCE})
