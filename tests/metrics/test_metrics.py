"""Metrics agree with scikit-learn and with slow references to 1e-6, and are blank where they are undefined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from anomalib.metrics.aupro import _AUPRO
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from sklearn.metrics import f1_score as sklearn_f1

from harness import registry
from harness.common.errors import DataError, PredictionsError
from harness.data.samples import Sample
from harness.metrics import regions
from harness.metrics.aupro import aupro, overlap_curve
from harness.metrics.curves import curves
from harness.metrics.evaluate import evaluate, evaluate_predictions
from harness.metrics.fpr95 import fpr95
from harness.metrics.intervals import intervals
from harness.metrics.ranking import Ranking, measure
from harness.metrics.thresholds import best_f1_threshold, fix_thresholds
from harness.metrics.validation import validation_part
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions, join
from harness.predictions.pairs import vanished

Scores = npt.NDArray[np.floating]
Truth = npt.NDArray[np.bool_]
NONE = {"method": "none"}
F1_ON_VAL = {"method": "f1_on_val", "share": 0.3, "seed": 0}
LEVELS_AND_NAMES = [one.key for one in registry.METRICS if not one.optional]


def scores_of(dtype: type[np.floating], least: int = 1) -> st.SearchStrategy[Scores]:
    """Spread, tied, constant and neighbouring numbers."""
    sizes = st.integers(least, 60)
    one = np.array(1, dtype)
    neighbours = [float(np.nextafter(one, one * 0)), 1.0, float(np.nextafter(one, one * 2))]
    width = 8 * np.dtype(dtype).itemsize
    return st.one_of(
        hnp.arrays(dtype, sizes, elements=st.floats(-(2**20), 2**20, width=width)),
        hnp.arrays(dtype, sizes, elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])),
        hnp.arrays(dtype, sizes, elements=st.sampled_from(neighbours)),
        sizes.map(lambda n: np.full(n, 0.3, dtype)),
    )


both_types = st.one_of(scores_of(np.float32), scores_of(np.float64))


def truths(shape: int | tuple[int, ...]) -> st.SearchStrategy[Truth]:
    return hnp.arrays(np.bool_, shape)


def best_f1(scores: Scores, truth: Truth) -> float:
    precision, recall, _ = precision_recall_curve(truth, scores)
    both = precision + recall
    return float(np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0).max())


def number(value: npt.ArrayLike) -> float | None:
    return None if np.isnan(value) else float(value)


@settings(max_examples=300, deadline=None)
@given(scores=both_types, data=st.data())
def test_ranking_metrics_agree_with_scikit_learn(scores: Scores, data: st.DataObject) -> None:
    truth = data.draw(truths(len(scores)))
    ranking = Ranking.of(scores, truth)
    values = measure("image", ranking) | measure("pixel", ranking)
    for level in ("image", "pixel"):
        names = [f"{level}_{name}" for name in ("AUROC", "AP", "F1Max")]
        if truth.all() or not truth.any():
            assert [number(values[name]) for name in names] == [None] * 3
            continue
        theirs = roc_auc_score(truth, scores), average_precision_score(truth, scores), best_f1(scores, truth)
        assert [float(values[name]) for name in names] == pytest.approx(theirs, abs=1e-6)


@settings(max_examples=300, deadline=None)
@given(scores=both_types, data=st.data())
def test_metrics_at_a_threshold_agree_with_scikit_learn(scores: Scores, data: st.DataObject) -> None:
    truth = data.draw(truths(len(scores)))
    at = float(data.draw(st.sampled_from(list(scores))))
    # Beside a score, by less than single precision can tell, or anywhere.
    threshold = data.draw(
        st.sampled_from([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)]) | st.floats(-1e9, 1e9)
    )
    values = {k: number(v) for k, v in measure("image", Ranking.of(scores, truth, float(threshold))).items()}
    called = scores.astype(np.float64) > threshold
    (_, false_positives), (false_negatives, _) = confusion_matrix(truth, called, labels=[False, True]).tolist()
    both = truth.any() and not truth.all()
    expected = {
        "image_F1Score": sklearn_f1(truth, called, zero_division=0) if both else None,
        "image_Precision": precision_score(truth, called) if both and called.any() else None,
        "image_Recall": recall_score(truth, called) if truth.any() else None,
        "image_FalsePositives": None if truth.all() else false_positives,
        "image_FalseNegatives": false_negatives if truth.any() else None,
    }
    for name, value in expected.items():
        assert values[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


@pytest.mark.parametrize(("threshold", "above"), [(0.1, 1), (float(np.float32(0.1)), 0), (0.1000000015, 0)])
def test_a_threshold_between_the_numbers_of_single_precision(threshold: float, above: int) -> None:
    """0.1 in single precision is 0.100000001490116."""
    scores = np.array([0.0, 0.1], np.float32)
    ranking = Ranking.of(scores, np.array([False, True]), threshold)
    assert (int(ranking.tp_at), int(ranking.fp_at)) == (above, 0)


def test_by_hand() -> None:
    ranking = Ranking.of(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]), 0.4)
    values = {name: float(value) for name, value in measure("image", ranking).items()}
    assert values == pytest.approx(
        {
            "image_AUROC": 3.5 / 4,
            "image_AP": 0.5 + 0.5 * 2 / 3,
            "image_F1Score": 2 / 3,
            "image_F1Max": 0.8,
            "image_Precision": 1.0,
            "image_Recall": 0.5,
            "image_FPR95": 0.5,
            "image_FalsePositives": 0.0,
            "image_FalseNegatives": 1.0,
        }
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fpr95_is_the_first_point_of_the_roc_curve_at_95(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    for positives in (1, 2, 19, 20, 21, 100, 333):
        labels = np.array([True] * positives + [False] * 57)
        scores = (rng.normal(size=len(labels)) + labels).round(1).astype(dtype)
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        expected = fpr[np.flatnonzero(tpr * positives >= 0.95 * positives - 1e-9)[0]]
        assert float(fpr95(Ranking.of(scores, labels))) == pytest.approx(expected, abs=1e-12), positives
    assert np.isnan(fpr95(Ranking.of(scores, np.ones_like(labels))))


def predictions(labels: list[int], with_masks: bool = True) -> Predictions:
    """2 x 2 maps, every value larger than those before."""
    samples = tuple(Sample(str(i), str(i), label, "bad" if label else "good") for i, label in enumerate(labels))
    maps = np.arange(len(labels) * 4, dtype=np.float32).reshape(-1, 2, 2)
    masks = np.repeat(np.array(labels, dtype=bool), 4).reshape(-1, 2, 2) if with_masks else None
    return Predictions(samples, maps.max(axis=(1, 2)).astype(np.float64), maps, masks)


def defined(values: dict[str, float | None]) -> set[str]:
    return {name for name, value in values.items() if value is not None}


def test_every_registered_metric_at_both_levels() -> None:
    values = evaluate(predictions([0, 0, 1, 1]), Thresholds(7.0, 7.0, ""))
    assert list(values) == LEVELS_AND_NAMES
    assert all(value == float(registry.metric(name).higher_is_better) for name, value in values.items())


def test_blank_without_masks_maps_or_thresholds() -> None:
    at_threshold = {f"image_{n}" for n in ("F1Score", "Precision", "Recall", "FalsePositives", "FalseNegatives")}
    image = {name for name in LEVELS_AND_NAMES if name.startswith("image_")}
    given_ = Thresholds(7.0, 7.0, "")
    assert defined(evaluate(predictions([0, 0, 1, 1], with_masks=False), given_)) == image
    assert defined(evaluate(replace(predictions([0, 0, 1, 1]), maps=None, masks=None), given_)) == image
    without = evaluate(predictions([0, 0, 1, 1]), Thresholds(None, None, ""))
    assert defined(without) == set(LEVELS_AND_NAMES) - at_threshold - {"pixel_F1Score"}


def test_an_optional_metric_is_missing_where_it_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = replace(registry.metric("image_Precision"), name="Optional", optional=True)
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, optional))
    assert evaluate(predictions([0, 0, 1, 1]), Thresholds(7.0, 7.0, ""))["image_Optional"] == 1
    without = evaluate(predictions([0, 0, 1, 1]), Thresholds(None, None, ""))
    assert without["image_Precision"] is None
    assert list(without) == LEVELS_AND_NAMES


def test_blank_without_a_class() -> None:
    given_, nothing = Thresholds(1.0, 1.0, ""), Thresholds(None, None, "")
    assert defined(evaluate(predictions([0, 0]), given_)) == {"image_FalsePositives"}
    assert defined(evaluate(predictions([1, 1]), given_)) == {"image_Recall", "image_FalseNegatives"}
    assert defined(evaluate(predictions([0, 0]), nothing)) == defined(evaluate(predictions([1, 1]), nothing)) == set()
    # Anomalous images have normal pixels, so there the pixel figures are all there.
    partly = predictions([1, 1])
    assert partly.masks is not None
    partly.masks[:, 0] = False
    pixel = {name for name in LEVELS_AND_NAMES if name.startswith("pixel_")}
    assert defined(evaluate(partly, given_)) == {"image_Recall", "image_FalseNegatives"} | pixel


def test_recall_and_misses_of_anomalous_images_alone() -> None:
    values = evaluate(predictions([1, 1, 1, 1]), Thresholds(7.0, None, ""))
    assert (values["image_Recall"], values["image_FalseNegatives"]) == (0.5, 2.0)


def slow_aupro(maps: Scores, masks: Truth, limit: float) -> float | None:
    """Every distinct score as a threshold, one after the other."""
    regions = []
    for number_, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(number_, labels == region) for region in range(1, count + 1)]
    if not regions or masks.all():
        return None
    area, last_rate, last_overlap = 0.0, 0.0, 0.0
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        above = maps >= threshold
        rate = float(above[~masks].mean())
        overlap = float(np.mean([above[image][region].mean() for image, region in regions]))
        if rate > limit:
            at_limit = last_overlap + (overlap - last_overlap) * (limit - last_rate) / (rate - last_rate)
            return (area + (limit - last_rate) * (last_overlap + at_limit) / 2) / limit
        area += (rate - last_rate) * (last_overlap + overlap) / 2
        last_rate, last_overlap = rate, overlap
    return area / limit


def ranked(maps: Scores, masks: Truth, limit: float) -> Ranking:
    return Ranking.of(maps, masks, None, regions.weights(masks), limit)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=300, deadline=None)
@given(shape=shapes, tied=st.booleans(), limit=st.sampled_from([0.01, 0.05, 0.3, 0.5, 1.0]), data=st.data())
def test_aupro_agrees_with_a_slow_reference(
    shape: tuple[int, int, int], tied: bool, limit: float, data: st.DataObject
) -> None:
    elements = st.sampled_from([-1.0, 0.0, 0.25, 3.0]) if tied else st.floats(-100, 100, width=32)
    maps = data.draw(hnp.arrays(np.float32, shape, elements=elements))
    masks = data.draw(truths(shape))
    expected = slow_aupro(maps, masks, limit)
    value = number(aupro(ranked(maps, masks, limit)))
    assert value == (None if expected is None else pytest.approx(expected, abs=1e-6))


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_of_larger_maps_agrees_with_a_slow_reference(limit: float) -> None:
    rng = np.random.default_rng(0)
    masks = ndimage.gaussian_filter(rng.standard_normal((3, 24, 24)), (0, 2, 2)) > 0.15
    maps = np.round(rng.standard_normal(masks.shape) + masks, 2).astype(np.float32)
    assert aupro(ranked(maps, masks, limit)) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-6)


@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_aupro_agrees_with_anomalib(limit: float) -> None:
    maps, masks = smooth_maps(6, 64)
    theirs = _AUPRO(fpr_limit=limit)
    theirs.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    assert aupro(ranked(maps, masks, limit)) == pytest.approx(float(theirs.compute()), abs=1e-3)


def smooth_maps(count: int, size: int) -> tuple[npt.NDArray[np.float32], Truth]:
    """Maps that rise in most of the regions of the masks; the last image is normal."""
    rng = np.random.default_rng(1)

    def noise(sigma: float) -> Scores:
        field = ndimage.gaussian_filter(rng.standard_normal((count, size, size)), (0, sigma, sigma))
        return np.asarray(field / field.std())

    masks = noise(4) > 1.5
    masks[-1] = False
    return (noise(3) + 1.5 * ndimage.gaussian_filter(masks.astype(float), (0, 2, 2))).astype(np.float32), masks


def test_every_region_counts_the_same() -> None:
    """One pixel found and a large region missed make a mean overlap of a half; corners that touch join pixels."""
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True
    masks[0, 3:, 3:] = True
    maps = np.where(masks, 0.0, 1.0).astype(np.float32)
    maps[0, :2, :2] = 2.0
    weights = regions.weights(masks)
    assert weights.tolist() == pytest.approx([1 / 4, 1 / 4] + [1 / 18] * 9)
    ranking = ranked(maps, masks, 0.3)
    assert ranking.overlap is not None
    rate, overlap = overlap_curve(ranking, ranking.overlap)
    assert np.interp(0.5, rate, overlap) == pytest.approx(0.5)
    assert (rate[0], overlap[0], rate[-1], overlap[-1]) == (0, 0, 1, pytest.approx(1))


def test_no_region_no_aupro() -> None:
    maps = np.ones((2, 3, 3), np.float32)
    assert regions.weights(np.zeros(maps.shape, bool)).shape == (0,)
    assert number(aupro(ranked(maps, np.zeros(maps.shape, bool), 0.3))) is None
    assert number(aupro(ranked(maps, np.ones(maps.shape, bool), 0.3))) is None
    assert number(aupro(Ranking.of(maps, np.eye(3, dtype=bool)[None].repeat(2, 0)))) is None


@settings(max_examples=300, deadline=None)
@given(scores=both_types, data=st.data())
def test_best_f1_threshold_reaches_f1_max(scores: Scores, data: st.DataObject) -> None:
    truth = data.draw(truths(len(scores)))
    threshold = best_f1_threshold(scores, truth)
    if truth.all() or not truth.any():
        assert threshold is None
        return
    assert threshold is not None
    reached = sklearn_f1(truth, scores.astype(np.float64) > threshold)
    assert reached == pytest.approx(best_f1(scores, truth), abs=1e-9)
    assert float(measure("image", Ranking.of(scores, truth, threshold))["image_F1Score"]) == pytest.approx(reached)


def test_best_f1_threshold_is_half_way_and_the_highest_of_several() -> None:
    truth = np.array([False, True, True])
    assert best_f1_threshold(np.array([1.0, 2.0, 4.0]), truth) == 1.5
    # One of two found, or both with two false alarms: F1 is 2/3 for each.
    assert best_f1_threshold(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, False, True])) == 3.5
    # Nothing is lower: just below.
    lowest = best_f1_threshold(np.array([2.0, 2.0], np.float32), np.array([True, False]))
    assert lowest == float(np.nextafter(np.float32(2), np.float32(0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_f1_threshold_between_neighbouring_numbers(dtype: type[np.floating]) -> None:
    upper = np.array(1, dtype)
    lower = np.nextafter(upper, upper * 0)
    assert best_f1_threshold(np.array([lower, upper]), np.array([False, True])) == float(lower)


def policy(**changes: Any) -> dict[str, Any]:
    quantiles = {"method": "normal_quantile", "quantile": 0.99, "pixel_quantile": 0.5}
    return {**quantiles, "share": 0.3, "seed": 0, "image": None, "pixel": None, **changes}


def test_thresholds_from_held_out_normal_images() -> None:
    thresholds = fix_thresholds(policy(), predictions([0, 0, 0]))
    assert thresholds == Thresholds(11.0, 5.5, "3 held-out normal images", image_scale=4.0)
    assert fix_thresholds(policy(quantile=0.5), predictions([0, 0, 0])).image == 7.0
    assert fix_thresholds(policy(), replace(predictions([0]), maps=None, masks=None)).pixel is None
    nothing = Thresholds(None, None, "none: data.val is 0")
    assert fix_thresholds(policy(), None) == fix_thresholds(policy(), predictions([])) == nothing


def test_thresholds_given_or_none() -> None:
    fixed = fix_thresholds(policy(method="fixed", image=2.5), None)
    assert fixed == Thresholds(2.5, None, "fixed in the config")
    assert fix_thresholds(policy(method="none"), predictions([0])) == Thresholds(None, None, "none: threshold is none")


def test_thresholds_from_labelled_images() -> None:
    """Scores 3, 7, 11, 15; the pixels of the anomalous ones begin at 8."""
    thresholds = fix_thresholds(policy(method="f1_on_val"), predictions([0, 0, 0]), predictions([0, 0, 1, 1]))
    assert (thresholds.image, thresholds.pixel) == (9.0, 7.5)
    assert thresholds.fixed_by == "best F1 on 2 normal and 2 anomalous images taken out of the test set"
    without = fix_thresholds(policy(method="f1_on_val"), None, predictions([0, 0, 1, 1], with_masks=False))
    assert (without.image, without.pixel) == (9.0, None)


def samples_of(**numbers: int) -> list[Sample]:
    """`good=3, crack=2`: that many of each."""
    return [
        Sample(f"/{kind}/{i}", f"{kind}/{i}", int(kind != "good"), kind)
        for kind, count in numbers.items()
        for i in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(
    good=st.integers(2, 30),
    kinds=st.lists(st.integers(1, 20), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_validation_part_is_a_share_of_each_type(good: int, kinds: list[int], share: float, seed: int) -> None:
    samples = samples_of(good=good, **{f"kind{i}": size for i, size in enumerate(kinds)})
    chosen = validation_part(samples, share, seed)
    assert chosen.shape == (len(samples),)
    assert np.array_equal(chosen, validation_part(list(samples), share, seed))
    for defect in {sample.defect for sample in samples}:
        taken = [bool(one) for sample, one in zip(samples, chosen, strict=True) if sample.defect == defect]
        if len(taken) == 1:
            assert taken == [False]
        else:
            assert 1 <= sum(taken) <= len(taken) - 1
            assert abs(sum(taken) - share * len(taken)) <= 1


def test_validation_part_depends_on_the_seed_alone() -> None:
    samples = samples_of(good=40, crack=40)
    parts = [validation_part(samples, 0.3, seed).tobytes() for seed in (0, 0, 1, 2)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 3
    assert validation_part(samples, 0.3, 0).sum() == 24


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"good": 1, "crack": 5}, "threshold f1_on_val: 1 normal test images found"),
        ({"crack": 5}, "threshold f1_on_val: 0 normal test images found"),
        ({"good": 5}, "threshold f1_on_val: 0 anomalous test images found"),
        ({"good": 5, "crack": 1, "hole": 1}, "threshold f1_on_val: 2 anomalous test images found.*of one type"),
    ],
)
def test_too_few_images_for_a_validation_part(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        validation_part(samples_of(**numbers), 0.3, 0)


def scored(samples: list[Sample], seed: int = 0) -> Predictions:
    """Random scores and 4 x 4 maps, higher for anomalous images and in their upper half."""
    rng = np.random.default_rng(seed)
    labels = np.array([sample.label == 1 for sample in samples])
    masks = np.zeros((len(samples), 4, 4), bool)
    masks[labels, :2] = True
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    return Predictions(tuple(samples), rng.standard_normal(len(samples)) + labels, maps, masks)


def test_validation_images_leave_the_test_set() -> None:
    everything = scored(samples_of(good=20, crack=10, hole=11, rare=1))
    evaluation = evaluate_predictions(everything, None, F1_ON_VAL, fpr_limit=0.2)
    assert evaluation.validation is not None
    assert not set(evaluation.validation.samples) & set(evaluation.test.samples)
    assert set(evaluation.validation.samples) | set(evaluation.test.samples) == set(everything.samples)
    assert len(evaluation.validation.samples) == 6 + 3 + 3
    assert evaluation.metrics == evaluate(evaluation.test, evaluation.thresholds, 0.2)
    assert evaluation.metrics != evaluate(everything, evaluation.thresholds, 0.2)
    assert evaluation.intervals == intervals(
        evaluation.test.scores, evaluation.test.labels, evaluation.thresholds.image
    )
    reached = evaluate(evaluation.validation, evaluation.thresholds)
    assert reached["image_F1Score"] == reached["image_F1Max"]
    assert reached["pixel_F1Score"] == reached["pixel_F1Max"]


@pytest.mark.parametrize("limit", [0.05, 1.0])
def test_pixel_figures_of_a_run_are_those_of_its_maps(limit: float) -> None:
    everything = scored(samples_of(good=5, crack=5))
    metrics = evaluate_predictions(everything, None, policy(method="fixed", pixel=0.5), limit).metrics
    maps, masks = everything.maps, everything.masks
    assert maps is not None
    assert masks is not None
    assert metrics["pixel_AUPRO"] == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-6)
    assert metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-6)
    assert metrics["pixel_F1Score"] == pytest.approx(sklearn_f1(masks.ravel(), maps.ravel() > 0.5), abs=1e-6)


def test_scores_of_the_test_set_do_not_move_the_threshold() -> None:
    everything = scored(samples_of(good=20, crack=10))
    before = evaluate_predictions(everything, None, F1_ON_VAL)
    stays = [sample in before.test.samples for sample in everything.samples]
    after = evaluate_predictions(
        replace(everything, scores=everything.scores + 10.0 * np.array(stays)), None, F1_ON_VAL
    )
    assert after.thresholds == before.thresholds
    assert after.metrics["image_FalsePositives"] == len(before.test.samples) - before.test.labels.sum()


def test_nothing_is_taken_out_otherwise() -> None:
    everything = scored(samples_of(good=4, crack=3))
    calibration = scored(samples_of(good=3), seed=1)
    evaluation = evaluate_predictions(everything, calibration, policy())
    assert (evaluation.test, evaluation.validation, evaluation.calibration) == (everything, None, calibration)
    assert evaluation.thresholds == fix_thresholds(policy(), calibration)
    assert evaluation.metrics == evaluate(everything, evaluation.thresholds)


def test_each_type_of_defect_against_all_normal_images() -> None:
    everything = scored(samples_of(good=12, scratch=4, crack=7))
    threshold = 0.5
    evaluation = evaluate_predictions(everything, None, policy(method="fixed", image=threshold))
    assert [(one["defect"], one["images"]) for one in evaluation.defects] == [("crack", 7), ("scratch", 4)]
    for one in evaluation.defects:
        kept = np.array([sample.defect in {"good", one["defect"]} for sample in everything.samples])
        labels, scores = everything.labels[kept], everything.scores[kept]
        assert one["missed"] == (scores[labels] <= threshold).sum()
        assert one["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert one["image_AP"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)


def test_types_of_defects_without_a_threshold_or_normal_images() -> None:
    assert [one["missed"] for one in evaluate_predictions(scored(samples_of(good=2, crack=2)), None, NONE).defects] == [
        None
    ]
    assert evaluate_predictions(scored(samples_of(good=2)), None, NONE).defects == []
    alone = evaluate_predictions(scored(samples_of(crack=2)), None, NONE)
    assert alone.defects == [{"defect": "crack", "images": 2, "missed": None, "image_AUROC": None, "image_AP": None}]
    assert alone.intervals == {}
    assert alone.curves["image"] == {}


def drawn_area(points: dict[str, list[float]]) -> float:
    return float(np.trapezoid(points["tpr"], points["fpr"]))


@settings(max_examples=200, deadline=None)
@given(scores=scores_of(np.float64, least=2), data=st.data())
def test_curves_of_few_scores_are_exact(scores: Scores, data: st.DataObject) -> None:
    truth = data.draw(truths(len(scores)))
    ranking = Ranking.of(scores, truth)
    points = curves(ranking)
    if truth.all() or not truth.any():
        assert points == {}
        return
    assert drawn_area(points) == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    check_shape(points)
    precision, recall, _ = precision_recall_curve(truth, scores)
    drawn = set(zip(points["recall"][1:], points["precision"][1:], strict=True))
    assert drawn <= {(round(float(r), 5), round(float(p), 5)) for r, p in zip(recall, precision, strict=True)}


def check_shape(points: dict[str, list[float]]) -> None:
    assert (points["fpr"][0], points["tpr"][0], points["fpr"][-1], points["tpr"][-1]) == (0, 0, 1, 1)
    assert (points["recall"][0], points["recall"][-1]) == (0, 1)
    assert points["precision"][0] == points["precision"][1]
    for name in ("fpr", "tpr", "recall"):
        assert points[name] == sorted(points[name])
    assert len(points["fpr"]) == len(points["tpr"]) <= 210
    assert len(points["recall"]) == len(points["precision"]) <= 210
    assert 0 <= min(points["precision"]) <= max(points["precision"]) <= 1


@pytest.mark.parametrize("share", [0.5, 0.03])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.5, 1.0, 2.0, 5.0])
def test_curves_of_many_scores_are_few_points(shift: float, share: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(100_000) < share
    scores = (rng.standard_normal(100_000) + shift * truth).astype(np.float32)
    points = curves(Ranking.of(scores, truth))
    check_shape(points)
    assert drawn_area(points) == pytest.approx(roc_auc_score(truth, scores), abs=1e-2)


def test_part_of_predictions() -> None:
    everything = predictions([0, 1, 0, 1])
    chosen = np.array([False, True, True, False])
    part = everything.part(chosen)
    assert [sample.name for sample in part.samples] == ["1", "2"]
    assert part.labels.tolist() == [True, False]
    assert part.scores.tolist() == [7.0, 11.0]
    assert part.maps is not None
    assert part.masks is not None
    assert part.maps[:, 0, 0].tolist() == [4.0, 8.0]
    assert part.masks[:, 0, 0].tolist() == [True, False]
    bare = replace(everything, maps=None, masks=None).part(chosen)
    assert (bare.maps, bare.masks, len(bare.samples)) == (None, None, 2)


def test_masks_that_vanished() -> None:
    everything = predictions([0, 1, 1])
    assert everything.masks is not None
    with_files = replace(
        everything, samples=tuple(replace(one, masks=("/mask.png",) if one.label else ()) for one in everything.samples)
    )
    assert vanished(with_files) == []
    everything.masks[2] = False
    assert vanished(with_files) == ["2"]
    assert vanished(everything) == []
    assert vanished(replace(with_files, masks=None)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_can_not_be_ranked_are_refused(bad: float) -> None:
    sample = Sample("/a", "a.png", 0, "good")
    with pytest.raises(PredictionsError, match=r"NaN or infinite scores for 1 of 1 images \(a\.png\)"):
        join([sample], {"/a": (bad, None)})
    with pytest.raises(PredictionsError, match="NaN or infinite values in 1 anomaly maps"):
        join([sample], {"/a": (1.0, np.array([[bad]], dtype=np.float32))})


def test_predictions_are_joined_by_path() -> None:
    samples = [Sample(f"/{n}", n, 0, "good") for n in "abc"]
    raw = {f"/{n}": (float(ord(n)), None) for n in "cab"}
    assert join(samples, raw).scores.tolist() == [97.0, 98.0, 99.0]
    with pytest.raises(PredictionsError, match="2 images found, 3 expected: 1 missing"):
        join(samples, {k: v for k, v in raw.items() if k != "/b"})
    with pytest.raises(PredictionsError, match="anomaly maps for 1 of 3 images"):
        join(samples, {**raw, "/a": (1.0, np.zeros((2, 2), np.float32))})
