"""Batches of images: threads decode, and nobody can tell."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.common.errors import ConfigError, DataError
from harness.data import images
from harness.data.images import RGB
from harness.detectors import PaDiM, sources
from harness.detectors.sources import ImageLike, ImageSource, Preprocessing


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of different sizes, so that some take longer than others."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(11)]
    for number, path in enumerate(paths):
        side = 20 + 150 * (number % 3)
        Image.fromarray(rng.integers(0, 255, (side, side + 7, 3), dtype=np.uint8)).save(path)
    return paths


def source(items: Sequence[ImageLike], **options: int) -> ImageSource:
    return ImageSource(items, Preprocessing((32, 48)), **{"batch_size": 4, **options})


def others(before: set[threading.Thread]) -> set[threading.Thread]:
    """Threads that were not there before."""
    return set(threading.enumerate()) - before


@pytest.mark.parametrize("decoders", [1, 3])
def test_batches_are_the_images_in_order(files: list[Path], decoders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.threads, "count", lambda: decoders)
    batches = list(source(files).batches())
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert torch.equal(torch.cat(batches), torch.stack([source(files)[index] for index in range(len(files))]))


def test_worker_processes_give_the_same_batches(files: list[Path]) -> None:
    here, there = (torch.cat(list(source(files, num_workers=number).batches())) for number in (0, 1))
    assert torch.equal(here, there)


def test_the_first_damaged_file_is_named_and_no_thread_is_left(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.threads, "count", lambda: 8)
    for number in (9, 10):
        files[number].write_bytes(b"no image")
    before = set(threading.enumerate())
    batches = source(files, batch_size=8).batches()
    assert len(next(batches)) == 8
    # Each image of a batch could have a thread.
    assert 0 < len(others(before)) <= sources.MOST_DECODERS < 8
    with pytest.raises(DataError, match=r"9\.png"):
        next(batches)
    assert not others(before)


def test_a_reader_that_stops_early_leaves_no_thread(files: list[Path]) -> None:
    before = set(threading.enumerate())
    batches = source(files).batches()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not others(before)


def test_one_open_image_may_be_several_items(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes an open image at its first use, which two threads must not do at once."""
    monkeypatch.setattr(sources.threads, "count", lambda: 4)
    for file in files:
        (batch,) = source([Image.open(file)] * 4).batches()
        assert torch.equal(batch, source([file])[0].expand(4, -1, -1, -1))


def test_large_files_are_read_one_at_a_time(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.threads, "count", lambda: 4)
    monkeypatch.setattr(images, "LARGE", 100 * 100)
    reading, at_once = Counter[bool](), Counter[bool]()

    def read_slowly(path: Path) -> RGB:
        large = images.is_large(path)
        with counting:
            reading[large] += 1
            at_once[large] = max(at_once[large], reading[large])
        barrier.wait() if not large else time.sleep(0.01)
        with counting:
            reading[large] -= 1
        return images.read_image(path)

    # Small files meet here: four of them are read at once.
    barrier, counting = threading.Barrier(4, timeout=60), threading.Lock()
    monkeypatch.setattr(sources, "read_image", read_slowly)
    small, large = files[::3], [file for number, file in enumerate(files) if number % 3]
    assert len(list(source(small).batches())) == 1
    assert len(list(source(large, batch_size=7).batches())) == 1
    assert at_once == {False: 4, True: 1}


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"batch_size": -1}, {"num_workers": -1}])
def test_numbers_of_images_and_workers_are_checked(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))}: found"):
        PaDiM("resnet18", ["layer1"], weights="random", n_features=5, **option)  # type: ignore[arg-type]
