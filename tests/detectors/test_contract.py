"""Every registered detector can be saved, takes all kinds of images, and has the metrics of the sheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import registry
from harness.data.listing import list_images
from harness.detectors import Detector, load
from harness.detectors.group import Group
from tests.detectors.cases import IN_A_TRANSFORMER, NAMES, SMALL, evaluate_predictions, make
from tests.networks import only_transformers


def test_settings_here_are_of_registered_detectors() -> None:
    assert set(SMALL) <= set(registry.DETECTORS)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_group_looks_at_each_detector_once_whatever_its_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detectors = [make(name, seed=seed) for seed in range(12)]
    calls: Counter[str] = Counter()
    cls = type(detectors[0])
    layers = cls.needed_layers

    def counted(self: Detector) -> tuple[str, ...]:
        calls["layers"] += 1
        return layers(self)

    monkeypatch.setattr(cls, "needed_layers", counted)
    group = Group(detectors)
    stages = [stage for one in detectors for stage in (one.fit_stage(group), one.score_stage("test", group))]
    assert len(set(stages)) == len(stages) if cls.uses_seed else len(set(stages)) >= 2
    # Twice in the group: for training images and for others.
    assert calls["layers"] <= 3 * len(detectors)
    assert group.alike(detectors[0])[0] is detectors[0]
