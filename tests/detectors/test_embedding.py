"""Vectors of patches that memory has no room for: each pass computes them, and no file holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data.listing import list_images
from harness.detectors.group import Group
from harness.detectors.memory import Memory
from harness.detectors.stages import Stages
from tests.detectors.cases import make

CASES: list[tuple[str, dict[str, Any], int]] = [
    ("mhpatchcore", {"layers": ["layer1", "layer2"], "memory_bank_size": 60, "local_coreset_size": 40}, 0),
    ("subspacead", {"layers": ["layer1", "layer2"], "fusion": "concatenate"}, 0),
    # Its state is the bank of all patches.
    ("anomalydino", {"backbone": "test_vit", "layers": ["blocks.4"], "rotations": 2}, 1),
    (
        "anomalydino",
        {"backbone": "test_vit", "layers": ["blocks.4"], "masking": "both", "foreground_threshold": 0.1},
        1,
    ),
]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the arrays in files. Every array beyond the limit is in a file, however small."""
    shapes: list[tuple[int, ...]] = []
    original = Memory._mapped

    def mapped(memory: Memory, shape: tuple[int, ...], size: int) -> Any:
        shapes.append(shape)
        return original(memory, shape, size)

    monkeypatch.setattr("harness.detectors.memory.ALWAYS", 0)
    monkeypatch.setattr(Memory, "_mapped", mapped)
    return shapes


@pytest.mark.parametrize(("name", "options", "banks"), CASES)
def test_files_hold_features_but_no_vectors_of_patches(
    toy_tree: Path, files: list[tuple[int, ...]], name: str, options: dict[str, Any], banks: int
) -> None:
    # 16 images are one batch: the last one has fewer.
    train = list_images(toy_tree / "plate" / "train" / "good")
    pictures = [*train, *train, *train][:19]
    expected = make(name, image_size=64, **options).fit(pictures)
    assert files == []
    one = make(name, image_size=64, memory_limit=1, **options).fit(pictures)
    assert expected.state is not None and one.state is not None
    assert expected.state.keys() == one.state.keys()
    assert all(torch.equal(expected.state[key], one.state[key]) for key in expected.state)
    # Features have four dimensions: images, channels, height, width.
    assert len([shape for shape in files if len(shape) == 4]) >= 1
    assert len([shape for shape in files if len(shape) == 2]) == banks


@pytest.mark.parametrize(("name", "options", "banks"), CASES)
def test_scores_of_computed_vectors_are_those_of_stored_ones(
    toy_tree: Path, files: list[tuple[int, ...]], name: str, options: dict[str, Any], banks: int
) -> None:
    del banks
    train = list_images(toy_tree / "plate" / "train" / "good")
    scores = []
    for limit in (10**9, 1):
        one = make(name, image_size=64, memory_limit=limit, **options)
        stage = one.score_stage("test", Group([one]))
        context = one.stage_context({"train": train, "test": train[:3]}, lambda _: None, None)
        scores.append(Stages([stage], context).value(stage))
        assert bool(files) == (limit == 1)
    stored, computed = scores
    assert torch.equal(stored.images, computed.images)
    assert torch.equal(stored.maps, computed.maps)
