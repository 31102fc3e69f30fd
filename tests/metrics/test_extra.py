"""Metrics of `extra_metrics` agree with slow references, and with anomalib's where it has the metric."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.pimo.functional import aupimo_scores
from scipy import ndimage
from sklearn.metrics import f1_score

from harness import registry
from harness.data.samples import Sample
from harness.metrics.aupro import aupro5
from harness.metrics.evaluate import evaluate, evaluate_predictions
from harness.metrics.extra import PixelCase, extra_tables, extra_values
from harness.metrics.false_area import false_area95, recall_threshold
from harness.metrics.pimo import (
    LOWER,
    RATES,
    UPPER,
    area,
    aupimo,
    aupimo_by_image,
    aupimo_of_images,
    overlap_at,
    pimo_curve,
    shared_rate,
)
from harness.metrics.pixel_ranking import pixel_ranking
from harness.metrics.region_recall import recall_by_area, region_counts, region_precision, region_recall
from harness.metrics.seg_f1 import calibration_threshold, seg_f1, seg_f1_oracle
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions, Protocol

Floats = np.ndarray
NAMES = [metric.key for metric in registry.METRICS if metric.on_request]
EXPECTED = ["pixel_AUPRO5", "pixel_AUPIMO", "pixel_SegF1", "pixel_SegF1_oracle", "pixel_FPArea95",
            "region_Precision", "region_Recall"]  # fmt: skip


def predictions_of(maps: Floats, masks: Floats | None, labels: list[int] | None = None) -> Predictions:
    labels = [int(mask.any()) for mask in masks] if labels is None and masks is not None else labels or [0] * len(maps)
    samples = tuple(Sample(str(i), str(i), label, "bad" if label else "good") for i, label in enumerate(labels))
    scores = maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)
    return Predictions(samples, scores, maps.astype(np.float32), masks)


def case_of(
    maps: Floats, masks: Floats, threshold: float | None = None, calibration: Floats | None = None, min_area: int = 1
) -> PixelCase:
    test = predictions_of(maps, masks).under(Protocol(min_area=min_area))
    normal = None if calibration is None else predictions_of(calibration, None)
    return PixelCase(test, pixel_ranking(test, threshold, 0.3), threshold, normal)


def smooth(count: int, size: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Maps that rise in most of the regions of the masks; the second half of the images is normal."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((count, size, size)), (0, 3, 3))
    masks = field / field.std() > 1.6
    masks[count // 2 :] = False
    noise = ndimage.gaussian_filter(rng.standard_normal(masks.shape), (0, 2, 2))
    return noise / noise.std() + 2 * ndimage.gaussian_filter(masks.astype(float), (0, 1, 1)), masks


def test_the_registry_lists_them() -> None:
    assert NAMES == EXPECTED
    assert all(metric.optional for metric in registry.METRICS if metric.on_request)


def test_aupro_up_to_005_agrees_with_anomalib() -> None:
    maps, masks = smooth(6, 64)
    theirs = _AUPRO(fpr_limit=0.05)
    theirs.update(torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks).int())
    value = aupro5(case_of(maps, masks))
    assert value == pytest.approx(float(theirs.compute()), abs=2e-3)
    assert value == pytest.approx(evaluate(predictions_of(maps, masks), Thresholds(), 0.05)["pixel_AUPRO"], abs=1e-12)


def whole_numbers(seed: int, highest: int) -> tuple[Floats, Floats]:
    """Maps with the whole numbers from 0 to `highest`, and many ties; 4 normal images of 250 x 400 pixels."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((7, 250, 400), bool)
    masks[0, 10:30, 20:50] = masks[1, :3, :3] = masks[2, 100:140] = True
    maps = np.floor(highest * rng.beta(1, 6, masks.shape) ** 1.5)
    maps = np.where(masks, np.floor(highest * rng.beta(6, 2.5, masks.shape)), maps)
    # All whole numbers are thresholds of anomalib: both ends occur in normal images.
    maps[3, 0, 0], maps[3, 0, 1] = 0, highest
    return maps, masks


