"""Vectors of patches that memory has no room for: files have them, or each pass computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness.data.listing import list_images
from harness.detectors.group import Group
from harness.detectors.memory import Memory
from harness.detectors.pooled_patches import PooledPatches
from harness.detectors.stages import Stages
from tests.detectors.cases import make


class Case(NamedTuple):
    """A detector, and the number of two-dimensional arrays in files that its fit needs in any case."""

    name: str
    options: dict[str, Any]
    arrays: int


CASES = [
    Case("mhpatchcore", {"layers": ["layer1", "layer2"], "memory_bank_size": 60, "local_coreset_size": 40}, 0),
    # It selects from whitened patches of all images, and the selection has a copy.
    Case("mhpatchcore", {"layers": ["layer1"], "memory_bank_size": 60, "bank": "exact"}, 2),
    Case("subspacead", {"layers": ["layer1", "layer2"], "fusion": "concatenate"}, 0),
    # Its state is the bank of all patches.
    Case("anomalydino", {"backbone": "test_vit", "layers": ["blocks.4"], "rotations": 2}, 1),
    Case(
        "anomalydino",
        {"backbone": "test_vit", "layers": ["blocks.4"], "masking": "both", "foreground_threshold": 0.1},
        1,
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.name}-{CASES.index(case)}")
def case(request: pytest.FixtureRequest) -> Case:
    one: Case = request.param
    return one


@pytest.fixture
def train(toy_tree: Path) -> list[Path]:
    return list_images(toy_tree / "plate" / "train" / "good")


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


def test_vectors_lie_in_memory_in_files_or_nowhere(
    train: list[Path], files: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    # 16 images are one batch: the last one has a single image.
    pictures = [*train, *train, *train][:17]
    expected = make(case.name, image_size=64, **case.options).fit(pictures)
    assert files == []
    states = [expected.state]
    for share, vectors in ((0.5, 1), (0.0, 0)):
        monkeypatch.setattr("harness.detectors.memory.DISK_SHARE", share)
        files.clear()
        states.append(make(case.name, image_size=64, memory_limit=1, **case.options).fit(pictures).state)
        # Features have four dimensions: images, channels, height, width.
        assert len([shape for shape in files if len(shape) == 4]) >= 1
        assert len([shape for shape in files if len(shape) == 2]) == vectors + case.arrays
    for state in states[1:]:
        assert state is not None and expected.state is not None
        assert state.keys() == expected.state.keys()
        assert all(torch.equal(expected.state[key], state[key]) for key in state)


def test_scores_of_computed_vectors_are_those_of_stored_ones(
    train: list[Path], files: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.setattr("harness.detectors.memory.DISK_SHARE", 0.0)
    scores = []
    for limit in (10**9, 1):
        one = make(case.name, image_size=64, memory_limit=limit, **case.options)
        stage = one.score_stage("test", Group([one]))
        context = one.stage_context({"train": train, "test": train[:3]}, lambda _: None, None)
        scores.append(Stages([stage], context).value(stage))
        assert bool(files) == (limit == 1)
    stored, computed = scores
    assert torch.equal(stored.images, computed.images)
    assert torch.equal(stored.maps, computed.maps)


@pytest.mark.parametrize("limit", [10**9, 1])
def test_a_grid_computes_stored_vectors_once(
    train: list[Path], files: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    pooled: list[int] = []
    original = PooledPatches.embed

    def embed(self: PooledPatches, maps: Any) -> torch.Tensor:
        vectors = original(self, maps)
        pooled.append(len(vectors))
        return vectors

    monkeypatch.setattr(PooledPatches, "embed", embed)
    grid = [
        make("mhpatchcore", image_size=64, memory_limit=limit, pca_variance_ratio=ratio, local_coreset_size=size)
        for ratio in (0.9, 0.99)
        for size in (10, 20)
    ]
    group = Group(grid)
    roots = [one.fit_stage(group) for one in grid]
    stages = Stages(roots, grid[0].stage_context({"train": train}, lambda _: None, None))
    assert len([stages.value(root) for root in roots]) == len(grid)
    assert bool(files) == (limit == 1)
    # The first image alone gives the length of a vector.
    assert sum(pooled) == 1 + len(train)
