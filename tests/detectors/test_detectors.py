"""What every registered detector promises, and how far it agrees with anomalib's on the same features."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import vision_transformer
from torch.utils.data import Dataset

from harness import registry
from harness.backbones.inject import backbone_weights
from harness.backbones.resolve import Weights
from harness.common.errors import ConfigError, DataError, HarnessError, NotFittedError, UnknownNameError, WeightsError
from harness.data.images import read_image
from harness.data.listing import list_images
from harness.detectors import SPADE, CFlow, Detector, PaDiM, PatchCore, load
from harness.detectors.base import State
from harness.detectors.features import build_extractor
from harness.detectors.maps import Scores, blur, upsample
from harness.detectors.sources import Preprocessing
from tests.conftest import HAZELNUT, MOBILENET, real_data
from tests.networks import network, only_transformers

SMALL: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset_sampling_ratio": 0.2, "num_neighbors": 3},
    "padim": {"n_features": 20},
    "spade": {"num_neighbors": 3},
    "cflow": {"max_epochs": 1, "coupling_blocks": 2, "condition_vector": 16},
    "mhpatchcore": {"memory_bank_size": 40, "local_coreset_size": 30},
}
IN_A_TRANSFORMER = {"spade": {"pooled_layer": "blocks.5"}, "anomalydino": {"layers": ["blocks.5"]}}
NAMES = list(registry.DETECTORS)
AT_ONCE = [name for name in NAMES if not registry.load(registry.DETECTORS[name]).trains_in_epochs]


def make(name: str, **changes: Any) -> Detector:
    cls = registry.lookup(registry.DETECTORS, "detector", name)
    arguments = {"weights": "random", "image_size": 64, "progress": False, "device": "cpu", **network(name),
                 **SMALL.get(name, {}), **changes}  # fmt: skip
    detector: Detector = cls(**arguments)
    return detector


def evaluate_predictions(detector: Detector, images: list[Path]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    results = [detector.predict(path) for path in images]
    return np.array([one.score for one in results]), np.stack([one.anomaly_map for one in results])


@pytest.fixture
def train(toy_tree: Path) -> Path:
    return toy_tree / "plate" / "train" / "good"


@pytest.fixture
def unseen(toy_tree: Path) -> list[Path]:
    return list_images(toy_tree / "plate" / "test")


def test_settings_here_are_of_registered_detectors() -> None:
    assert set(SMALL) <= set(registry.DETECTORS)


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


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_scores_the_same(
    name: str, train: Path, unseen: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = make(name, image_size=[80, 96], center_crop=[48, 64]).fit(train)
    before = evaluate_predictions(fitted, unseen)
    path = fitted.save(tmp_path / "models" / "plate.safetensors")
    # Nothing but the file: no weights, no hub.
    monkeypatch.setattr("harness.backbones.resolve.local_weights", lambda *_: pytest.fail("looked for weights"))
    again = load(path, device="cpu", progress=False)
    assert type(again) is type(fitted)
    assert again.parameters() == fitted.parameters()
    after = evaluate_predictions(again, unseen)
    assert after[0].tolist() == before[0].tolist()
    assert np.array_equal(after[1], before[1])
    assert before[1].shape[1:] == (48, 64)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [(name, "vit_tiny_patch16_224") for name in NAMES]
    + [(name, "convnext_atto") for name in NAMES if not only_transformers(name)],
)
def test_other_backbones_and_images_that_are_not_square(
    name: str, backbone: str, train: Path, unseen: list[Path]
) -> None:
    layers = ["blocks.2", "blocks.5"] if "vit" in backbone else ["stages.1", "stages.2"]
    more = IN_A_TRANSFORMER.get(name, {}) if "vit" in backbone else {}
    axes = {"backbone": backbone, "layers": layers, **more}
    detector = make(name, image_size=[96, 64], **axes).fit(train)
    scores, maps = evaluate_predictions(detector, unseen[:2])
    assert maps.shape == (2, 96, 64)
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name: str, train: Path, unseen: list[Path]) -> None:
    full, half = (evaluate_predictions(make(name, precision=p).fit(train), unseen)[0] for p in ("fp32", "bf16"))
    assert full.tolist() != half.tolist()
    np.testing.assert_allclose(half, full, rtol=0.3)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_all_kinds_are_the_same_picture(name: str, train: Path, unseen: list[Path]) -> None:
    paths = list_images(train)
    with_paths = make(name).fit(train)
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    with_arrays = make(name).fit(iter(arrays))
    score = with_paths.predict(unseen[0]).score
    assert with_arrays.predict(str(unseen[0])).score == score
    picture = Image.open(unseen[0])
    assert with_arrays.predict(picture).score == score
    tensor = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    assert with_arrays.predict(tensor).score == score


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_gives_the_sheets_metrics(name: str, train: Path, toy_tree: Path) -> None:
    metrics = make(name).fit(train).evaluate(toy_tree / "plate")
    for key in ("image_AUROC", "image_F1Max", "pixel_AUROC", "pixel_F1Max"):
        value = metrics[key]
        assert value is not None
        assert 0 <= value <= 1
    assert metrics["image_F1Score"] is None


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


def test_channels_are_the_first_of_one_permutation() -> None:
    few, many = make("padim", n_features=10, seed=4), make("padim", n_features=30, seed=4)
    assert isinstance(few, PaDiM)
    assert isinstance(many, PaDiM)
    assert few._channels.tolist() == many._channels[:10].tolist()


@pytest.mark.parametrize("shape", [(64, 64), (40, 64), (9, 200)])
def test_blur_is_anomalibs_where_that_can_be_had(shape: tuple[int, int]) -> None:
    from anomalib.models.components import GaussianBlur2d

    maps = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    ours = blur(maps)
    assert ours.shape == maps.shape
    assert ours.mean() == pytest.approx(maps.mean().item(), rel=0.05)
    if min(shape) > 16:
        theirs = GaussianBlur2d(kernel_size=(33, 33), sigma=(4, 4), channels=1)(maps[:, None])[:, 0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def images_of(paths: list[Path], detector: Detector) -> torch.Tensor:
    return torch.stack([detector.view(path) for path in paths])


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