@pytest.mark.parametrize(("seed", "highest"), [(0, 2_000), (1, 40_000)])
def test_aupimo_agrees_with_anomalib(seed: int, highest: int) -> None:
    """With every score as one of anomalib's thresholds, and with bounds that it reaches exactly."""
    maps, masks = whole_numbers(seed, highest)
    rate = shared_rate(iter(maps[3:].astype(np.float32)), 4)
    assert rate is not None
    # anomalib takes the nearest rates; here both bounds are rates.
    lower, upper = (float(rate.at[np.argmin(abs(rate.at - bound))]) for bound in (LOWER, UPPER))
    tensors = torch.from_numpy(maps).double(), torch.from_numpy(masks).int()
    *_, theirs, _ = aupimo_scores(*tensors, num_thresholds=highest + 1, fpr_bounds=(lower, upper), force=True)
    areas = [area(maps[i][masks[i]].astype(np.float32), rate, lower, upper) for i in range(3)]
    assert 0.01 < min(areas) < max(areas) < 0.999
    assert areas == pytest.approx(theirs[:3].tolist(), abs=1e-6)
    assert aupimo(case_of(maps, masks)) == pytest.approx(np.mean(areas), abs=0.02)


def slow_aupimo(positives: Floats, normal: list[Floats]) -> float:
    """A sum over a million steps of the logarithm of the rate, for scores without ties."""
    scores = np.concatenate([one.ravel() for one in normal])
    weights = np.concatenate([np.full(one.size, 1 / (len(normal) * one.size)) for one in normal])
    order = np.argsort(-scores)
    rates = np.cumsum(weights[order])
    levels = 10 ** np.linspace(-5, -4, 1_000_001)
    # The rate stays below a level until the next pixel; its score is then the threshold.
    thresholds = scores[order][np.searchsorted(rates, levels, side="left")]
    ascending = np.sort(positives)
    return float((1 - np.searchsorted(ascending, thresholds) / len(ascending)).mean())


def test_aupimo_agrees_with_a_slow_reference_on_images_of_several_sizes() -> None:
    rng = np.random.default_rng(3)
    normal = [rng.standard_normal(size).astype(np.float32) for size in ((300, 200), (100, 150), (400, 400))]
    rate = shared_rate(iter(normal), 3)
    assert rate is not None
    for shift in (2.5, 3.5, 4.2):
        positives = (rng.standard_normal(500) / 2 + shift).astype(np.float32)
        assert area(positives, rate) == pytest.approx(slow_aupimo(positives, normal), abs=2e-5)


def test_the_overlap_curve_agrees_with_a_slow_reference() -> None:
    """Without ties: the overlap at a rate is the share of anomalous pixels at the score where the rate reaches it."""
    rng = np.random.default_rng(5)
    normal = [rng.standard_normal(size).astype(np.float32) for size in ((300, 200), (100, 150), (400, 400))]
    rate = shared_rate(iter(normal), 3, RATES[-1])
    assert rate is not None
    positives = (rng.standard_normal(500) / 2 + 3.5).astype(np.float32)
    scores = np.concatenate([one.ravel() for one in normal])
    weights = np.concatenate([np.full(one.size, 1 / (3 * one.size)) for one in normal])
    order = np.argsort(-scores)
    thresholds = scores[order][np.searchsorted(np.cumsum(weights[order]), RATES, side="left")]
    expected = [float((positives >= threshold).mean()) for threshold in thresholds]
    assert overlap_at(RATES, positives, rate).tolist() == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 40


