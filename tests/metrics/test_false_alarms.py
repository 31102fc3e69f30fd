"""Thresholds for a rate of false alarms: their rank, their rate, and quantiles of maps larger than the memory."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.samples import Sample
from harness.metrics.false_alarms import conformal_threshold, images_for
from harness.metrics.order import quantile_of_maps
from harness.metrics.thresholds import fix_thresholds
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions

POLICY = {"method": "cross_conformal", "false_alarms": 0.01, "folds": 5, "pixel_quantile": 0.5, "seed": 0}


def normal(count: int) -> Predictions:
    samples = tuple(Sample(f"/{i}.png", f"{i}.png", 0, "good") for i in range(count))
    maps = np.arange(count * 4, dtype=np.float32).reshape(count, 2, 2)
    return Predictions(samples, np.arange(count, dtype=np.float64), maps, None)


@given(count=st.integers(1, 300), rate=st.sampled_from([0.01, 0.02, 0.05, 0.07, 0.1, 0.3, 0.5]))
def test_the_rank_is_that_of_the_formula(count: int, rate: float) -> None:
    threshold = conformal_threshold(np.random.default_rng(count).permutation(count).astype(np.float64), rate)
    rank = ceil((count + 1) * (1 - Fraction(str(rate))))
    assert threshold.value == min(rank, count) - 1
    if rank <= count:
        assert 0 < threshold.false_alarms <= rate
    else:
        assert threshold.false_alarms == 1 / (count + 1)
    assert (count >= images_for(rate)) == (threshold.false_alarms <= rate)


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.4])
def test_the_rate_is_exact_over_all_orders(rate: float) -> None:
    """Each of the n + 1 images is the new one equally often."""
    orders = list(permutations(range(5)))
    alarms = [scores[-1] > conformal_threshold(np.array(scores[:-1], dtype=float), rate).value for scores in orders]
    assert np.mean(alarms) == pytest.approx(conformal_threshold(np.arange(4.0), rate).false_alarms)


def test_the_record_says_what_holds_and_what_was_asked() -> None:
    thresholds = fix_thresholds(POLICY, normal(9))
    assert (thresholds.image, thresholds.fixed_by) == (8.0, "9 training images in 5 folds")
    assert (thresholds.false_alarms, thresholds.false_alarms_asked, thresholds.guarantee) == (0.1, 0.01, "estimated")
    assert (thresholds.image_scale, thresholds.pixel, thresholds.pixel_scale) == (4.0, 17.5, None)
    held_out = fix_thresholds({**POLICY, "method": "held_out"}, normal(99))
    assert (held_out.image, held_out.false_alarms, held_out.guarantee) == (98.0, 0.01, "promised")
    assert held_out.fixed_by == "99 held-out normal images"
    assert fix_thresholds(POLICY, normal(3)).fixed_by == "3 training images in 3 folds"
    assert fix_thresholds({**POLICY, "method": "held_out"}, None) == Thresholds(fixed_by="none: data.val is 0")


def test_thresholds_are_read_back_and_checked() -> None:
    thresholds = fix_thresholds(POLICY, normal(9))
    assert Thresholds.from_dict(vars(thresholds)) == thresholds
    for change in ({"false_alarms": 1.0}, {"false_alarms_asked": "0.1"}, {"guarantee": "sure"}):
        with pytest.raises(ValueError, match="expected"):
            Thresholds.from_dict({**vars(thresholds), **change})


@given(seed=st.integers(0, 50), share=st.sampled_from([0.0, 0.3, 0.5, 0.999, 1.0]))
def test_quantiles_of_maps_are_those_of_numpy(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.normal(scale=10.0 ** rng.integers(-3, 4), size=(int(rng.integers(1, 5)), 3, 4)).astype(np.float32)
    maps.ravel()[: int(rng.integers(0, 6))] = rng.choice([0.0, -0.0, 1.5])
    expected = float(np.quantile(maps.astype(np.float64), share))
    assert quantile_of_maps(maps, share) == pytest.approx(expected, rel=1e-6, abs=1e-9)
