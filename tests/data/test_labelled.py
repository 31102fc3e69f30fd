"""Labelled data: four layouts, what does not match, folds."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.backends.supervised.one_class import classes
from harness.common.errors import ConfigError, DataError
from harness.config.load import load_config
from harness.data.index import FileIndex
from harness.data.labelled.base import ALWAYS_TRAINED, LabelledSample, LabelledSplit
from harness.data.labelled.files import LabelledData
from harness.data.labelled.folds import assign_folds
from harness.data.labelled.split import load_labelled
from harness.data.labelled.toy import LabelledToy
from harness.data.labelled.toy_images import LABELS, SHARES


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, shade // 2, 255 - shade)).save(path)


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def competition(root: Path, train: int = 12, test: int = 4) -> Path:
    """Two classes of two states, three images each; the last ones are to be named."""
    labels = [("cable", "good"), ("cable", "cut"), ("tile", "good"), ("tile", "crack")]
    rows = []
    for i in range(train):
        part, state = labels[i % 4]
        picture(root / "train" / f"{i}.png", i * 9)
        row = {"index": i, "file_name": f"{i}.png", "class": part, "state": state, "label": f"{part}-{state}"}
        rows.append(row)
    table(root / "train_df.csv", rows)
    for i in range(test):
        picture(root / "test" / f"{i}.png", 200 + i)
    table(root / "test_df.csv", [{"index": 100 + i, "file_name": f"{i}.png"} for i in range(test)])
    table(root / "sample_submission.csv", [{"index": 100 + i, "label": "cable-good"} for i in range(test)])
    return root


def split(root: Path, **options: Any) -> LabelledSplit:
    data = LabelledData(kind="labelled", root=str(root), folds=options.pop("folds", 3), **options)
    return load_labelled(data, root, FileIndex(root / ".index.json"))


def samples(*labels: str) -> list[LabelledSample]:
    return [LabelledSample(f"/{i}.png", f"{i}.png", label, row=i) for i, label in enumerate(labels)]


def test_the_competitions_layout(tmp_path: Path) -> None:
    labelled = split(competition(tmp_path))
    assert labelled.labels == ("cable-cut", "cable-good", "tile-crack", "tile-good")
    assert Counter(s.label for s in labelled.train) == dict.fromkeys(labelled.labels, 3)
    assert (labelled.train[1].part, labelled.train[1].state, labelled.train[1].name) == ("cable", "cut", "train/1.png")
    assert [s.key for s in labelled.test] == ["100", "101", "102", "103"]
    assert {s.label for s in labelled.test} == {""}
    assert labelled.sample_submission == tmp_path / "sample_submission.csv"
    # Each fold judges one image of each label.
    for fold in (0, 1, 2):
        assert sorted(labelled.train[i].label for i in labelled.val_indices(fold)) == list(labelled.labels)
        assert sorted([*labelled.val_indices(fold), *labelled.train_indices(fold)]) == list(range(12))


def test_the_distribution_counts_each_image_once(tmp_path: Path) -> None:
    root = competition(tmp_path, train=9)
    table(root / "test_df.csv", [{"index": i, "file_name": f"{i}.png", "label": "tile-good"} for i in range(4)])
    labelled = split(root, folds=2)
    counts = labelled.distribution()
    # cable-good has 3 images. Each other label has 2, and tile-crack and tile-good have none of the last image.
    assert list(counts) == ["fold 0", "fold 1", "test"]
    assert [sum(row) for row in zip(counts["fold 0"], counts["fold 1"], strict=True)] == [2, 3, 2, 2]
    assert counts["test"] == [0, 0, 0, 4]
    held = split(root, folds=0.5).distribution()
    assert [sum(row) for row in zip(held["fold 0"], held["trained in every fold"], strict=True)] == [2, 3, 2, 2]


def test_a_table_with_names_of_its_own_and_labels_only(tmp_path: Path) -> None:
    for i in range(8):
        picture(tmp_path / "pictures" / "a" / f"{i}.jpg", i * 20)
    table(tmp_path / "t.csv", [{"file": f"a/{i}.jpg", "what": ["nut-good", "nut-bent"][i % 2]} for i in range(8)])
    columns = {"file_name": "file", "label": "what"}
    labelled = split(tmp_path, csv="t.csv", images="pictures", columns=columns, folds=2)
    assert labelled.labels == ("nut-bent", "nut-good")
    assert (labelled.train[1].part, labelled.train[1].state) == ("nut", "bent")


def test_class_and_state_make_the_label(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png", i * 40)
    rows = [{"file_name": f"{i}.png", "class": "nut", "state": ["good", "bent"][i % 2]} for i in range(4)]
    table(tmp_path / "t.csv", rows)
    assert split(tmp_path, csv="t.csv", folds=2).labels == ("nut-bent", "nut-good")


def test_mvtec_trees_and_folders_of_labels(tmp_path: Path, toy_tree: Path) -> None:
    labelled = split(toy_tree, folds=2)
    assert labelled.labels == ("plate-dent", "plate-good", "plate-scratch", "plate-stain")
    assert Counter(s.label for s in labelled.train)["plate-good"] == 8 + 4
    for label in ("nut-good", "nut-bent"):
        for i in range(3):
            picture(tmp_path / label / f"{i}.png", i * 30 + len(label) + (label == "nut-bent"))
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "loose.png", 3)
    own = split(tmp_path, folds=3)
    assert own.labels == ("nut-bent", "nut-good")
    assert any("empty" in note for note in own.notes)
    assert any("loose.png" in note and "left out" in note for note in own.notes)


def test_what_does_not_match_is_said_with_what_is_done(tmp_path: Path) -> None:
    root = competition(tmp_path)
    (root / "train" / "0.png").unlink()
    picture(root / "train" / "spare.png", 77)
    (root / "train" / "copy.png").write_bytes((root / "train" / "5.png").read_bytes())
    (root / "test" / "0.png").write_bytes((root / "train" / "6.png").read_bytes())
    with (root / "train_df.csv").open("a") as stream:
        stream.write("12,copy.png,cable,cut,cable-cut\n5,5.png,cable,cut,cable-cut\n")
    notes = " ".join(split(root).notes)
    assert "1 rows name files that are not in" in notes and "0.png" in notes
    assert "1 images have no row in train_df.csv (spare.png): left out" in notes
    assert "1 rows are there twice (5.png)" in notes
    assert "copies of others (train/copy.png = train/5.png): left out" in notes
    assert "test images are training images too (test/0.png)" in notes


def test_contradictions_are_refused(tmp_path: Path) -> None:
    root = competition(tmp_path)
    with (root / "train_df.csv").open("a") as stream:
        stream.write("12,5.png,cable,good,cable-good\n13,6.png,,,\n")
    with pytest.raises(DataError) as caught:
        split(root)
    assert "line 14: 5.png is labelled 'cable-good' here and 'cable-cut' before" in str(caught.value)
    assert "line 15: no label found" in str(caught.value)


def test_one_picture_with_two_labels_is_refused(tmp_path: Path) -> None:
    root = competition(tmp_path)
    (root / "train" / "1.png").write_bytes((root / "train" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"same image as train/0\.png, labelled 'cable-cut' and 'cable-good'"):
        split(root)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"csv": "other.csv"}, "no file found at"),
        ({"csv": "../t.csv"}, "leads out of"),
        ({"layout": "competition", "images": "../train"}, "leads out of"),
        ({"columns": {"file_name": "picture"}}, "expected picture"),
        ({"columns": {"label": "x", "class": "y"}}, "expected x (or y and state)"),
        ({"folds": 40}, "40 found, but no label has more than 3 images; expected at most 3 folds"),
        ({"run_folds": [0, 7]}, "found [0, 7], expected different ones of [0, 1, 2]"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        split(competition(tmp_path / "root"), **options)
    assert words in str(caught.value)


def test_nothing_labelled_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"no labelled images; expected train_df\.csv"):
        split(tmp_path)


def test_a_label_with_one_image_is_always_trained_and_never_judged() -> None:
    folds, notes = assign_folds(samples("a", "a", "a", "b", "c", "c", "c"), 3, seed=0, rows=7)
    assert folds[3] == ALWAYS_TRAINED
    assert sorted(folds[:3]) == sorted(folds[4:]) == [0, 1, 2]
    assert "1 labels have a single image (b)" in notes[0]


def test_fewer_images_than_folds_are_said() -> None:
    folds, notes = assign_folds(samples(*"aaaaabb"), 5, seed=0, rows=7)
    assert len(set(folds[:5])) == 5
    assert len(set(folds[5:])) == 2
    assert "1 labels have fewer images than folds (b)" in notes[0]


def test_a_share_is_held_out_of_each_label() -> None:
    folds, _ = assign_folds(samples(*["a"] * 10, *["b"] * 2), 0.3, seed=0, rows=12)
    assert (folds[:10] == 0).sum() == 3
    assert (folds[10:] == 0).sum() == 1
    assert set(folds) == {0, ALWAYS_TRAINED}
    again, _ = assign_folds(samples(*["a"] * 10, *["b"] * 2), 0.3, seed=1, rows=12)
    assert again.tolist() != folds.tolist()


def test_nothing_can_be_held_out_of_labels_with_one_image() -> None:
    with pytest.raises(DataError, match=r"data\.folds: 0\.2 found, but each label has a single image; expected"):
        assign_folds(samples(*"abc"), 0.2, seed=0, rows=3)


def test_folds_from_a_file_without_training_or_validation_are_refused(tmp_path: Path) -> None:
    for useless, words in ((np.zeros(4, np.int64), "no training image"), (np.full(4, -1), "no validation image")):
        np.save(tmp_path / "useless.npy", useless)
        with pytest.raises(DataError, match=words):
            assign_folds(samples(*"aabb"), str(tmp_path / "useless.npy"), seed=0, rows=4)


def test_folds_from_a_file_are_by_the_rows_of_the_table(tmp_path: Path) -> None:
    root = competition(tmp_path)
    np.save(tmp_path / "folds.npy", np.arange(12) // 6)
    whole = split(root, folds=str(tmp_path / "folds.npy"))
    by_name = dict(zip((s.name for s in whole.train), whole.folds, strict=True))
    (root / "train" / "0.png").unlink()
    (root / "train" / "1.png").write_bytes((root / "train" / "5.png").read_bytes())
    rest = split(root, folds=str(tmp_path / "folds.npy"))
    assert len(rest.train) == 10
    for sample, fold in zip(rest.train, rest.folds, strict=True):
        assert fold == by_name[sample.name], sample.name


def test_a_fold_without_a_label_to_learn_is_said() -> None:
    folds, notes = assign_folds(samples(*"aabb"), 2, seed=0, rows=4)
    assert not notes
    file = Path("folds.npy")
    np.save(file, np.array([0, 1, 1, 1]))
    folds, notes = assign_folds(samples(*"aabb"), str(file), seed=0, rows=4)
    assert folds.tolist() == [0, 1, 1, 1]
    assert "b (fold 1)" in notes[0]


def test_images_that_a_file_never_validates_are_said(tmp_path: Path) -> None:
    np.save(tmp_path / "folds.npy", np.array([0, -1, 1, 0, 1, -1]))
    folds, notes = assign_folds(samples(*"aaabbb"), str(tmp_path / "folds.npy"), seed=0, rows=6)
    assert folds.tolist() == [0, -1, 1, 0, 1, -1]
    assert "folds.npy: 2 images are in no validation fold (1.png, 5.png): the networks of every fold train" in notes[0]


def test_a_label_left_with_one_image_once_copies_are_gone_is_always_trained(tmp_path: Path) -> None:
    root = competition(tmp_path, train=9)
    for name in ("5.png", "1.png"):
        assert (root / "train" / name).is_file()
    # cable-cut has the images 1 and 5, of which one is a copy now.
    (root / "train" / "5.png").write_bytes((root / "train" / "1.png").read_bytes())
    labelled = split(root, folds=2)
    (place,) = [i for i, s in enumerate(labelled.train) if s.label == "cable-cut"]
    assert labelled.folds[place] == ALWAYS_TRAINED
    assert any("1 labels have a single image (cable-cut)" in note for note in labelled.notes)


def test_too_many_folds_for_every_label_are_refused() -> None:
    with pytest.raises(DataError, match="5 found, but no label has more than 3 images; expected at most 3 folds"):
        assign_folds(samples(*"aaabbb"), 5, seed=0, rows=6)


def test_class_and_state_are_those_of_the_table(tmp_path: Path) -> None:
    root = tmp_path / "root"
    parts = [("t-shirt", "good"), ("t-shirt", "torn"), ("t-bolt", "good"), ("t-bolt", "bent")]
    rows = []
    for i in range(12):
        picture(root / f"{i}.png", i * 9)
        part, state = parts[i % 4]
        rows.append({"file_name": f"{i}.png", "class": part, "state": state, "label": i % 4})
    table(root / "parts.csv", rows)
    labelled = split(root, csv="parts.csv")
    assert labelled.labels == ("0", "1", "2", "3")
    assert labelled.label_specs == tuple(parts)
    assert classes(labelled.label_specs) == {"t-shirt": [0, 1], "t-bolt": [2, 3]}
    rows[4]["class"] = "t-bolt"
    table(root / "parts.csv", rows)
    with pytest.raises(DataError, match="label '0' with class 't-bolt' and state 'good' found, before with 't-shirt'"):
        split(root, csv="parts.csv")


def test_folders_of_labels_below_train_and_test(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "train" / "nut-bent" / f"{i}.png", i)
        picture(tmp_path / "train" / "nut-good" / f"{i}.png", 50 + i)
        picture(tmp_path / "test" / "nut-good" / f"{i}.png", 100 + i)
    labelled = split(tmp_path)
    assert labelled.labels == ("nut-bent", "nut-good")
    assert [sample.label for sample in labelled.test] == ["nut-good"] * 3
    # One level deeper than that, nobody can say what the label is.
    picture(tmp_path / "train" / "nut-bent" / "more" / "9.png", 9)
    with pytest.raises(DataError, match=r"1 images of .* lie deeper .*train/nut-bent/more/9\.png"):
        split(tmp_path)


def test_folders_of_labels_with_images_to_be_named_beside_them(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "nut-bent" / f"{i}.png", i)
        picture(tmp_path / "nut-good" / f"{i}.png", 50 + i)
        picture(tmp_path / "new" / f"{i}.png", 100 + i)
    table(tmp_path / "sample.csv", [{"file": "new/0.png", "label": "nut-good"}])
    labelled = split(tmp_path, test_images="new", sample_submission="sample.csv")
    assert labelled.labels == ("nut-bent", "nut-good")
    assert [sample.name for sample in labelled.test] == [f"new/{i}.png" for i in range(3)]
    assert labelled.sample_submission == tmp_path / "sample.csv"
    with pytest.raises(DataError, match=r"data\.images: found, but layout folders has no table"):
        split(tmp_path, layout="folders", images="new")


def test_images_to_be_named_that_are_called_alike_are_refused(tmp_path: Path) -> None:
    root = competition(tmp_path)
    table(root / "test_df.csv", [{"index": 0, "file_name": f"{i}.png"} for i in range(4)])
    with pytest.raises(DataError, match=r"column index: 1 values stand for several images \(0\)"):
        split(root)


def test_toy_data_is_long_tailed_and_the_same_each_time(tmp_path: Path) -> None:
    one, other = (LabelledToy(kind="toy", size=32, train=60, test=16).load(tmp_path / name) for name in "ab")
    assert [Path(s.path).read_bytes() for s in one.train] == [Path(s.path).read_bytes() for s in other.train]
    counts = Counter(s.label for s in one.train)
    assert set(counts) == set(LABELS)
    assert min(counts.values()) == 2
    assert counts["washer-good"] == max(counts.values()) > 5 * min(counts.values())
    assert sum(sum(states.values()) for states in SHARES.values()) == 400


def test_configs_of_the_two_tasks_are_told_apart(tmp_path: Path) -> None:
    def problems(text: str) -> str:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        return str(caught.value)

    grid = "grid: {model: baseline}\n"
    assert "unknown labelled data 'mvtec'" in problems("task: classification\ndata: {kind: mvtec}\n" + grid)
    assert "data.folds" in problems("task: classification\ndata: {kind: toy, folds: 1}\n" + grid)
    assert "`aupro_limit` has no effect in task 'classification'" in problems(
        "task: classification\naupro_limit: 0.1\ndata: {kind: toy}\n" + grid
    )
    assert "task" in problems("task: segmentation\ndata: {kind: toy}\n" + grid)
