"""Groups of images: `data.group`, and folds that keep each group together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.common.errors import DataError
from harness.config.load import load_config
from harness.data.labelled.base import ALWAYS_TRAINED
from harness.data.labelled.files import LabelledData
from harness.data.labelled.folds import assign_folds
from harness.data.labelled.toy import LabelledToy
from harness.results.schemas import Data
from harness.tasks.classification import Classification
from tests.conftest import Cli
from tests.data.test_labelled import competition, picture, samples, split, table

STATES = ("good", "bent")


def lots(root: Path, groups: int = 6, images: int = 4) -> Path:
    """Images of two labels in each lot; the lot is in a column and in the name of the file."""
    rows = []
    for i in range(groups * images):
        lot, state = i // images, STATES[i % 2]
        picture(root / "pictures" / f"lot{lot}_{i}.png", i * 5)
        rows.append({"file_name": f"lot{lot}_{i}.png", "class": "nut", "state": state, "lot": f"L{lot}"})
    table(root / "t.csv", rows)
    return root


def folds_by_group(folds: Any, groups: Any) -> dict[str, set[int]]:
    return {group: {f for f, g in zip(folds, groups, strict=True) if g == group} for group in groups}


@pytest.mark.parametrize("group", ["lot", {"column": "lot"}, {"pattern": r"lot(\d+)_"}])
@pytest.mark.parametrize("folds", [2, 3, 6])
def test_a_group_stays_in_one_fold(tmp_path: Path, group: Any, folds: int) -> None:
    labelled = split(lots(tmp_path), csv="t.csv", images="pictures", folds=folds, group=group)
    assert all(len(numbers) == 1 for numbers in folds_by_group(labelled.folds, labelled.groups).values())
    assert len(set(labelled.groups)) == 6
    # Stratified: lots are alike here, so all folds have the same number of images of each label.
    for fold in range(folds):
        of_fold = [labelled.train[i].state for i in labelled.val_indices(fold)]
        assert of_fold.count("good") == of_fold.count("bent") == 12 // folds
    again = split(tmp_path, csv="t.csv", images="pictures", folds=folds, group=group)
    assert again.fingerprint == labelled.fingerprint


def test_a_column_and_a_pattern_give_the_same_folds(tmp_path: Path) -> None:
    options: dict[str, Any] = {"csv": "t.csv", "images": "pictures", "folds": 3}
    column = split(lots(tmp_path), **options, group="lot")
    pattern = split(tmp_path, **options, group={"pattern": r"(lot\d+)_"})
    assert column.folds == pattern.folds
    without = split(tmp_path, **options)
    assert without.fingerprint != column.fingerprint
    assert without.test_fingerprint == column.test_fingerprint


@pytest.mark.parametrize(("share", "groups"), [(0.2, 1), (0.34, 2), (0.5, 3), (0.9, 5), (0.01, 1), (0.99, 5)])
def test_a_share_holds_out_whole_groups(tmp_path: Path, share: float, groups: int) -> None:
    labelled = split(lots(tmp_path), csv="t.csv", images="pictures", folds=share, group="lot")
    by_group = folds_by_group(labelled.folds, labelled.groups)
    assert sorted(map(sorted, by_group.values())) == [[ALWAYS_TRAINED]] * (6 - groups) + [[0]] * groups
    has_note = any(f"data.folds asks for {share:.0%}: groups stay together" in note for note in labelled.notes)
    assert has_note == (abs(groups / 6 - share) > 0.02)


def test_the_record_and_the_notes_say_the_groups(tmp_path: Path) -> None:
    labelled = split(lots(tmp_path), csv="t.csv", images="pictures", group="lot")
    summary = Classification().data_summary(labelled)
    assert (summary["group"], summary["groups"]) == ("column lot", 6)
    assert Data.model_validate(summary).groups == 6
    assert labelled.notes[0] == (
        "The folds keep 6 groups of 4 to 4 images together (column lot). Intervals and prediction sets treat images as "
        "independent, so with groups they may be too narrow."
    )
    without = Classification().data_summary(split(tmp_path, csv="t.csv", images="pictures"))
    assert not {"group", "groups"} & set(without)


def test_toy_images_have_groups_too(tmp_path: Path) -> None:
    from harness.data.index import FileIndex
    from harness.data.labelled.split import load_labelled

    data = LabelledToy(kind="toy", size=32, train=60, test=16, folds=2, group={"pattern": r"(\d)\.png"})  # type: ignore[arg-type]
    labelled = load_labelled(data, tmp_path, FileIndex(tmp_path / "index.json"))
    assert set(labelled.groups) == set("0123456789")
    assert all(len(numbers) == 1 for numbers in folds_by_group(labelled.folds, labelled.groups).values())


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (
            "lott",
            r"data\.group: column 'lott' not found in .*t\.csv; expected one of .*Did you mean 'lot'\?",
        ),
        ("serial number", r"data\.group: column 'serial number' not found in .*\. Name one of them"),
        ({"pattern": r"part(\d+)"}, r"data\.group: 24 images have no group by pattern part\(\\d\+\) .*; expected one"),
        ({"pattern": r"lot(\d*?)_?1"}, r"images have no group by pattern .*Change data\.group"),
        (
            {"pattern": "(pictures)"},
            r"data\.group: all 24 images are in one group \('pictures'\) by .*; expected",
        ),
        ("class", r"data\.group: all 24 images are in one group \('nut'\) by column class; expected several"),
        ("state", r"data\.group: no label is in two groups; expected .*Choose smaller groups"),
    ],
)
def test_groups_that_do_not_fit_are_one_sentence(tmp_path: Path, group: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        split(lots(tmp_path), csv="t.csv", images="pictures", group=group)


def test_fewer_groups_than_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.folds: 4 found, but data\.group gives 3 groups .*; expected at most 3 folds"
    ):
        split(lots(tmp_path, groups=3, images=8), csv="t.csv", images="pictures", folds=4, group="lot")


def test_a_column_needs_a_table(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"nut-{STATES[i % 2]}" / f"p{i // 2}_{i}.png", i * 30)
    with pytest.raises(DataError, match=r"column 'lot' found, but the data has no table; expected a pattern"):
        split(tmp_path, group="lot")
    assert set(split(tmp_path, group={"pattern": "(p.)_"}).groups) == {"p0", "p1", "p2"}


def test_rows_without_a_group_or_with_two_are_refused(tmp_path: Path) -> None:
    root = lots(tmp_path)
    with (root / "t.csv").open("a") as stream:
        stream.write("lot0_0.png,nut,good,L1\nlot0_1.png,nut,bent,\n")
    with pytest.raises(DataError) as caught:
        split(root, csv="t.csv", images="pictures", group="lot")
    assert "line 26: lot0_0.png is in group 'L1' here and 'L0' before; expected one group" in str(caught.value)
    assert "line 27: no group found in column lot; expected one. Add it." in str(caught.value)
    # Without the key, the column has no meaning.
    assert split(root, csv="t.csv", images="pictures").groups == ()


def test_copies_in_several_groups_are_left_out_as_ever(tmp_path: Path) -> None:
    root = lots(tmp_path)
    (root / "pictures" / "lot1_4.png").write_bytes((root / "pictures" / "lot0_0.png").read_bytes())
    labelled = split(root, csv="t.csv", images="pictures", group="lot")
    assert len(labelled.train) == len(labelled.groups) == 23
    assert any("copies of others (pictures/lot1_4.png = pictures/lot0_0.png): left out" in n for n in labelled.notes)


def test_test_images_of_known_groups_are_said(tmp_path: Path) -> None:
    root = lots(tmp_path)
    picture(root / "test" / "lot1_90.png", 201)
    picture(root / "test" / "lot9_91.png", 202)
    options: dict[str, Any] = {"csv": "t.csv", "images": "pictures", "test_images": "test"}
    words = "1 test images are in groups of training images (test/lot1_90.png)"
    assert any(words in note for note in split(root, **options, group={"pattern": r"(lot\d+)_"}).notes)
    # A table of test images may have the column.
    table(root / "test.csv", [{"file_name": f"lot{i}.png", "lot": f"L{j}"} for i, j in (("1_90", 1), ("9_91", 9))])
    assert any(words in note for note in split(root, **options, test_csv="test.csv", group="lot").notes)
    assert not any("groups of training images" in note for note in split(root, **options).notes)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"pattern": r"lot\d+"}, r"0 groups in parentheses found in .* expected one"),
        ({"pattern": "(a)(b)"}, "2 groups in parentheses found in .* expected one"),
        ({"pattern": "("}, "is no regular expression .* expected one"),
        ({}, "neither of `column` and `pattern` found; expected one of them"),
        ({"column": "lot", "pattern": "(a)"}, "both of `column` and `pattern` found; expected one of them"),
        ({"colum": "lot"}, "Extra inputs"),
        ("", "at least 1 character"),
        (["lot"], "expected the name of a column, or a mapping with `pattern`; found"),
        (3, "expected the name of a column, or a mapping with `pattern`; found 3"),
    ],
)
def test_bad_values_of_group(group: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LabelledData(kind="labelled", root="x", group=group)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{pattern: 'lot'}", "data.group.pattern: 0 groups in parentheses found in 'lot'; expected one"),
        ("{colum: lot}", "data.group.colum: unknown key; found 'lot'. Did you mean 'column'?"),
        ("[lot]", "data.group: expected the name of a column"),
        ("serial", "data.group: column 'serial' not found in"),
    ],
)
def test_bad_groups_end_a_sweep_with_status_2(tmp_path: Path, cli: Cli, value: str, words: str) -> None:
    root = competition(tmp_path / "data")
    (tmp_path / "c.yaml").write_text(
        f"task: classification\nweights: random\ndata: {{kind: labelled, root: {root}, group: {value}}}\n"
        "grid: {model: baseline, backbone: test_resnet, image_size: 32}\n"
    )
    result = cli("sweep", tmp_path / "c.yaml")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


def test_a_group_is_a_key_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "task: classification\ndata: {kind: labelled, root: x, group: lot}\n"
        "grid: {model: baseline, backbone: test_resnet}\n"
    )
    assert load_config(tmp_path / "c.yaml").data.group.text == "column lot"  # type: ignore[attr-defined]


def test_a_group_with_labels_of_its_own_is_always_trained() -> None:
    folds, notes = assign_folds(samples(*"ababxx"), 2, seed=0, rows=6, groups=["1", "1", "2", "2", "3", "3"])
    assert folds[4:].tolist() == [ALWAYS_TRAINED, ALWAYS_TRAINED]
    assert sorted(folds[:4]) == [0, 0, 1, 1]
    assert notes == [
        "1 labels are in one group only (x), a training group in every fold: the metrics do not cover these labels."
    ]


def test_a_label_of_one_group_among_other_labels_is_validated_without_training() -> None:
    """Its image can't be trained while its group is validated: the group would be on both sides."""
    folds, notes = assign_folds(samples(*"abxab"), 2, seed=0, rows=5, groups=["1", "1", "1", "2", "2"])
    assert len(set(folds[:3])) == 1
    assert notes == [
        f"1 labels have no training image in a fold: x (fold {folds[2]}). The fold's networks can't predict them."
    ]


