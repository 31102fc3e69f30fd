"""Scores on given features agree with anomalib's and with plain implementations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.listing import list_images
from harness.detectors import SPADE, CFlow, Detector, PaDiM, PatchCore
from harness.detectors.base import State
from harness.detectors.maps import Scores, smooth, upsample
from tests.conftest import HAZELNUT, MOBILENET, real_data
from tests.detectors.cases import make


def test_channels_are_the_first_of_one_permutation() -> None:
    few, many = make("padim", n_features=10, seed=4), make("padim", n_features=30, seed=4)
    assert isinstance(few, PaDiM)
    assert isinstance(many, PaDiM)
    assert few._channels.tolist() == many._channels[:10].tolist()


@pytest.mark.parametrize("shape", [(64, 64), (40, 64), (9, 200)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_smoothed_maps_are_anomalibs_where_those_can_be_had(shape: tuple[int, int], mode: str) -> None:
    from anomalib.models.components import GaussianBlur2d

    patches = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0))
    upsampled = upsample(patches, shape, mode)
    ours = smooth(patches, shape, mode)
    assert ours.shape == upsampled.shape
    assert ours.mean() == pytest.approx(upsampled.mean().item(), rel=0.05)
    np.testing.assert_allclose(smooth(upsampled, shape), ours, rtol=1e-5)
    if min(shape) > 16:
        theirs = GaussianBlur2d(kernel_size=(33, 33), sigma=(4, 4), channels=1)(upsampled[:, None])[:, 0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(("sigma", "radius"), [(1.0, 2), (2.0, 8)])
def test_smoothing_has_the_given_kernel(sigma: float, radius: int) -> None:
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    smoothed = smooth(point, (21, 21), sigma=sigma, radius=radius)[0]
    assert (smoothed > 0).sum() == (2 * radius + 1) ** 2
    assert smoothed[10, 11] / smoothed[10, 10] == pytest.approx(np.exp(-1 / (2 * sigma**2)), rel=1e-5)


def test_a_smoothed_map_does_not_depend_on_the_other_images() -> None:
    patches = torch.rand(7, 14, 11, generator=torch.Generator().manual_seed(0))
    together = smooth(patches, (100, 90))
    for number in range(7):
        assert torch.equal(smooth(patches[number : number + 1], (100, 90))[0], together[number])


def images_of(paths: list[Path], detector: Detector) -> torch.Tensor:
    return torch.stack([detector.preprocessing(path) for path in paths])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(params=["random weights on toy data", pytest.param("mobilenetv2 on hazelnut", marks=real_data)])
def both(request: pytest.FixtureRequest, toy_tree: Path) -> Iterator[dict[str, Any]]:
    """The same backbone, layers and images for ours and anomalib's."""
    if "toy" in request.param:
        data, more = toy_tree / "plate", {"backbone": "resnet18", "layers": ("layer1", "layer2"), "weights": "random",
                                          "image_size": 64}  # fmt: skip
    else:
        data, more = HAZELNUT, {"backbone": "mobilenetv2_100", "layers": ("blocks.2", "blocks.4"),
                                "weights": str(MOBILENET), "image_size": 256}  # fmt: skip
    yield {"train": list_images(data / "train" / "good")[:20], "test": list_images(data / "test"), "arguments": more}


def test_patchcore_agrees_with_anomalib_given_the_same_coreset(both: dict[str, Any]) -> None:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    for k in (1, 9):
        ours = PatchCore(
            **both["arguments"], coreset_sampling_ratio=0.02, num_neighbors=k, progress=False, device="cpu"
        )
        ours.fit(both["train"])
        theirs = PatchcoreModel(list(ours.layers), ours.backbone, pre_trained=False, num_neighbors=k).eval()
        theirs.feature_extractor.feature_extractor.load_state_dict(ours.extractor().network.state_dict())
        state: State = ours.fitted()
        theirs.memory_bank = state["bank"]
        batch = images_of(both["test"][:6], ours)
        with torch.no_grad():
            expected = theirs(batch)
        scores: Scores = ours.score_batch(batch)
        assert relative(scores.images, expected.pred_score.reshape(-1)) < 1e-3
        assert relative(scores.maps, expected.anomaly_map[:, 0]) < 1e-3


