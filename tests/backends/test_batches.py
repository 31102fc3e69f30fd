"""Images of an epoch: augmentation, mixing, sampling and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.backends.supervised.augment import _Rotate90, augmentation, mixing
from harness.backends.supervised.decoding import decode, to_size
from harness.backends.supervised.fold_data import FoldDataset
from harness.backends.supervised.settings import CHOICES
from tests.backends.trainings import SIZE, fold_data, settings, squares


def test_mixup_and_cutmix_targets_say_what_was_mixed() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0] = torch.arange(4).view(4, 1, 1) / 4
    targets = torch.tensor([0, 1, 2, 3])
    for name in ("mixup", "cutmix"):
        mixer = mixing(name, 1.0, 1.0, 4)
        assert mixer is not None
        mixed, shares = mixer(images, targets)
        assert shares.sum(dim=1).tolist() == pytest.approx([1] * 4)
        # Each image is mixed with the one before it: its mean brightness is that of its shares.
        expected = (shares * torch.arange(4) / 4).sum(dim=1)
        assert mixed[:, 0].mean(dim=(1, 2)).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert 0 < float(shares.max()) < 1


def test_images_that_do_not_fit_go_to_a_file(tmp_path: Path) -> None:
    from PIL import Image

    paths = []
    for i in range(3):
        Image.new("RGB", (20 + i, 10), (i, 50, 100)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    inside = decode(paths, (8, 16), tmp_path, None)
    outside = decode(paths, (8, 16), tmp_path, 100)
    assert isinstance(outside, np.memmap)
    assert np.array_equal(inside, outside)
    assert inside.shape == (3, 3, 8, 16)
    assert inside[2, :, 0, 0].tolist() == [2, 50, 100]
    same = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    assert np.array_equal(to_size(same, (8, 16)), same.transpose(2, 0, 1))


@pytest.mark.parametrize("name", CHOICES["augment"])
def test_augmentation_changes_training_images_only(name: str) -> None:
    pixels, targets = squares()
    augment = augmentation(name)
    if name == "none":
        assert augment is None
        return
    augmented = FoldDataset(pixels, targets, range(24), augment, seed=1)
    again, other = (FoldDataset(pixels, targets, range(24), augment, seed=seed) for seed in (1, 2))
    images = [augmented[i][0] for i in range(24)]
    assert all(image.shape == (3, *SIZE) and image.dtype == torch.uint8 for image in images)
    # A function of seed and image, whatever was drawn before.
    assert torch.equal(again[20][0], images[20])
    assert any(not torch.equal(other[i][0], images[i]) for i in range(24))
    assert any(not torch.equal(images[i], torch.from_numpy(pixels[i])) for i in range(24))
    plain = FoldDataset(pixels, targets, range(24))
    assert torch.equal(plain[3][0], torch.from_numpy(pixels[3]))


@pytest.mark.parametrize(
    ("strength", "shares"), [(1.0, [1 / 3, 1 / 3, 1 / 3]), (0.5, [9 / 13, 3 / 13, 1 / 13]), (0.0, [0.9, 0.09, 0.01])]
)
def test_the_sampler_draws_rare_labels_more_often(strength: float, shares: list[float]) -> None:
    targets = (
        np.array([0] * 81 + [1] * 9 + [2], dtype=np.int64) if strength == 0.5 else np.repeat([0, 1, 2], (90, 9, 1))
    )
    count = len(targets)
    data = fold_data(pixels=np.zeros((count, 3, *SIZE), np.uint8), targets=targets, train_indices=range(count))
    sampler, none = settings(balance="sampler", balance_strength=strength), settings()
    drawn = np.concatenate([targets[data.order(sampler, epoch)] for epoch in range(60)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx(shares, abs=0.03)
    assert sorted(data.order(none, 0)) == list(range(count))
    assert data.order(none, 0) != data.order(none, 1)


def test_a_last_batch_of_one_image_is_dropped() -> None:
    assert [len(batch) for batch in fold_data(train_indices=range(17)).batches(settings(), 0)] == [8, 8]
    assert [len(batch) for batch in fold_data(train_indices=range(18)).batches(settings(), 0)] == [8, 8, 2]


def test_processes_share_the_images_of_an_epoch() -> None:
    data, train_settings = fold_data(train_indices=range(19)), settings()
    shares = [[i for batch in data.batches(train_settings, 0, (rank, 2)) for i, _ in batch] for rank in range(2)]
    assert [len(share) for share in shares] == [10, 10]
    # 19 images for 20 places: the first one has two.
    assert sorted([*shares[0], *shares[1]]) == sorted([*range(19), data.order(train_settings, 0)[0]])


def test_each_draw_of_an_image_has_an_augmentation_of_its_own() -> None:
    pixels, targets = squares()
    drawn = FoldDataset(pixels, targets, range(24), augmentation("heavy"), seed=1)
    views = [drawn[5, draw][0] for draw in range(6)]
    assert len({view.numpy().tobytes() for view in views}) == 6
    assert torch.equal(drawn[5, 4][0], views[4])
    # Without a second draw, nothing depends on the number of the draw.
    assert torch.equal(drawn[5][0], views[0])


@pytest.mark.parametrize("processes", [1, 2])
def test_the_sampler_numbers_the_draws_of_an_image(processes: int) -> None:
    targets = np.repeat([0, 1], (20, 2))
    data = fold_data(pixels=np.zeros((22, 3, *SIZE), np.uint8), targets=targets, train_indices=range(22), outputs=2)
    train_settings = settings(balance="sampler")
    shares = [data.batches(train_settings, 3, (rank, processes)) for rank in range(processes)]
    draws = [draw for share in shares for batch in share for draw in batch]
    assert len(set(draws)) == len(draws) == 22
    rare = [number for index, number in draws if index == 20]
    assert len(rare) > 2
    assert sorted(rare) == list(range(len(rare)))


def test_a_part_of_the_batches_is_mixed_by_mixup_or_cutmix() -> None:
    mixer = mixing("mixup+cutmix", 1.0, 0.6, 2)
    assert mixer is not None
    images, targets = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]), torch.tensor([0, 1])
    torch.manual_seed(0)
    kinds = {"none": 0, "cutmix": 0, "mixup": 0}
    for _ in range(400):
        mixed, shares = mixer(images, targets)
        # CutMix leaves each pixel as it was in one of the images; MixUp makes all pixels of an image equal.
        if shares.ndim == 1:
            assert torch.equal(mixed, images)
            kinds["none"] += 1
        else:
            kinds["mixup" if mixed[0].min() > 0 else "cutmix"] += 1
    # Expected: 160 of 400 without, and 120 of each kind; the standard deviation is at most 10.
    assert kinds["none"] == pytest.approx(160, abs=40)
    assert kinds["mixup"] == pytest.approx(120, abs=40)


def test_heavy_rotates_by_multiples_of_90_degrees() -> None:
    rotate = _Rotate90()
    image = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    torch.manual_seed(0)
    results = {tuple(rotate(image).flatten().tolist()) for _ in range(50)}
    assert results == {tuple(torch.rot90(image, k, (1, 2)).flatten().tolist()) for k in range(4)}
    oblong = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    results = {tuple(rotate(oblong).flatten().tolist()) for _ in range(50)}
    assert results == {(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)}
    transforms = getattr(augmentation("heavy"), "transforms", [])
    assert any(isinstance(transform, _Rotate90) for transform in transforms)
