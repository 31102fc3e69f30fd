"""Detectors on features of foundation models agree with anomalib's on the same features, and with slow references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from harness.backbones.inject import backbone_weights
from harness.backbones.networks import licence_notes
from harness.common.errors import ConfigError, DataError
from harness.data.listing import list_images
from harness.detectors.base import Detector
from harness.detectors.features import CLASS_TOKEN, Features, rotate
from harness.detectors.folds import Fold, in_fold
from harness.detectors.foreground import foreground
from harness.detectors.group import Group
from harness.detectors.maps import mean_of_largest
from harness.detectors.merge_reduce import MergeReduce, farthest_first
from harness.detectors.neighbours import largest_products_in_prefixes
from harness.detectors.pooled_patches import _averages, pooled_patches
from harness.detectors.stages import Stages
from tests.detectors.cases import evaluate_predictions, make

Floats = npt.NDArray[np.float64]


@pytest.fixture
def train(toy_tree: Path) -> list[Path]:
    return list_images(toy_tree / "plate" / "train" / "good")


class SameFeatures(nn.Module):
    """Stands in the place of anomalib's extractor, so that both models see the features of one network."""

    num_prefix_tokens = 1

    def __init__(self, detector: Detector, tokens: bool | None = None) -> None:
        super().__init__()
        self.extractor, self.tokens = detector.extractor(), tokens
        self.register_parameter("place", nn.Parameter(torch.zeros(1)))  # RAD asks for the device of a parameter

    def train(self, mode: bool = True) -> SameFeatures:
        """The network stays as it is: the normalisation of a batch would give other features."""
        del mode
        return self

    @property
    def out_dims(self) -> list[int]:
        return [values.shape[1] for values in self.extractor(torch.zeros(1, 3, 64, 64)).values()]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.extractor(images)
        if self.tokens is None:
            return maps
        patches = {name: layer.flatten(2).mT for name, layer in maps.items() if CLASS_TOKEN not in name}
        if not self.tokens:
            return patches
        last = next(layer.flatten(1)[:, None] for name, layer in maps.items() if CLASS_TOKEN in name)
        return {name: torch.cat([last, layer], dim=1) for name, layer in patches.items()}


def batch(detector: Detector, paths: list[Path]) -> torch.Tensor:
    return torch.stack([detector.preprocessing(path) for path in paths])


def assert_same_scores(ours: Detector, theirs: nn.Module, paths: list[Path], **tolerance: float) -> None:
    with torch.no_grad():
        expected = theirs.eval()(batch(ours, paths)).pred_score.flatten().numpy()
    scores, _ = evaluate_predictions(ours, paths)
    assert np.ptp(scores) > 10 * max(tolerance.get("atol", 0), tolerance.get("rtol", 0) * np.abs(scores).max())
    np.testing.assert_allclose(scores, expected, **tolerance)


# ---- AnomalyDINO


@pytest.mark.parametrize(("k", "masking"), [(1, "none"), (3, "none"), (2, "both")])
def test_anomalydino_scores_as_anomalib(train: list[Path], unseen: list[Path], k: int, masking: str) -> None:
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel

    # Random features are smaller than those that the threshold of the paper is for.
    ours = make("anomalydino", num_neighbors=k, masking=masking, foreground_threshold=2.0).fit(train)
    with backbone_weights("random"):
        theirs = AnomalyDINOModel(num_neighbours=k, masking=masking == "both")

    def masks(features: Any, grid: tuple[int, int]) -> Any:
        # Of two possible signs, scikit-learn's version chooses anomalib's. A test of its own compares our masks.
        return foreground(torch.from_numpy(features).mT.unflatten(2, grid), 2.0).flatten(1).numpy()

    theirs.compute_background_masks = masks
    theirs.feature_encoder, theirs.last_layer, theirs.patch_size = SameFeatures(ours, False), "blocks.5", 16
    theirs.train()(batch(ours, train))
    theirs.fit()
    assert_same_scores(ours, theirs, unseen, rtol=0, atol=1e-4)


