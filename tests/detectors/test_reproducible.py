"""Scores depend on the seed and on nothing else: neither on batches nor on the order of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from harness.data.listing import list_images
from tests.detectors.cases import AT_ONCE, NAMES, evaluate_predictions, make
from tests.networks import network


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_scores_bit_for_bit(name: str, train: Path, unseen: list[Path]) -> None:
    first, second = (evaluate_predictions(make(name, seed=5).fit(train), unseen) for _ in range(2))
    assert first[0].tolist() == second[0].tolist()
    assert np.array_equal(first[1], second[1])
    assert np.isfinite(first[1]).all()
    assert first[1].shape == (len(unseen), 64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_model(name: str, train: Path, unseen: list[Path], tmp_path: Path) -> None:
    """With weights from a file, which no seed changes: only a detector that says so depends on the seed."""
    backbone = network(name)["backbone"]
    file = tmp_path / f"{backbone}.safetensors"
    # With some networks, two seeds begin with the same patch.
    torch.manual_seed(0)
    save_file(timm.create_model(backbone).state_dict(), file)
    scores = [
        evaluate_predictions(make(name, seed=seed, weights=str(file)).fit(train), unseen)[0].tolist() for seed in (0, 1)
    ]
    assert (scores[0] == scores[1]) == (not make(name).uses_seed)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_and_order_do_not_matter(
    name: str, train: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def maps(batch_size: int, reverse: bool) -> dict[str, Any]:
        from harness.detectors import base

        raw_predictions: dict[str, Any] = {}
        original = base.join

        def spy(samples: Any, raw: Any, size: Any) -> Any:
            raw_predictions.update(raw)
            return original(samples, raw, size)

        monkeypatch.setattr(base, "join", spy)
        if reverse:
            listed = base._mvtec_test
            monkeypatch.setattr(base, "_mvtec_test", lambda root: list(listed(root))[::-1])
        make(name, batch_size=batch_size).fit(train).evaluate(toy_tree / "plate")
        monkeypatch.undo()
        return raw_predictions

    one, many = maps(1, reverse=False), maps(7, reverse=True)
    assert set(one) == set(many)
    for path, (score, one_map) in one.items():
        assert many[path][0] == pytest.approx(score, rel=1e-4)
        np.testing.assert_allclose(many[path][1], one_map, rtol=1e-4, atol=1e-4 * np.abs(one_map).max())


@pytest.mark.parametrize("name", AT_ONCE)
def test_the_order_of_training_images_does_not_matter(name: str, train: Path, unseen: list[Path]) -> None:
    """A method that trains in epochs takes images in an order drawn from the seed; others learn from all at once."""
    paths = list_images(train)
    one, other = (evaluate_predictions(make(name).fit(order), unseen) for order in (paths, paths[::-1]))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-4 * np.abs(one[1]).max())
