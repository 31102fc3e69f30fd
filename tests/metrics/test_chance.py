"""Bootstrap intervals and DeLong's test against plain loops, and against what is known of simulated data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm, t
from sklearn.metrics import roc_auc_score

from harness import registry
from harness.metrics import intervals as intervals_module
from harness.metrics.delong import Components, paired_test
from harness.metrics.intervals import _resampled, auroc_draws, interval, intervals
from harness.metrics.ranking import Ranking, measure

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def binormal(rng: np.random.Generator, normal: int, anomalous: int, shift: float = 1.0) -> tuple[Scores, Labels]:
    labels = np.arange(normal + anomalous) >= normal
    return rng.standard_normal(len(labels)) + shift * labels, labels


def scored(least: int) -> st.SearchStrategy[tuple[Scores, Labels]]:
    """Few different scores (ties) or many, at least `least` images of each class, in any order."""

    def build(seed: int, normal: int, anomalous: int, values: int) -> tuple[Scores, Labels]:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(normal + anomalous) >= normal)
        return rng.integers(values, size=len(labels)) / 4, labels

    counts = st.integers(least, 15)
    return st.builds(build, st.integers(0, 10_000), counts, counts, st.sampled_from([1, 2, 4, 1000]))


@settings(max_examples=200, deadline=None)
@given(images=scored(1), threshold=st.sampled_from([-1.0, 0.0, 0.3, 100.0]), seed=st.integers(0, 3))
def test_resamples_are_ranked_like_the_images_drawn(images: tuple[Scores, Labels], threshold: float, seed: int) -> None:
    scores, labels = images
    positives, negatives = scores[labels], scores[~labels]
    (together,) = _resampled(scores, labels, threshold, 5, seed)
    values = measure("image", together)
    rng = np.random.default_rng(seed)
    p = rng.integers(len(positives), size=(5, len(positives)))
    n = rng.integers(len(negatives), size=(5, len(negatives)))
    drawn_labels = np.arange(len(scores)) < len(positives)
    for draw in range(5):
        drawn = np.concatenate([positives[p[draw]], negatives[n[draw]]])
        alone = measure("image", Ranking.of(drawn, drawn_labels, threshold))
        for name, value in alone.items():
            np.testing.assert_allclose(values[name][draw], value, rtol=0, atol=1e-12, err_msg=name)


def test_intervals_are_the_same_each_time() -> None:
    scores, labels = binormal(np.random.default_rng(0), 40, 30)
    by_metric = intervals(scores, labels, 0.5)
    assert by_metric == intervals(scores.copy(), labels.copy(), 0.5)
    assert by_metric != intervals(scores, labels, 0.5, seed=1)
    assert set(by_metric) == {one.key for one in registry.METRICS if one.level == "image"}
    values = measure("image", Ranking.of(scores, labels, 0.5))
    for name, (low, high) in by_metric.items():
        assert low < values[name] < high, name


def test_intervals_in_pieces_are_as_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = binormal(np.random.default_rng(0), 60, 60)
    whole = intervals(scores, labels, 0.5)
    monkeypatch.setattr(intervals_module, "CELLS", 7 * len(scores))
    assert [len(one.tp) for one in _resampled(scores, labels, None, 16, 0)] == [7, 7, 2]
    pieces = intervals(scores, labels, 0.5)
    assert set(pieces) == set(whole)
    for name, (low, high) in pieces.items():
        assert high - low == pytest.approx(whole[name][1] - whole[name][0], rel=0.2), name
    assert len(auroc_draws(scores, labels, 16)) == 16
    # More images than fit at a time go one draw after the other.
    monkeypatch.setattr(intervals_module, "CELLS", 10)
    assert len(auroc_draws(scores, labels, 3)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("normal", "anomalous", "shift"), [(60, 60, 1.0), (20, 20, 2.6), (60, 20, 2.6), (10, 10, 2.3)])
def test_intervals_cover_the_truth_as_often_as_they_say(normal: int, anomalous: int, shift: float) -> None:
    """Also near 1 and with few images, where quantiles of the draws would cover it in 80 of 100 cases."""
    threshold = 1.5
    truth = {"image_AUROC": norm.cdf(shift / np.sqrt(2)), "image_Recall": norm.sf(threshold - shift),
             "image_FalsePositives": normal * norm.sf(threshold)}  # fmt: skip
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(truth, 0)
    for _ in range(200):
        scores, labels = binormal(rng, normal, anomalous, shift)
        by_metric = intervals(scores, labels, threshold, resamples=400)
        for name, value in truth.items():
            covered[name] += by_metric[name][0] <= value <= by_metric[name][1]
    for name, times in covered.items():
        assert 0.90 <= times / 200 <= 1.0, name


def test_intervals_where_there_is_nothing_to_say() -> None:
    scores = np.array([1.0, 2.0, 3.0])
    assert intervals(scores, np.zeros(3, bool), 1.0) == intervals(scores, np.ones(3, bool), 1.0) == {}
    assert intervals(np.empty(0), np.empty(0, bool)) == {}
    labels = np.array([False, True, True])
    assert set(intervals(scores, labels)) == {"image_AUROC", "image_AP", "image_F1Max", "image_FPR95"}
    # Nothing is ever above the threshold, so precision is undefined in every draw.
    of_images = {one.key for one in registry.METRICS if one.level == "image"}
    assert set(intervals(scores, labels, 9.0)) == of_images - {"image_Precision"}


def test_where_all_are_right_the_end_is_the_exact_binomial_one() -> None:
    scores, labels = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([False, False, False, True, True])
    by_metric = intervals(scores, labels, 2.5)
    two, three = (beta.ppf(0.025, images, 1) for images in (2, 3))
    assert by_metric["image_AUROC"] == pytest.approx((two, 1.0))
    assert by_metric["image_Recall"] == pytest.approx((two, 1.0))
    assert by_metric["image_FalseNegatives"] == pytest.approx((0.0, 2 * (1 - two)))
    assert by_metric["image_FalsePositives"] == pytest.approx((0.0, 3 * (1 - three)))


def test_draws_of_equal_labels_are_of_equal_images() -> None:
    rng = np.random.default_rng(0)
    scores, labels = binormal(rng, 30, 20)
    draws = auroc_draws(scores, labels, 300)
    assert draws.shape == (300,)
    assert np.array_equal(draws, auroc_draws(np.exp(scores), labels, 300))
    assert draws.mean() == pytest.approx(roc_auc_score(labels, scores), abs=0.02)
    better = auroc_draws(scores + 0.5 * labels, labels, 300)
    assert (better >= draws).all()


def test_an_interval_lies_around_its_figure_on_the_logit_scale() -> None:
    draws = np.concatenate([np.array([0.8, 0.9]), np.full(50, np.nan)])
    low, high = interval(0.85, draws, 20) or (0, 0)
    step = t.ppf(0.975, 19) * np.sqrt(20 / 19) * 0.05 / (0.85 * 0.15)
    for end, sign in ((low, -1), (high, 1)):
        assert np.log(end / (1 - end)) == pytest.approx(np.log(0.85 / 0.15) + sign * step)
    # The draws of an optimistic metric are higher than its value by its bias.
    low, high = interval(0.8, draws, 20, optimistic=True) or (0, 0)
    assert np.log(low / (1 - low)) + np.log(high / (1 - high)) == pytest.approx(2 * np.log(0.8 / 0.25))
    assert interval(0.5, np.full(3, np.nan), 20) is None
    assert interval(np.nan, draws, 20) is None


def slow_components(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """V10 and V01 as the paper defines them: means of the kernel 1, 1/2 or 0 over the other class."""
    anomalous, normal = scores[labels], scores[~labels]
    kernel = np.array([[1.0 if y < x else 0.5 if y == x else 0.0 for y in normal] for x in anomalous])
    return kernel.mean(axis=1), kernel.mean(axis=0)


@settings(max_examples=200, deadline=None)
@given(images=scored(1))
def test_components_agree_with_the_double_loop(images: tuple[Scores, Labels]) -> None:
    scores, labels = images
    components = Components.of(scores, labels)
    anomalous, normal = slow_components(scores, labels)
    np.testing.assert_allclose(components.anomalous, anomalous, atol=1e-12)
    np.testing.assert_allclose(components.normal, normal, atol=1e-12)
    assert components.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert components.normal.mean() == pytest.approx(components.auroc)


def slow_variance(several: Sequence[Scores], labels: Labels, contrast: Sequence[float]) -> tuple[float, float]:
    """The contrast of the scorers' AUROCs, and its variance from the covariance matrices S10 and S01."""
    parts = [slow_components(scores, labels) for scores in several]
    v10, v01 = np.array([part[0] for part in parts]), np.array([part[1] for part in parts])
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    weights = np.array(contrast)
    return float(weights @ v10.mean(axis=1)), float(weights @ covariance @ weights)


