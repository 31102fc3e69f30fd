"""PaDiM's Gaussians: the images in parts give what all images at once give, in memory that does not grow with them."""

from __future__ import annotations

import pytest
import torch

from harness.detectors import gaussian
from harness.detectors.gaussian import EPSILON, Vectors, fit_gaussians, mahalanobis

CPU = torch.device("cpu")
IMAGES, POSITIONS, CHANNELS = 40, 48, 9


@pytest.fixture
def vectors() -> Vectors:
    generator = torch.Generator().manual_seed(3)
    fine = torch.randn(IMAGES, 7, 6, 8, generator=generator) + 40
    coarse = torch.randn(IMAGES, 11, 3, 4, generator=generator) * 5
    return Vectors([fine, coarse], torch.randperm(18, generator=generator)[:CHANNELS])


def fitted(vectors: Vectors) -> tuple[torch.Tensor, torch.Tensor]:
    mean, factor = torch.empty(POSITIONS, CHANNELS), torch.empty(POSITIONS, CHANNELS, CHANNELS)
    fit_gaussians(vectors, mean, factor, CPU)
    return mean, factor


@pytest.mark.parametrize("images_in_a_part", [1, 7, IMAGES])
@pytest.mark.parametrize("positions_in_a_block", [5, POSITIONS])
def test_parts_give_what_all_images_give(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch, images_in_a_part: int, positions_in_a_block: int
) -> None:
    every = vectors.block(0, POSITIONS, slice(0, IMAGES)).double()
    deviations = every - every.mean(dim=1, keepdim=True)
    covariance = deviations.mT @ deviations / (IMAGES - 1) + EPSILON * torch.eye(CHANNELS, dtype=torch.float64)
    monkeypatch.setattr(gaussian, "BLOCK", 4 * CHANNELS**2 * positions_in_a_block)
    monkeypatch.setattr(gaussian, "VECTORS", 4 * CHANNELS * positions_in_a_block * images_in_a_part)
    mean, factor = fitted(vectors)
    torch.testing.assert_close(mean.double(), every.mean(dim=1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((factor @ factor.mT).double(), covariance, rtol=1e-4, atol=1e-4)
    solution = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), deviations.mT, upper=False)
    distances = mahalanobis(vectors, mean, factor, CPU)
    torch.testing.assert_close(distances.double(), solution.square().sum(dim=1).sqrt().T, rtol=1e-4, atol=1e-4)


def test_no_part_is_larger_than_its_limit(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "VECTORS", 20_000)
    parts = list(vectors.parts(3, 30))
    assert len(parts) == 2
    assert max(part.nbytes for _, part in parts) <= 20_000
    assert [images for images, _ in parts] == [slice(0, 20), slice(20, 40)]