@pytest.mark.parametrize("highest", [2_000, 40_000])
def test_the_area_under_the_points_of_the_curve_is_aupimo(highest: int) -> None:
    """With many ties; the points are at the limits, and the integral over the logarithm is their mean by steps."""
    maps, masks = whole_numbers(1, highest)
    case = case_of(maps, masks)
    points = extra_tables(["pixel_AUPIMO"], case)["pimo_curve"]
    assert [point["rate"] for point in points] == pytest.approx(RATES.tolist(), rel=1e-3)
    overlaps = np.array([point["overlap"] for point in points])
    assert (np.diff(overlaps) >= 0).all()
    inside = np.flatnonzero((RATES > LOWER * 0.999) & (RATES < UPPER * 1.001))
    assert len(inside) == 41
    assert np.trapezoid(overlaps[inside], dx=1 / 40) == pytest.approx(aupimo(case), abs=0.005)


def test_there_is_no_curve_where_aupimo_is_undefined() -> None:
    assert pimo_curve(case_of(*smooth(4, 64))) == []
    large = np.random.default_rng(0).random((2, 300, 400))
    assert pimo_curve(case_of(large, np.zeros(large.shape, bool))) == []
    assert set(extra_tables(["region_Recall"], case_of(*whole_numbers(0, 50)))) <= {"recall_by_area"}


def test_aupimo_by_hand() -> None:
    """200,000 normal pixels: 2 of them at a rate of 1e-5, 20 at 1e-4."""
    maps, masks = np.zeros((4, 200, 500)), np.zeros((4, 200, 500), bool)
    maps[2:] = np.linspace(0, 1, 200_000).reshape(2, 200, 500)
    masks[0, 0, :4] = masks[1, 0, :2] = True
    maps[0, 0, :4], maps[1, 0, :2] = [2, 2, 2, 0], [0, 0]
    assert aupimo_of_images(case_of(maps, masks)).tolist() == pytest.approx([0.75, 0, math.nan, math.nan], nan_ok=True)
    assert aupimo(case_of(maps, masks)) == pytest.approx(0.375)
    table = aupimo_by_image(case_of(maps, masks))
    assert [row["name"] for row in table] == ["1", "0"]
    assert [row["value"] for row in table] == pytest.approx([0, 0.75])
    # Found from the fifth normal pixel on: from a rate of 4 in 200,000 to 20 in 200,000.
    highest = np.sort(maps[2:].astype(np.float32), axis=None)[::-1]
    maps[1, 0, :2] = (highest[4] + highest[3]) / 2
    expected = math.log(20 / 4) / math.log(10)
    assert aupimo_of_images(case_of(maps, masks))[1] == pytest.approx(expected, abs=1e-9)


def test_aupimo_where_many_normal_pixels_share_the_highest_score() -> None:
    """Below the first rate the overlap above this score counts: the lower bound."""
    normal = [np.concatenate([np.full(50, 9.0), np.zeros(999_950)]).astype(np.float32)]
    rate = shared_rate(iter(normal), 1)
    assert rate is not None
    until, rest = math.log(5e-5 / 1e-5) / math.log(10), math.log(1e-4 / 5e-5) / math.log(10)
    assert area(np.array([10, 9, 5, -1], np.float32), rate) == pytest.approx(until * 0.25 + rest * 0.75, abs=1e-9)
    assert area(np.array([10, 10], np.float32), rate) == pytest.approx(1)
    assert area(np.array([9, 8], np.float32), rate, upper=5e-5) == 0


def test_aupimo_is_undefined_with_few_normal_pixels_or_without_defects() -> None:
    maps, masks = smooth(4, 64)
    assert math.isnan(aupimo(case_of(maps, masks)))
    assert shared_rate(iter(()), 0) is None
    large = np.random.default_rng(0).random((2, 300, 400))
    assert math.isnan(aupimo(case_of(large, np.zeros(large.shape, bool))))


def test_seg_f1_agrees_with_scikit_learn() -> None:
    maps, masks = smooth(6, 48)
    normal = 1000 + smooth(6, 48, seed=9)[0][3:]
    case = case_of(1000 + maps, masks, calibration=normal)
    single = normal.astype(np.float32).astype(np.float64)
    threshold = single.mean() + 3 * single.std()
    assert calibration_threshold(case) == pytest.approx(threshold, abs=1e-6)
    called = (1000 + maps).astype(np.float32) > threshold
    assert seg_f1(case) == pytest.approx(f1_score(masks.ravel(), called.ravel()), abs=1e-6)
    assert math.isnan(seg_f1(replace(case, calibration=None)))
    assert math.isnan(seg_f1(case_of(maps, np.zeros(maps.shape, bool), calibration=normal)))


