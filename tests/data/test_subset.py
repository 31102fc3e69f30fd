"""`n_train`: subsets of the normal images, nested for each seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.data.samples import Sample, Split
from harness.data.subset import Subset, part_of, problems_of


def split(train: int = 20, val: int = 0, category: str = "") -> Split:
    normal = tuple(Sample(f"/d/{i:02}.png", f"{i:02}.png", 0, "good") for i in range(train + val))
    return Split("mvtec", category, Path("/d"), normal[:train], normal[train:], (), "fingerprint", synthetic=False)


@pytest.mark.parametrize("val", [0, 3, 20])
@pytest.mark.parametrize("seed", [0, 7])
def test_subsets_are_nested_and_count_held_out_images_too(val: int, seed: int) -> None:
    whole = split(val=val)
    before = Subset((), (), ())
    for images in range(2 if val else 1, 21 + val):
        subset = Subset.of(whole, images, seed)
        assert (len(subset.train) + len(subset.val), bool(subset.val)) == (images, bool(val))
        assert subset.train
        assert set(before.train) <= set(subset.train)
        assert set(before.val) <= set(subset.val)
        assert list(subset.train) == sorted(subset.train)
        before = subset
    assert before == Subset.of(whole, None, seed)


def test_held_out_images_keep_their_share() -> None:
    assert [len(Subset.of(split(80, 20), images, 0).val) for images in (2, 10, 20, 50)] == [1, 2, 4, 10]


def test_seeds_choose_other_images() -> None:
    assert len({Subset.of(split(), 4, seed).train for seed in range(5)}) == 5


def test_a_part_keeps_test_and_fingerprint() -> None:
    whole = split(20, 5)
    part = part_of(whole, 5, 3)
    assert replace(part, train=whole.train, val=whole.val) == whole
    assert [sample.name for sample in part.train] == [f"{i:02}.png" for i in Subset.of(whole, 5, 3).train]
    assert part_of(whole, None, 3) is whole


def test_numbers_that_the_data_cannot_give_have_a_sentence() -> None:
    assert problems_of([split(20, 5)], [2, 25]) == []
    assert problems_of([split(20), split(30, category="nut")], [1, 25, 31]) == [
        "n_train: 25, 31 found, but the data has 20 normal images beside the test; expected at most 20. Write all for "
        "all images, or add images.",
        "n_train: 31 found, but category 'nut' has 30 normal images beside the test; expected at most 30. Write all "
        "for all images, or add images.",
    ]
    (problem,) = problems_of([split(20, 5)], [1, 2])
    assert "n_train: 1 found, but the data has held-out images; expected 2 or more" in problem
