"""The pictures of a run: which images, what is in them, and that their panels show the same place."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data.samples import Sample
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions, join
from harness.predictions.drawing import OUTLINE
from harness.results.gallery import draw, draw_gallery, select_images

SIDE = 64


def predictions(scores: list[float], labels: list[int]) -> Predictions:
    samples = tuple(Sample(str(i), str(i), label, "bad" if label else "good") for i, label in enumerate(labels))
    return Predictions(samples, np.array(scores), None, None)


def test_what_is_on_the_wrong_side_comes_first() -> None:
    test = predictions([0.1, 0.9, 0.2, 0.8, 0.95, 0.3], [0, 0, 1, 1, 1, 1])
    chosen = select_images(test, 0.5)
    assert [(one.role, one.index) for one in chosen] == [
        ("missed", 2), ("missed", 5), ("false-alarm", 1), ("lowest-anomalous", 3), ("highest-normal", 0),
        ("highest-anomalous", 4),
    ]  # fmt: skip
    roles = {image.role for image in select_images(test, None)}
    assert roles == {"lowest-anomalous", "highest-normal", "highest-anomalous"}
    assert len({one.index for one in select_images(predictions([0.5] * 40, [0, 1] * 20), 0.5)}) == 9
    # Five false alarms are all shown, before any that is right.
    many = select_images(predictions([0.9] * 5 + [0.8] * 9, [0] * 5 + [1] * 9), 0.5)
    assert [one.role for one in many[:5]] == ["false-alarm"] * 5


def square(folder: Path, at: tuple[int, int], size: int = SIDE) -> tuple[Path, Path]:
    """An image with a white square of 8 pixels, and its mask."""
    pixels = np.zeros((size, size), dtype=np.uint8)
    pixels[at[0] : at[0] + 8, at[1] : at[1] + 8] = 255
    for name in ("image.png", "mask.png"):
        Image.fromarray(pixels).save(folder / name)
    return folder / "image.png", folder / "mask.png"


def panels(picture: np.ndarray) -> list[np.ndarray]:
    return np.split(picture.astype(int), 4, axis=1)


def centre_of(chosen: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(chosen)
    return float(rows.mean() / chosen.shape[0]), float(columns.mean() / chosen.shape[1])


@pytest.mark.parametrize("resized", [None, (80, 80)])
def test_all_panels_show_the_same_place(tmp_path: Path, resized: tuple[int, int] | None) -> None:
    """Also where the model saw the centre of the image only: then all show that."""
    image, mask = square(tmp_path, (20, 40))
    sample = Sample(str(image), "image.png", 1, "bad", (str(mask),))
    plain = join([sample], {sample.path: (1.0, np.zeros((SIDE, SIDE), np.float32))}, resized)
    assert plain.masks is not None
    test = Predictions(plain.samples, plain.scores, plain.masks.astype(np.float32), plain.masks, resized)
    (entry,) = draw_gallery(tmp_path, test, Thresholds(0.5, 0.5, ""))
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / entry["file"])), cv2.COLOR_BGR2RGB)
    assert (picture.shape[1], picture.shape[0]) == (entry["width"], entry["height"]) == (4 * 256, 256)
    input_panel, heat, truth, outlined = panels(picture)
    places = [
        centre_of(input_panel.sum(axis=2) > 400),
        centre_of(heat[..., 0] > 180),  # viridis ends in yellow
        centre_of(truth.sum(axis=2) > 400),
        centre_of(np.abs(outlined - np.array(OUTLINE)).sum(axis=2) < 120),
    ]
    for place in places[1:]:
        assert place == pytest.approx(places[0], abs=0.02)


def test_a_model_without_maps_still_shows_what_it_missed(tmp_path: Path) -> None:
    image, _ = square(tmp_path, (20, 40))
    sample = Sample(str(image), "image.png", 1, "bad")
    test = Predictions((sample,), np.array([0.1]), None, None)
    (entry,) = draw_gallery(tmp_path, test, Thresholds(0.5, None, ""))
    assert entry["role"] == "missed"
    assert (tmp_path / entry["file"]).is_file()


def test_no_threshold_no_outline() -> None:
    image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    anomaly_map = np.zeros((SIDE, SIDE), dtype=np.float32)
    anomaly_map[:9, :9] = 1
    without, with_it = (panels(draw(image, anomaly_map, None, threshold, (0, 1)))[3] for threshold in (None, 0.5))
    assert not without.any()
    assert (np.abs(with_it - np.array(OUTLINE)).sum(axis=2) == 0).any()
