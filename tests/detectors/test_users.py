"""A detector as a Python object: wrong arguments, images and files, and a fit after a fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models import vision_transformer
from torch.utils.data import Dataset

from harness.backbones.inject import backbone_weights
from harness.backbones.resolve import Weights
from harness.common.errors import ConfigError, DataError, HarnessError, NotFittedError, UnknownNameError, WeightsError
from harness.data.images import read_image
from harness.data.listing import list_images
from harness.detectors import Detector, load
from harness.detectors.features import build_extractor
from harness.detectors.sources import Preprocessing
from tests.detectors.cases import NAMES, evaluate_predictions, make


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: make("patchcore", coreset_sampling_ratio=0), "found 0, expected a share above 0"),
        (lambda: make("patchcore", num_neighbors=0), "num_neighbors: found 0"),
        (lambda: make("patchcore", upsampling="cubic"), "expected nearest or bilinear"),
        (lambda: make("padim", n_features=1000), "found 1000 of resnet18 layer2.layer3; expected 1 to 384"),
        (lambda: make("padim", backbone="resnet34", n_features=None), "none given, and the paper has no number"),
        (lambda: make("spade", num_neighbors=-1), "num_neighbors: found -1"),
        (lambda: make("spade", pooled_layer="layer9"), "no layer 'layer9'"),
        (lambda: make("cflow", condition_vector=10), "expected a multiple of 4"),
        (lambda: make("cflow", max_epochs=0), "max_epochs: found 0"),
        (lambda: make("padim", precision="int8"), "precision: found 'int8'"),
        (lambda: make("padim", layers=["layer8"]), "no layer 'layer8'"),
        (lambda: make("padim", backbone="resnet19"), "resnet19"),
        (lambda: make("padim", image_size=[64]), "expected pixels"),
        (lambda: make("padim", center_crop=80), "expected at most the image size"),
        (lambda: make("padim", n_features=True), "expected a whole number"),
        (lambda: make("cflow", lr="fast"), "lr: found 'fast'"),
        (lambda: make("padim", device="cuda:77"), "cuda:77"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_any_work(change: Callable[[], Detector], expected: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=expected):
        change()


def test_an_argument_that_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="image_sise"):
        make("padim", image_sise=32)


def test_bad_images_are_named(tmp_path: Path, train: Path) -> None:
    detector = make("padim")
    with pytest.raises(DataError, match="nothing found"):
        detector.fit(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        detector.fit(tmp_path / "empty")
    with pytest.raises(DataError, match="no images given"):
        detector.fit([])
    (tmp_path / "bad.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"bad\.png"):
        detector.fit([*list_images(train), tmp_path / "bad.png"])
    with pytest.raises(DataError, match="float64 array of shape"):
        detector.fit([np.zeros((8, 8, 3))])  # type: ignore[list-item]
    with pytest.raises(DataError, match="needs at least 2"):
        detector.fit(list_images(train)[:1])


def test_a_data_set_of_pairs_will_do(train: Path, unseen: list[Path]) -> None:
    class Pairs(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            pixels = torch.from_numpy(read_image(paths[index]).copy())
            return pixels.permute(2, 0, 1).float() / 255, 0

    paths = list_images(train)
    pairs = make("padim").fit(Pairs()[i] for i in range(len(paths)))  # type: ignore[arg-type]
    assert pairs.predict(unseen[0]).score == make("padim").fit(train).predict(unseen[0]).score


def test_a_missing_file_is_named_with_a_cache_too(train: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        make("padim", cache=tmp_path / "cache").fit([*list_images(train), tmp_path / "gone.png"])


def test_what_was_learnt_before_is_forgotten(train: Path, unseen: list[Path]) -> None:
    model = make("cflow").fit(list_images(train)[:4])
    model.predict(unseen[0])
    assert model.fit(train).predict(unseen[0]).score == make("cflow").fit(train).predict(unseen[0]).score


@pytest.mark.slow
def test_generators_are_left_as_they_were(train: Path, unseen: list[Path]) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = (torch.rand(1).item(), np.random.rand())
    for name in NAMES:
        torch.manual_seed(3)
        np.random.seed(3)
        make(name).fit(train).predict(unseen[0])
        assert (torch.rand(1).item(), np.random.rand()) == expected, name


def test_a_transformer_says_the_same_whoever_was_imported_before(unseen: list[Path]) -> None:
    """anomalib changes how timm resizes position embeddings, for the whole process."""
    from anomalib.models.components import TimmFeatureExtractor

    def features() -> torch.Tensor:
        extractor = build_extractor(
            "vit_tiny_patch16_224", ("blocks.1",), (96, 96), Weights("random", "random"), seed=0
        )
        return extractor(torch.stack([Preprocessing((96, 64))(unseen[0])]))["blocks.1"]

    original = vision_transformer.resample_abs_pos_embed
    before = features()
    assert vision_transformer.resample_abs_pos_embed is original
    with backbone_weights("random"):
        theirs = TimmFeatureExtractor("vit_tiny_patch16_224", ["blocks.1"])
    assert torch.equal(features(), before)
    their_features = theirs(torch.stack([Preprocessing((96, 64))(unseen[0])]))["blocks.1"]
    np.testing.assert_allclose(their_features.detach(), before, rtol=1e-3, atol=1e-4)


def test_nothing_learnt_nothing_scored(unseen: list[Path], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"Call fit\(\)"):
        make("spade").predict(unseen[0])
    with pytest.raises(NotFittedError, match=r"Call fit\(\)"):
        make("spade").save(tmp_path / "m.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a model", json.dumps({"a": 1}).encode()])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="no saved detector"):
        load(path)
    with pytest.raises(WeightsError, match="no saved detector"):
        load(tmp_path / "absent.safetensors")


def test_weights_are_never_random_unasked() -> None:
    with pytest.raises(HarnessError, match="weights: none found"):
        make("padim", weights="auto")
    with pytest.raises(TypeError, match="allow_random"):
        make("padim", weights="auto", allow_random=True)


def test_fewer_images_than_neighbours_is_said(train: Path, unseen: list[Path]) -> None:
    with pytest.warns(UserWarning, match="50 expected, 8 used"):
        few = make("spade", num_neighbors=50).fit(train)
    all_ = make("spade", num_neighbors=8).fit(train)
    assert few.predict(unseen[0]).score == all_.predict(unseen[0]).score


def test_fewer_distinct_patches_than_asked_for_is_said() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    with pytest.warns(UserWarning, match="patches expected, only"):
        make("patchcore", coreset_sampling_ratio=1.0).fit([grey, grey])


def test_weights_with_common_memory_are_saved(train: Path, tmp_path: Path) -> None:
    detector = make("padim").fit(train)
    norm = detector.extractor().network["layer1"][0].bn1
    norm.bias = norm.weight
    loaded = load(detector.save(tmp_path / "tied.safetensors"), "cpu", progress=False)
    images = list_images(train)
    assert np.array_equal(evaluate_predictions(loaded, images)[1], evaluate_predictions(detector, images)[1])
