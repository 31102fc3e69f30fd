"""Vectors of patches that memory has no room for: files have them, or each pass computes them."""

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

# The number of two-dimensional arrays in files that a fit needs in any case.
CASES: list[tuple[str, dict[str, Any], int]] = [
    ("mhpatchcore", {"layers": ["layer1", "layer2"], "memory_bank_size": 60, "local_coreset_size": 40}, 0),
    # It selects from whitened patches of all images, and the selection has a copy.
    ("mhpatchcore", {"layers": ["layer1"], "memory_bank_size": 60, "bank": "exact"}, 2),
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
def test_vectors_lie_in_memory_in_files_or_nowhere(
    toy_tree: Path,
    files: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    banks: int,
) -> None:
    # 16 images are one batch: the last one has a single image.
    train = list_images(toy_tree / "plate" / "train" / "good")
    pictures = [*train, *train, *train][:17]
    expected = make(name, image_size=64, **options).fit(pictures)
    assert files == []
    states = [expected.state]
    for share, vectors in ((0.5, 1), (0.0, 0)):
        monkeypatch.setattr("harness.detectors.memory.DISK_SHARE", share)
        files.clear()
        states.append(make(name, image_size=64, memory_limit=1, **options).fit(pictures).state)
        # Features have four dimensions: images, channels, height, width.
        assert len([shape for shape in files if len(shape) == 4]) >= 1
        assert len([shape for shape in files if len(shape) == 2]) == vectors + banks
    for state in states[1:]:
        assert state is not None and expected.state is not None
        assert state.keys() == expected.state.keys()
        assert all(torch.equal(expected.state[key], state[key]) for key in state)


@pytest.mark.parametrize(("name", "options", "banks"), CASES)
def test_scores_of_computed_vectors_are_those_of_stored_ones(
    toy_tree: Path,
    files: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    banks: int,
) -> None:
    del banks
    monkeypatch.setattr("harness.detectors.memory.DISK_SHARE", 0.0)
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