def slow_p(sets: Sequence[tuple[float, float]], images: int) -> float:
    """Two-sided, of summed differences and variances, with the floor; equal AUROCs give 1."""
    difference, variance = (sum(values) for values in zip(*sets, strict=True))
    if abs(difference) < 1e-9:
        return 1.0
    p = 2 * norm.sf(abs(difference) / np.sqrt(variance)) if variance > 1e-14 else 0.0
    return max(float(p), 2.0 ** (1 - images))


def rescored(scores: Scores, seed: int, changed: float) -> Scores:
    """Another scorer's view of the same images."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(scores)) < changed, rng.permutation(scores), scores)


@settings(max_examples=300, deadline=None)
@given(images=scored(2), seed=st.integers(0, 10_000), changed=st.sampled_from([0.1, 0.5, 1.0]))
def test_p_value_agrees_with_explicit_covariances(images: tuple[Scores, Labels], seed: int, changed: float) -> None:
    scores, labels = images
    other = rescored(scores, seed, changed)
    expected = slow_p([slow_variance([scores, other], labels, [1, -1])], len(labels))
    first, second = [Components.of(scores, labels)], [Components.of(other, labels)]
    assert paired_test(first, second) == pytest.approx(expected, rel=1e-6)
    assert paired_test(second, first) == paired_test(first, second)


@settings(max_examples=200, deadline=None)
@given(sets=st.lists(scored(2), min_size=2, max_size=4), seed=st.integers(0, 10_000))
def test_several_data_sets_are_independent(sets: list[tuple[Scores, Labels]], seed: int) -> None:
    others = [rescored(scores, seed + number, 0.5) for number, (scores, _) in enumerate(sets)]
    pairs = [(scores, other, labels) for (scores, labels), other in zip(sets, others, strict=True)]
    slow = [slow_variance([scores, other], labels, [1, -1]) for scores, other, labels in pairs]
    expected = slow_p(slow, sum(len(labels) for _, labels in sets))
    first = [Components.of(scores, labels) for scores, _, labels in pairs]
    second = [Components.of(other, labels) for _, other, labels in pairs]
    p_value = paired_test(first, second)
    assert p_value == pytest.approx(expected, rel=1e-6)
    assert paired_test(first[::-1], second[::-1]) == pytest.approx(p_value, rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(images=scored(2), seed=st.integers(0, 10_000))
def test_mean_over_seeds_is_a_contrast_of_all_runs(images: tuple[Scores, Labels], seed: int) -> None:
    scores, labels = images
    runs = [scores, *(rescored(scores, seed + number, 0.5) for number in range(3))]
    difference, variance = slow_variance(runs, labels, [0.5, 0.5, -0.5, -0.5])
    assume(abs(difference) > 1e-9)
    several = [Components.of(run, labels) for run in runs]
    first, second = Components.mean(several[:2]), Components.mean(several[2:])
    assert first.auroc == pytest.approx((several[0].auroc + several[1].auroc) / 2)
    assert first.auroc - second.auroc == pytest.approx(difference)
    assert paired_test([first], [second]) == pytest.approx(slow_p([(difference, variance)], len(labels)), rel=1e-6)


def test_equal_runs_do_not_differ() -> None:
    scores, labels = binormal(np.random.default_rng(0), 30, 30)
    run = Components.of(scores, labels)
    assert paired_test([run], [run]) == 1.0
    assert paired_test([run, run], [run, Components.of(3 * scores + 1, labels)]) == 1.0
    again = Components.mean([run, run, run])
    assert paired_test([again], [run]) == 1.0


def test_equally_good_scorers_rarely_differ() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(100) >= 50
    p_values = []
    for _ in range(400):
        common = rng.standard_normal(100) + 1.5 * labels
        one, other = (Components.of(common + rng.standard_normal(100), labels) for _ in range(2))
        p_values.append(paired_test([one], [other]))
    assert 0.02 <= np.mean([p is not None and p < 0.05 for p in p_values]) <= 0.09
    assert None not in p_values


def test_clearly_different_scorers_differ() -> None:
    rng = np.random.default_rng(0)
    good, labels = binormal(rng, 60, 60, shift=3.0)
    bad, _ = binormal(rng, 60, 60, shift=0.0)
    p = paired_test([Components.of(good, labels)], [Components.of(bad, labels)])
    assert p is not None
    assert p < 0.001


@pytest.mark.parametrize(("normal", "anomalous"), [(1, 5), (5, 1), (1, 1)])
def test_no_p_value_for_a_single_image_of_a_class(normal: int, anomalous: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = binormal(rng, normal, anomalous)
    few = Components.of(scores, labels), Components.of(-scores, labels)
    scores, labels = binormal(rng, 9, 9)
    enough = Components.of(scores, labels), Components.of(-scores, labels)
    assert paired_test(few[:1], few[1:]) is None
    assert paired_test([enough[0], few[0]], [enough[1], few[1]]) is None
    assert paired_test(enough[:1], enough[1:]) is not None


@pytest.mark.parametrize(("images", "expected"), [(5, 2.0**-4), (20, 2.0**-19), (2000, 2.0**-1000)])
def test_no_variance_gives_the_smallest_p_value(images: int, expected: float) -> None:
    """One scorer separates the classes, the other has them the wrong way round."""
    labels = np.arange(images) >= images // 2
    scores = labels.astype(np.float64)
    right, wrong = Components.of(scores, labels), Components.of(-scores, labels)
    assert (right.auroc, wrong.auroc) == (1.0, 0.0)
    assert paired_test([right], [wrong]) == expected