def test_the_foreground_is_that_of_a_principal_component() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 12, 9, 11))
    # An object in the centre, in three images with the other sign, and one without an object.
    direction = rng.normal(size=12)
    for number in range(5):
        maps[number, :, 2:7, 3:8] += (8 if number < 2 else -8) * direction[:, None, None]
    masks = foreground(torch.from_numpy(maps).float(), 6.0).numpy()
    for image, mask in zip(maps, masks, strict=True):
        first = PCA(1).fit_transform(image.reshape(12, -1).T).reshape(9, 11)
        expected = first > 6.0
        if expected[1:7, 2:8].sum() <= 0.35 * 36:
            expected = -first > 6.0
        kernel = np.ones((3, 3), np.uint8)
        expected = cv2.morphologyEx(cv2.dilate(expected.astype(np.uint8), kernel), cv2.MORPH_CLOSE, kernel)
        assert np.array_equal(mask, expected.astype(bool))
    assert masks[:5].any(axis=(1, 2)).all()
    assert not masks[5].all()


def test_without_an_object_only_the_bank_of_objects_fails(train: list[Path], unseen: list[Path]) -> None:
    with pytest.raises(DataError, match="no patch of the training images shows an object"):
        make("anomalydino", masking="both", foreground_threshold=1e6).fit(train)
    blind = make("anomalydino", masking="test", foreground_threshold=1e6).fit(train)
    assert blind.predict(unseen[0]).score == 0
    group = [make("anomalydino", masking=masking, foreground_threshold=1e6) for masking in ("none", "test", "both")]
    context = group[0].stage_context({"train": train, "test": unseen}, lambda _: None, None)
    roots = [detector.score_stage("test", Group(group)) for detector in group]
    stages = Stages(roots, context)
    assert float(stages.value(roots[0]).images.min()) > 0
    assert float(stages.value(roots[1]).images.max()) == 0
    assert stages.warnings(roots[1]) == [
        f"masking: no object found in {len(unseen)} of {len(unseen)} images; their scores are 0"
    ]
    with pytest.raises(DataError, match="shows an object"):
        stages.value(roots[2])


@pytest.mark.parametrize("k", [1, 4])
def test_largest_products_do_not_depend_on_other_prefixes(k: int) -> None:
    generator = torch.Generator().manual_seed(1)
    bank, queries = (torch.randn(n, 7, generator=generator) for n in (1100, 50))
    sizes = [2, 511, 512, 700, 1100]
    together = largest_products_in_prefixes(queries, bank, sizes, k)
    for size, products in zip(sizes, together, strict=True):
        expected = (queries @ bank[:size].T).sort(dim=1, descending=True).values[:, :k]
        torch.testing.assert_close(products, expected)
        assert torch.equal(products, largest_products_in_prefixes(queries, bank, [size], k)[0])


# ---- RAD


@pytest.mark.parametrize(("k", "radius"), [(150, 1), (3, 0), (3, 2)])
def test_rad_scores_as_anomalib(train: list[Path], unseen: list[Path], k: int, radius: int) -> None:
    from anomalib.models.image.rad.torch_model import RadModel

    ours = make("rad", layers=["blocks.1", "blocks.3", "blocks.5"], k_image=k, pos_radius=radius).fit(train)
    theirs = RadModel("test_vit", pre_trained=False, layers=[1, 3, 5], k_image=k, pos_radius=radius)
    theirs.feature_extractor, theirs.patch_size = SameFeatures(ours, True), 16
    theirs.train()(batch(ours, train))
    theirs.build_memory_bank()
    assert_same_scores(ours, theirs, unseen, rtol=0, atol=1e-4)
    with torch.no_grad():
        expected = theirs.eval()(batch(ours, unseen)).anomaly_map[:, 0].numpy()
    np.testing.assert_allclose(evaluate_predictions(ours, unseen)[1], expected, atol=1e-4)


# ---- MH-PatchCore


class Pooled(nn.Module):
    """`pooled_patches` as a module."""

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return pooled_patches({"fine": fine, "coarse": coarse}, ("fine", "coarse"))