def test_the_oracle_chooses_the_threshold_of_each_image() -> None:
    maps, masks = smooth(4, 40)
    best = []
    for anomaly_map, mask in zip(maps[:2].astype(np.float32), masks[:2], strict=True):
        called = anomaly_map.ravel() >= np.unique(anomaly_map)[:, None]
        hits = (called & mask.ravel()).sum(axis=1)
        best.append(float((2 * hits / (called.sum(axis=1) + mask.sum())).max()))
    assert 0 < best[0] != best[1] > 0
    assert seg_f1_oracle(case_of(maps, masks)) == pytest.approx(np.mean(best), abs=1e-9)
    assert math.isnan(seg_f1_oracle(case_of(maps, np.zeros(maps.shape, bool))))


def test_false_area_counts_normal_images_only() -> None:
    maps, masks = smooth(6, 40)
    maps[:3][~masks[:3]] += 5
    case = case_of(maps, masks)
    single = maps.astype(np.float32)
    positives = np.sort(single[masks])[::-1]
    expected = next(t for n, t in enumerate(positives, 1) if n / len(positives) >= 0.95)
    assert recall_threshold(case) == expected
    assert false_area95(case) == pytest.approx(np.mean([(one >= expected).mean() for one in single[3:]]), abs=1e-12)
    # The rate of all normal pixels is higher, since the surroundings of the defects are.
    assert false_area95(case) < evaluate(case.test, Thresholds())["pixel_FPR95"]
    assert math.isnan(false_area95(case_of(maps, np.zeros(maps.shape, bool))))
    assert math.isnan(false_area95(case_of(maps[:3], masks[:3])))


def slow_regions(case: PixelCase) -> tuple[float, float, list[tuple[int, bool]]]:
    """Precision, recall, and the area of each defect with whether it is found."""
    eight, defects, right = np.ones((3, 3)), [], []
    assert case.test.maps is not None
    assert case.test.masks is not None
    for anomaly_map, mask in zip(case.test.maps, case.test.masks, strict=True):
        labels, count = ndimage.label(anomaly_map > case.threshold, eight)
        calls = [labels == n for n in range(1, count + 1)]
        calls = [call for call in calls if call.sum() >= case.test.protocol.min_area]
        right += [(call & mask).sum() / call.sum() >= 0.25 for call in calls]
        called = np.any(calls, axis=0) if calls else np.zeros_like(mask)
        labels, count = ndimage.label(mask, eight)
        regions = [labels == n for n in range(1, count + 1)]
        regions = [region for region in regions if region.sum() >= case.test.protocol.min_area]
        defects += [(int(one.sum()), bool((one & called).sum() / one.sum() >= 0.25)) for one in regions]
    return float(np.mean(right)), float(np.mean([is_found for _, is_found in defects])), defects


@pytest.mark.parametrize("min_area", [1, 12, 40])
def test_regions_agree_with_a_slow_reference(min_area: int) -> None:
    maps, masks = smooth(8, 64)
    case = case_of(maps, masks, threshold=1.5, min_area=min_area)
    precision, recall, defects = slow_regions(case)
    assert 0 < precision < 1
    assert region_precision(case) == pytest.approx(precision, abs=1e-12)
    assert region_recall(case) == pytest.approx(recall, abs=1e-12)
    groups = recall_by_area(case)
    assert len(groups) == min(10, len(defects))
    assert sum(group["defects"] for group in groups) == len(defects)
    assert sum(group["found"] for group in groups) == sum(is_found for _, is_found in defects)
    assert max(group["defects"] for group in groups) - min(group["defects"] for group in groups) <= 1
    for group in groups:
        assert group["smallest"] <= group["largest"]
    ends = [end for group in groups for end in (group["smallest"], group["largest"])]
    assert ends == sorted(ends)
    assert (ends[0], ends[-1]) == (min(defects)[0], max(defects)[0])


