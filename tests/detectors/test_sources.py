"""Batches of images: threads decode, and nobody can tell."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.common.errors import DataError
from harness.detectors import sources
from harness.detectors.sources import ImageSource, Preprocessing


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of different sizes, so that some take longer than others."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(11)]
    for number, path in enumerate(paths):
        side = 20 + 150 * (number % 3)
        Image.fromarray(rng.integers(0, 255, (side, side + 7, 3), dtype=np.uint8)).save(path)
    return paths


def source(files: list[Path], **options: int) -> ImageSource:
    return ImageSource(files, Preprocessing((32, 48)), batch_size=4, **options)


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
    for number in (5, 6):
        files[number].write_bytes(b"no image")
    before = threading.active_count()
    batches = source(files).batches()
    assert len(next(batches)) == 4
    assert threading.active_count() <= before + sources.MOST_DECODERS
    with pytest.raises(DataError, match=r"5\.png"):
        next(batches)
    assert threading.active_count() == before


def test_a_reader_that_stops_early_leaves_no_thread(files: list[Path]) -> None:
    before = threading.active_count()
    batches = source(files).batches()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