@pytest.mark.slow
def test_padim_agrees_with_anomalib_given_the_same_channels(both: dict[str, Any]) -> None:
    from anomalib.models.image.padim.torch_model import PadimModel

    ours = PaDiM(**both["arguments"], n_features=40, progress=False, device="cpu").fit(both["train"])
    theirs = PadimModel(ours.backbone, list(ours.layers), pre_trained=False, n_features=40)
    theirs.feature_extractor.feature_extractor.load_state_dict(ours.extractor().network.state_dict())
    theirs.idx = ours.fitted()["channels"]
    with torch.no_grad():
        theirs.train()
        theirs.feature_extractor.eval()
        theirs(images_of(both["train"], ours))
        theirs.fit()
        theirs.eval()
        batch = images_of(both["test"][:6], ours)
        expected = theirs(batch)
    scores = ours.score_batch(batch)
    assert relative(scores.images, expected.pred_score.reshape(-1)) < 1e-3
    assert relative(scores.maps, expected.anomaly_map[:, 0]) < 1e-3


def test_cflows_likelihood_is_anomalibs(both: dict[str, Any]) -> None:
    from anomalib.models.image.cflow.utils import cflow_head, get_logp, positional_encoding_2d

    from harness.detectors.flows import Flow, build_flows, log_likelihood, positions

    encoding = positional_encoding_2d(16, 5, 7)
    np.testing.assert_allclose(positions(16, 5, 7), encoding.permute(1, 2, 0).reshape(35, 16), atol=1e-6)
    torch.manual_seed(0)
    ours = build_flows(Flow(2, 16, 1.9, 64, 1e-4, 1), {"layer": 12})["layer"]
    theirs = cflow_head(16, 2, 1.9, 12)
    # The same names and shapes, so what one has learnt the other can take.
    theirs.load_state_dict(ours.state_dict())
    vectors, conditions = torch.randn(35, 12), encoding.permute(1, 2, 0).reshape(35, 16)
    with torch.no_grad():
        latent, jacobian = theirs(vectors, [conditions])
        expected = get_logp(12, latent, jacobian) / 12
        likelihood = log_likelihood(ours, vectors, conditions)
    np.testing.assert_allclose(likelihood, expected, rtol=1e-4)


@pytest.mark.slow
@real_data
def test_the_row_of_a_plain_implementation_under_its_settings() -> None:
    """ind_knn_ad on the same images, network and settings (256, centre 224): image AUROC, pixel AUROC.

    Image AUROC on 8 bad and 2 good images moves in steps of 1/16: at most one pair may differ.
    """
    more = {"backbone": "mobilenetv2_100", "weights": str(MOBILENET), "center_crop": 224, "progress": False}
    rows: list[tuple[Detector, float, float]] = [
        (SPADE(**more, layers=["blocks.1", "blocks.2", "blocks.4"], num_neighbors=5), 0.938, 0.992),
        (PaDiM(**more, layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100), 0.813, 0.990),
        (PatchCore(**more, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.1, num_neighbors=3), 1.0, 0.983),
    ]  # type: ignore[misc]
    for detector, image, pixel in rows:
        metrics = detector.fit(HAZELNUT / "train" / "good").evaluate(HAZELNUT)
        assert metrics["image_AUROC"] is not None
        assert metrics["pixel_AUROC"] is not None
        assert metrics["image_AUROC"] == pytest.approx(image, abs=1 / 16 + 0.001), detector.name
        assert metrics["pixel_AUROC"] == pytest.approx(pixel, abs=0.01), detector.name


def test_upsampling_keeps_constants() -> None:
    for mode in ("nearest", "bilinear"):
        upsampled = upsample(torch.full((1, 3, 5), 2.0), (9, 11), mode)
        np.testing.assert_allclose(upsampled, np.full((1, 9, 11), 2.0), rtol=1e-6)


def test_cflow_learns(train: Path, unseen: list[Path]) -> None:
    """More epochs make the training images likelier."""

    def largest(epochs: int) -> float:
        state = make("cflow", max_epochs=epochs).fit(train).fitted()
        return float(state["largest.layer2"])

    assert isinstance(make("cflow"), CFlow)
    assert largest(3) > largest(1)
