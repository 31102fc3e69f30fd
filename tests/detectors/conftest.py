"""Images of one category: normal ones to fit, and all test images."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.listing import list_images


@pytest.fixture
def train(toy_tree: Path) -> Path:
    return toy_tree / "plate" / "train" / "good"


@pytest.fixture
def unseen(toy_tree: Path) -> list[Path]:
    return list_images(toy_tree / "plate" / "test")