def test_labels_in_fewer_groups_than_folds_are_said() -> None:
    groups = [*"112233"]
    _, notes = assign_folds(samples(*"abbaaa"), 3, seed=0, rows=6, groups=groups)
    assert "1 labels are in fewer groups than folds (b): some folds do not validate them." in notes


def test_folds_from_a_file_must_keep_groups_together(tmp_path: Path) -> None:
    np.save(tmp_path / "folds.npy", np.array([0, 0, 1, 1, 0, -1]))
    options: dict[str, Any] = {"folds": str(tmp_path / "folds.npy"), "seed": 0, "rows": 6}
    folds, _ = assign_folds(samples(*"ababab"), **options, groups=[*"112234"])
    assert folds.tolist() == [0, 0, 1, 1, 0, -1]
    with pytest.raises(DataError, match=r"puts 1 groups .* \('3': \[-1, 0\]; .*; expected each group in one fold"):
        assign_folds(samples(*"ababab"), **options, groups=[*"112233"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("123456789")), min_size=4, max_size=60),
    st.sampled_from([2, 3, 5, 0.1, 0.3, 0.5, 0.8]),
    st.integers(0, 5),
)
def test_no_group_is_on_both_sides(images: list[tuple[str, str]], requested: float, seed: int) -> None:
    labels, groups = zip(*images, strict=True)
    try:
        folds, notes = assign_folds(samples(*labels), requested, seed, len(images), groups)
    except DataError as error:
        assert str(error).startswith("data.")
        return
    by_group = folds_by_group(folds.tolist(), groups)
    assert all(len(numbers) == 1 for numbers in by_group.values())
    numbers = set(folds.tolist()) - {ALWAYS_TRAINED}
    assert numbers == (set(range(int(requested))) if requested >= 2 else {0})
    # A fold always has something to train on, and each label without a training image is in a note.
    for fold in numbers:
        assert (folds != fold).any()
        lacking = {label for label, f in zip(labels, folds, strict=True) if f == fold} - {
            label for label, f in zip(labels, folds, strict=True) if f != fold
        }
        assert not lacking or any("no training image in a fold" in note for note in notes)
