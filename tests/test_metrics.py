"""Metrics agree with scikit-learn to 1e-6, and are blank where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score as sklearn_f1
from sklearn.metrics import precision_recall_curve, roc_auc_score

from harness import registry
from harness.datasets.base import Sample
from harness.errors import PredictionsError
from harness.metrics.auroc import auroc
from harness.metrics.evaluate import evaluate
from harness.metrics.f1 import f1_max, f1_score
from harness.metrics.ranking import Ranking
from harness.metrics.thresholds import Thresholds, fix_thresholds
from harness.predictions import Predictions, join

# Few different values, so that ties are common.
tied = hnp.arrays(np.float32, st.integers(2, 60), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]))
spread = hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(-1e6, 1e6, allow_nan=False))


@settings(max_examples=300, deadline=None)
@given(scores=st.one_of(tied, spread), data=st.data())
def test_agree_with_scikit_learn(scores: np.ndarray, data: st.DataObject) -> None:
    truth = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    threshold = float(data.draw(st.sampled_from(list(scores))))
    ranking = Ranking.of(scores, truth, threshold)
    if truth.all() or not truth.any():
        assert (auroc(ranking), f1_max(ranking), f1_score(ranking)) == (None, None, None)
        return
    assert auroc(ranking) == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    precision, recall, _ = precision_recall_curve(truth, scores)
    best = max(2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True))
    assert f1_max(ranking) == pytest.approx(best, abs=1e-6)
    assert f1_score(ranking) == pytest.approx(sklearn_f1(truth, scores > threshold, zero_division=0), abs=1e-6)


def test_by_hand() -> None:
    ranking = Ranking.of(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]), 0.4)
    assert auroc(ranking) == pytest.approx(3.5 / 4)
    assert f1_score(ranking) == pytest.approx(2 / 3)
    assert f1_max(ranking) == pytest.approx(0.8)


def test_no_threshold_no_f1_score() -> None:
    ranking = Ranking.of(np.array([0.0, 1.0]), np.array([False, True]))
    assert f1_score(ranking) is None
    assert f1_max(ranking) == 1.0


def predictions(labels: list[int], with_masks: bool = True) -> Predictions:
    samples = tuple(Sample(str(i), str(i), label, "bad" if label else "good") for i, label in enumerate(labels))
    maps = np.arange(len(labels) * 4, dtype=np.float32).reshape(-1, 2, 2)
    masks = np.repeat(np.array(labels, dtype=bool), 4).reshape(-1, 2, 2) if with_masks else None
    return Predictions(samples, maps.max(axis=(1, 2)).astype(np.float64), maps, masks)


def test_every_registered_metric_at_both_levels() -> None:
    values = evaluate(predictions([0, 0, 1, 1]), Thresholds(7.0, 7.0, ""))
    assert list(values) == [f"{level}_{name}" for level in ("image", "pixel") for name in registry.METRICS]
    assert all(value == 1.0 for value in values.values())


def test_pixel_metrics_are_blank_without_masks_and_all_without_a_class() -> None:
    values = evaluate(predictions([0, 0, 1, 1], with_masks=False), Thresholds(7.0, 7.0, ""))
    assert all((value is None) == name.startswith("pixel_") for name, value in values.items())
    assert set(evaluate(predictions([0, 0]), Thresholds(1.0, 1.0, "")).values()) == {None}


def test_thresholds_from_held_out_normal_images() -> None:
    policy = {"method": "normal_quantile", "quantile": 0.99, "pixel_quantile": 0.5, "image": None, "pixel": None}
    found = fix_thresholds(policy, predictions([0, 0, 0]))
    assert (found.image, found.pixel) == (11.0, 5.5)
    assert found.fixed_by == "3 held-out normal images"
    assert fix_thresholds(policy, None).image is None
    assert fix_thresholds({**policy, "method": "fixed", "image": 2.5}, None).image == 2.5
    assert fix_thresholds({**policy, "method": "none"}, predictions([0])).image is None


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