def test_a_call_of_the_whole_image_is_wrong() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :4, :4] = True
    case = case_of(np.ones(masks.shape), masks, threshold=0.5)
    assert (region_precision(case), region_recall(case)) == (0, 1)


def test_regions_are_undefined_without_threshold_calls_or_defects() -> None:
    maps, masks = smooth(4, 32)
    without = case_of(maps, masks)
    assert region_counts(without) is None
    assert recall_by_area(without) == []
    assert math.isnan(region_precision(without))
    assert math.isnan(region_recall(without))
    silent = case_of(maps, masks, threshold=99.0)
    assert math.isnan(region_precision(silent))
    assert region_recall(silent) == 0
    normal = case_of(maps, np.zeros(maps.shape, bool), threshold=1.0)
    assert math.isnan(region_precision(normal))
    assert math.isnan(region_recall(normal))
    assert recall_by_area(normal) == []


def test_only_requested_metrics_are_computed() -> None:
    maps, masks = smooth(4, 32)
    test = predictions_of(maps, masks)
    policy = {"method": "fixed", "image": 1.0, "pixel": 1.0}
    plain = evaluate_predictions(test, None, policy)
    assert not set(plain.metrics) & set(NAMES)
    assert plain.tables == {}
    some = evaluate_predictions(test, None, policy, extra=["region_Recall", "pixel_SegF1", "pixel_SegF1_oracle"])
    # No calibration maps: SegF1 is undefined, so it is missing.
    assert set(some.metrics) - set(plain.metrics) == {"region_Recall", "pixel_SegF1_oracle"}
    assert {name: some.metrics[name] for name in plain.metrics} == plain.metrics
    # A table belongs to a metric.
    assert list(some.tables) == ["recall_by_area"]
    assert sum(group["defects"] for group in some.tables["recall_by_area"]) > 0
    without_masks = replace(test, masks=None)
    assert not set(evaluate_predictions(without_masks, None, policy, extra=NAMES).metrics) & set(NAMES)


def test_every_metric_at_the_original_size(tmp_path: Path) -> None:
    """Each agrees with the metric of maps that were resized before."""
    from PIL import Image

    from harness.predictions.detection import join
    from harness.predictions.pairs import pairs, resized_maps

    maps, masks = smooth(6, 40)
    maps = maps[:, ::2, ::2].astype(np.float32)
    samples = []
    for number, mask in enumerate(masks):
        image, truth = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        size = (40, 40) if mask.any() else (40, 60)
        Image.new("L", size[::-1]).save(image)
        Image.fromarray(mask).save(truth)
        samples.append(Sample(str(image), str(number), int(mask.any()), "", (str(truth),) if mask.any() else ()))
    raw = {sample.path: (0.0, one) for sample, one in zip(samples, maps, strict=True)}
    test = join(samples, raw).under(Protocol("original", min_area=3))
    calibration = join(samples[3:], {sample.path: raw[sample.path] for sample in samples[3:]})
    values = extra_values(NAMES, PixelCase(test, pixel_ranking(test, 1.2, 0.3), 1.2, calibration))
    resized = list(pairs(test))
    assert [one.shape for one, _ in resized] == [(40, 40)] * 3 + [(40, 60)] * 3
    pixels = np.concatenate([one.ravel() for one in resized_maps(test.part(np.arange(6) >= 3))]).astype(np.float64)
    called = np.concatenate([one.ravel() > pixels.mean() + 3 * pixels.std() for one, _ in resized])
    truth = np.concatenate([mask.ravel() for _, mask in resized])
    assert values["pixel_SegF1"] == pytest.approx(f1_score(truth, called), abs=1e-6)
    assert values.pop("pixel_AUPIMO") is None  # too few normal pixels
    assert None not in values.values()
