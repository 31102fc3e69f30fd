"""AUsPRO equals a slow reference that follows the paper, at the size of the masks and at the size of a smaller map."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from harness import registry
from harness.common.errors import DataError
from harness.data.samples import Sample, Saturation
from harness.metrics.evaluate import evaluate, evaluate_predictions
from harness.metrics.spro import Defect, defects, saturated_weights
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions, Protocol, join
from harness.predictions.pairs import pairs

NO_THRESHOLDS = Thresholds(None, None, "")
LIMITS = {"pixel_AUsPRO5": 0.05, "pixel_AUsPRO30": 0.3}
ENTRIES = (Saturation(255, 9, False), Saturation(254, 1.0, True), Saturation(253, 0.4, True), Saturation(7, 1e6, False))
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def mask_file(name: str, pixels: Bools, value: int = 255) -> str:
    Image.fromarray(pixels.astype(np.uint8) * np.uint8(value)).save(name)
    return str(Path(name).absolute())


def sample(number: int, masks: list[str], saturation: tuple[Saturation, ...] = ENTRIES) -> Sample:
    bad = bool(masks)
    return Sample(f"{number}", f"{number}", int(bad), "bad" if bad else "good", tuple(masks), saturation=saturation)


def predictions(samples: list[Sample], maps: Floats, resized: tuple[int, int] | None = None) -> Predictions:
    raw = {one.path: (float(map_.max()), map_.astype(np.float32)) for one, map_ in zip(samples, maps, strict=True)}
    return join(samples, raw, resized)


def defects_at(one: Sample, size: tuple[int, int], resized: tuple[int, int] | None = None) -> list[Defect]:
    return list(defects(one, predictions([one], np.zeros((1, *size)), resized)))


def area(defect: Bools, value: int) -> float:
    """The saturation of a defect, as the paper and the data set define it."""
    (entry,) = (one for one in ENTRIES if one.pixel_value == value)
    return max(int(entry.threshold * defect.sum()), 1) if entry.relative else min(entry.threshold, int(defect.sum()))


def slow_auspro(maps: Floats, defects: list[tuple[int, Bools, float]], limit: float) -> float:
    """Every distinct score as a threshold: the mean of min(|A and P| / s, 1) against the false positive rate."""
    normal = np.ones(maps.shape, bool)
    for number, defect, _ in defects:
        normal[number] &= ~defect
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        above = maps >= threshold
        overlap = [min((above[number] & defect).sum() / s, 1.0) for number, defect, s in defects]
        points.append((float(above[normal].mean()), float(np.mean(overlap))))
    total = 0.0
    for (x, y), (next_x, next_y) in pairwise(points):
        if next_x > limit:
            return (total + (limit - x) * (y + y + (next_y - y) * (limit - x) / (next_x - x)) / 2) / limit
        total += (next_x - x) * (y + next_y) / 2
    return total / limit


@pytest.mark.parametrize("seed", range(12))
def test_random_maps_with_overlapping_masks_agree_with_a_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = np.round(rng.standard_normal((4, 9, 11)), 1 + seed % 3).astype(np.float32)
    samples, defects = [], []
    for number in range(4):
        files = []
        for place in range(rng.integers(1, 4) if number else 0):
            # Random pixels: one defect has several parts, and the defects of an image overlap.
            defect = rng.random((9, 11)) < 0.25
            value = int(rng.choice([one.pixel_value for one in ENTRIES]))
            files.append(mask_file(f"{number}_{place}.png", defect, value))
            defects.append((number, defect, area(defect, value)))
            maps[number] += defect * np.float32(rng.choice([0, 0.5, 2]))
        samples.append(sample(number, files))
    values = evaluate(predictions(samples, maps), NO_THRESHOLDS)
    for name, limit in LIMITS.items():
        assert values[name] == pytest.approx(slow_auspro(maps, defects, limit), abs=1e-6)
        assert registry.metric(name).optional


def test_at_the_original_size_maps_are_resized_and_saturations_are_those_of_the_data_set() -> None:
    rng = np.random.default_rng(0)
    samples, defects, shape = [], [], (18, 22)
    for number in range(3):
        image = Path(f"{number}.png").absolute()
        Image.new("L", shape[::-1]).save(image)
        files = []
        for place, value in enumerate((255, 253) if number else ()):
            defect = rng.random(shape) < 0.2
            files.append(mask_file(f"{number}_{place}.png", defect, value))
            defects.append((number, defect, area(defect, value)))
        samples.append(replace(sample(number, files), path=str(image)))
    test = predictions(samples, rng.standard_normal((3, 9, 11))).under(Protocol("original"))
    values = evaluate(test, NO_THRESHOLDS)
    resized = np.stack([one for one, _ in pairs(test)])
    assert resized.shape == (3, *shape)
    for name, limit in LIMITS.items():
        assert values[name] == pytest.approx(slow_auspro(resized, defects, limit), abs=1e-6), name


def test_the_saturated_part_of_a_defect_is_enough() -> None:
    """9 of 20 pixels, alone above all others, are a perfect detection; AUPRO wants all of them."""
    defect = np.zeros((10, 10), bool)
    defect[:2] = True
    maps = np.zeros((1, 10, 10), np.float32)
    maps[0, 0, :9] = 1
    values = evaluate(predictions([sample(0, [mask_file("m.png", defect)])], maps), NO_THRESHOLDS)
    assert values["pixel_AUsPRO5"] == values["pixel_AUsPRO30"] == pytest.approx(1)
    assert values["pixel_AUPRO"] is not None
    assert values["pixel_AUPRO"] < 0.6
    maps[0, 0, 8] = 0
    less = evaluate(predictions([sample(0, [mask_file("m.png", defect)])], maps), NO_THRESHOLDS)["pixel_AUsPRO30"]
    # From 8/9 at no false positive to 1 at all of them, of which the area up to 0.3 counts.
    assert less == pytest.approx(8 / 9 + (1 / 9) * 0.3 / 2)


def test_each_file_is_one_defect_with_all_its_parts() -> None:
    two = np.eye(4, dtype=bool) & (np.arange(4) % 3 == 0)
    (one,) = defects_at(sample(0, [mask_file("m.png", two, 254)]), (4, 4))
    assert (one.pixels.sum(), one.saturation) == (2, 2)


@pytest.mark.parametrize(("value", "saturation"), [(255, 9 / 4), (254, 16.0), (253, 16.0 * 25 / 64), (7, 16.0)])
def test_a_smaller_map_scales_the_saturation(value: int, saturation: float) -> None:
    """64 pixels of the mask are 16 of the map. An absolute saturation becomes a quarter; 0.4 of 64 is 25 pixels."""
    defect = np.zeros((20, 20), bool)
    defect[4:12, 4:12] = True
    (one,) = defects_at(sample(0, [mask_file("m.png", defect, value)]), (10, 10))
    assert one.pixels.sum() == 16
    assert one.saturation == pytest.approx(saturation)


def test_a_centre_crop_cuts_the_defects() -> None:
    defect = np.zeros((20, 20), bool)
    defect[:, :10] = True
    outside = np.zeros((20, 20), bool)
    outside[0, 0] = True
    files = [mask_file("m.png", defect, 254), mask_file("outside.png", outside)]
    (one,) = defects_at(sample(0, files), (10, 10), (20, 20))
    assert (one.pixels.sum(), one.saturation) == (50, 50)
    test = predictions([sample(0, files)], np.zeros((1, 10, 10)), (20, 20))
    weights = saturated_weights(test)
    assert weights is not None
    assert weights.tolist() == pytest.approx([1 / 50] * 50)


def test_other_data_have_no_such_metric() -> None:
    files = [mask_file("m.png", np.eye(4, dtype=bool))]
    maps = np.zeros((2, 4, 4))
    for samples in ([sample(0, files, ()), sample(1, [])], [sample(0, files), sample(1, files, ())]):
        values = evaluate(predictions(samples, maps), NO_THRESHOLDS)
        assert not set(LIMITS) & set(values)
        assert values["pixel_AUPRO"] is not None
    everywhere = [mask_file("all.png", np.ones((4, 4), bool))]
    assert not set(LIMITS) & set(evaluate(predictions([sample(0, everywhere)], maps[:1]), NO_THRESHOLDS))


def test_each_type_of_defect_has_the_metric_with_all_normal_images() -> None:
    rng = np.random.default_rng(0)
    samples, maps = [], rng.standard_normal((5, 9, 11))
    for number, defect in enumerate(["good", "logical", "structural", "good", "logical"]):
        files = [] if defect == "good" else [mask_file(f"{number}.png", rng.random((9, 11)) < 0.3)]
        samples.append(replace(sample(number, files), defect=defect))
    test = predictions(samples, maps)
    evaluation = evaluate_predictions(test, None, {"method": "none"})
    assert [one["defect"] for one in evaluation.defects] == ["logical", "structural"]
    for one, numbers in zip(evaluation.defects, ([0, 1, 3, 4], [0, 2, 3]), strict=True):
        alone = evaluate(test.part(np.isin(np.arange(5), numbers)), NO_THRESHOLDS)
        assert {name: one[name] for name in LIMITS} == {name: alone[name] for name in LIMITS}
        assert one["pixel_AUsPRO30"] != evaluation.metrics["pixel_AUsPRO30"]


def test_a_mask_that_changed_is_named() -> None:
    test = predictions([sample(0, [mask_file("m.png", np.eye(4, dtype=bool), 9)])], np.zeros((1, 4, 4)))
    with pytest.raises(DataError, match=r"m\.png: a mask of an unknown defect"):
        evaluate(test, NO_THRESHOLDS)