def test_exported_pooled_patches_take_any_number_of_images() -> None:
    def maps(images: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(images)
        return torch.randn(images, 5, 8, 8, generator=generator), torch.randn(images, 7, 4, 4, generator=generator)

    batch = torch.export.Dim("batch")
    # As in a process that exports a saved model, whose averages nobody computed before.
    _averages.cache_clear()
    # Not strict, as ONNX's exporter: a strict one of older versions also traces NumPy.
    exported = torch.export.export(Pooled(), maps(2), dynamic_shapes=({0: batch}, {0: batch}), strict=False).module()
    for images in (1, 3):
        torch.testing.assert_close(exported(*maps(images)), Pooled()(*maps(images)))


@pytest.mark.parametrize("layers", [("layer2", "layer3"), ("layer1", "layer2", "layer3")])
def test_pooled_patches_are_those_of_anomalib(train: list[Path], layers: tuple[str, ...]) -> None:
    from anomalib.models.image.mh_patchcore.torch_model import MHPatchcoreModel

    detector = make("mhpatchcore", layers=layers)
    theirs = MHPatchcoreModel("resnet18", layers, pre_trained=False)
    theirs.feature_extractor = SameFeatures(detector)
    images = batch(detector, train[:2])
    expected = theirs.train()(images)
    pooled = pooled_patches(detector.extractor()(images), layers).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.slow
def test_mhpatchcore_scores_as_anomalib(train: list[Path], unseen: list[Path], k: int) -> None:
    from anomalib.models.image.mh_patchcore.torch_model import MHPatchcoreModel

    # 8 images of 32 x 32 patches: more vectors than channels, which anomalib's incremental decomposition needs.
    options = {"memory_bank_size": 60, "local_coreset_size": 40, "num_neighbors": k}
    ours = make("mhpatchcore", image_size=128, layers=["layer1"], **options).fit(train)
    theirs = MHPatchcoreModel("resnet18", ("layer1",), pre_trained=False, **options)
    theirs.feature_extractor = SameFeatures(ours)
    embedded = theirs.train()(batch(ours, train))
    theirs.pca.update(embedded)
    theirs.pca.finalize()
    theirs.covariance.update(theirs.pca(embedded))
    theirs.covariance.finalize()
    theirs.memory_bank.update(theirs.covariance(theirs.pca(embedded)))
    theirs.memory_bank.finalize()
    assert ours.state is not None
    assert ours.state["whitening"].shape[1] == int(theirs.pca.num_components)
    assert_same_scores(ours, theirs, unseen, rtol=1e-4, atol=0)


def test_merge_and_reduce_keeps_far_points_in_little_memory() -> None:
    rng = np.random.default_rng(2)
    centers = rng.normal(size=(5, 3)) * 100
    points = torch.from_numpy((centers[rng.integers(5, size=900)] + rng.normal(size=(900, 3))).astype(np.float32))
    stream = MergeReduce(10)
    for block in points.split(64):
        stream.add(block)
        # As in a binary counter, a level has one coreset at most.
        assert all(len(coreset) <= 10 for coreset in stream._levels.values())
    assert len(stream._levels) == bin(15).count("1")
    selected = stream.coreset(5)
    assert len({int(np.linalg.norm(centers - point, axis=1).argmin()) for point in selected.numpy()}) == 5
    assert torch.equal(stream.coreset(8)[:5], selected)
    assert torch.equal(farthest_first(points[:4], 9), points[:4])


# ---- SubspaceAD


@pytest.mark.parametrize(("fusion", "share"), [("mean", 0.5), ("concatenate", 0.99), ("mean", 1.0)])
def test_subspacead_is_a_residual_of_principal_components(
    train: list[Path], unseen: list[Path], fusion: str, share: float
) -> None:
    layers = ("blocks.2", "blocks.4")
    ours = make("subspacead", backbone="test_vit", layers=layers, image_size=96, fusion=fusion,
                explained_variance=share).fit(train)  # fmt: skip

    def fused(paths: list[Path]) -> tuple[Floats, tuple[int, int]]:
        maps = [ours.extractor()(batch(ours, paths))[layer].double().numpy() for layer in layers]
        joined = np.mean(maps, axis=0) if fusion == "mean" else np.concatenate(maps, axis=1)
        return joined.transpose(0, 2, 3, 1).reshape(-1, joined.shape[1]), joined.shape[2:]

    normal, _ = fused(train)
    # A share of 1 keeps all components, which scikit-learn asks for by leaving out the number.
    model = PCA(share if share < 1 else None, svd_solver="full").fit(normal)
    vectors, grid = fused(unseen)
    residuals = ((vectors - model.inverse_transform(model.transform(vectors))) ** 2).sum(axis=1)
    upsampled = F.interpolate(torch.from_numpy(residuals.reshape(-1, 1, *grid)), (96, 96), mode="bilinear")
    scores, maps = evaluate_predictions(ours, unseen)
    if share == 1:
        # There are more vectors than channels, so nothing is outside the space of all components.
        assert np.abs(scores).max() < 1e-6
        return
    from scipy.ndimage import gaussian_filter

    expected = np.stack([gaussian_filter(image, 4, mode="mirror") for image in upsampled[:, 0].numpy()])
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-4 * expected.max())
    largest = np.sort(expected.reshape(len(expected), -1))[:, -92:].mean(axis=1)
    np.testing.assert_allclose(scores, largest, rtol=1e-4)


def test_layers_of_different_widths_are_concatenated_or_refused() -> None:
    assert make("subspacead", fusion=None).parameters()["fusion"] == "concatenate"
    assert make("subspacead", fusion=None, layers=["layer2"]).parameters()["fusion"] == "mean"
    with pytest.raises(ConfigError, match="found mean of layers with 128, 256 channels"):
        make("subspacead", fusion="mean")


# ---- what they share


def test_rotations_turn_around_the_centre_and_keep_the_border() -> None:
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 6] = 1.0
    assert rotate(image, 0) is image
    half = rotate(image, 180)
    assert float(half[0, 0, 2, 2]) == pytest.approx(1.0, abs=1e-5)
    # Two pixels right of the centre are two pixels above the centre after a quarter turn, whatever the shape.
    quarter = rotate(image, 90)
    assert float(quarter[0, 0, 0, 4]) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(rotate(torch.full((1, 2, 6, 8), 3.0), 37), torch.tensor(3.0))


def test_rotated_features_follow_their_image_and_its_fold(train: list[Path]) -> None:
    detector = make("subspacead", rotations=3)
    features = detector.features("train", Group([detector]))
    assert features.rotations == 3
    assert detector.features("test", Group([detector])).rotations == 1
    fold = Fold(0, 4)
    context = detector.stage_context({"train": train}, lambda _: None, None)
    inside = in_fold(Features("val", features.layers, "fp32", features.seed, rotations=3), fold)
    stages = Stages([features, inside], context)
    whole, part = stages.value(features)["layer2"], stages.value(inside)["layer2"]
    assert len(whole) == 3 * len(train)
    chosen = np.flatnonzero(fold.images(len(train)))
    assert torch.equal(part, whole[[3 * image + turn for image in chosen for turn in range(3)]])
    # The second rotation of an image is that of the rotated image.
    turned = detector.extractor()(rotate(batch(detector, train[1:2]), 120))["layer2"]
    torch.testing.assert_close(whole[4:5], turned, rtol=1e-3, atol=1e-4)


def test_a_mean_of_the_largest_has_one_value_at_least() -> None:
    values = torch.arange(400.0)[None]
    assert float(mean_of_largest(values)) == pytest.approx(397.5)
    assert float(mean_of_largest(values[:, :50])) == 49


def test_the_licence_of_dinov3_is_said() -> None:
    (note,) = licence_notes(["vit_small_patch16_dinov3", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
    assert "vit_small_patch16_dinov3: weights of DINOv3 have a licence of their own" in note


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("anomalydino", {"backbone": "resnet18", "layers": ["layer4"]}, "expects a plain vision transformer"),
        ("anomalydino", {"layers": ["blocks.3", "blocks.4"]}, "expects one block"),
        ("anomalydino", {"masking": "all"}, "expected none, test, both"),
        ("anomalydino", {"foreground_threshold": 0}, "expected a number above 0"),
        ("anomalydino", {"rotations": 0}, "rotations: found 0"),
        ("rad", {"backbone": "resnet18", "layers": ["layer4"]}, "expects a plain vision transformer"),
        ("rad", {"backbone": "vit_base_patch16_siglip_224"}, "has no class token"),
        ("rad", {"k_image": 0}, "k_image: found 0"),
        ("rad", {"pos_radius": -1}, "pos_radius: found -1"),
        ("mhpatchcore", {"pca_variance_ratio": 1.5}, "above 0 and up to 1"),
        ("mhpatchcore", {"covariance_shrinkage": 2}, "a number from 0 to 1"),
        ("mhpatchcore", {"bank": "random"}, "expected merge_reduce or exact"),
        ("subspacead", {"explained_variance": 0}, "above 0 and up to 1"),
        ("subspacead", {"explained_variance": True}, "above 0 and up to 1"),
        ("subspacead", {"fusion": "sum"}, "expected mean or concatenate"),
    ],
)
def test_wrong_values_are_named(name: str, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make(name, **change)
