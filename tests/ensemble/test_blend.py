"""Averages, votes and rules of a blend, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.ensemble.blend import Blend, blend
from harness.ensemble.combine import average, count_votes, second_label, with_second_first
from harness.ensemble.recipe import load_recipe
from tests.conftest import Cli
from tests.ensemble.written import write_run

LABELS = ("a-bad", "a-good", "b-bad", "b-good")
A_BAD, A_GOOD, B_BAD, B_GOOD = range(4)


def row(label: int, confidence: float = 0.7) -> list[float]:
    """Probabilities of one image."""
    return [confidence if i == label else (1 - confidence) / 3 for i in range(4)]


def runs(**labels: list[tuple[int, float] | int]) -> None:
    """A run for each name, with the same probabilities out of fold and for the test."""
    for name, images in labels.items():
        rows = [row(*image) if isinstance(image, tuple) else row(image) for image in images]
        write_run(name, LABELS, [0] * len(rows), rows, rows)


def blended(recipe: dict[str, Any]) -> Blend:
    Path("mix.yaml").write_text(yaml.safe_dump(recipe))
    return blend(load_recipe(Path("mix.yaml")))


def result_of(rule: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    """Labels after one rule; the first of the runs is the average."""
    recipe = {"runs": {name: name for name in names}, "soft": {names[0]: 1}, "rules": [rule]}
    predictions = blended(recipe).predictions
    assert predictions.predicted.tolist() == predictions.test_predicted.tolist()
    return predictions.predicted.tolist()


# ---- averages


def test_an_average_of_logits_is_a_geometric_mean() -> None:
    one, two = np.array([[0.8, 0.2]], dtype=np.float32), np.array([[0.1, 0.9]], dtype=np.float32)
    # 3 to 1: powers 3/4 and 1/4 of the probabilities.
    first, second = 0.8**0.75 * 0.1**0.25, 0.2**0.75 * 0.9**0.25
    mean = average([one, two], [3, 1], "logits")
    np.testing.assert_allclose(mean, [[first / (first + second), second / (first + second)]], rtol=1e-6)
    np.testing.assert_allclose(average([one, two], [3, 1], "probabilities"), [[0.625, 0.375]], rtol=1e-6)
    # A zero is a very small number, not the end of the label.
    zero = average([np.array([[1, 0]], dtype=np.float32), one], [1, 1], "logits")
    assert np.isfinite(zero).all()
    assert zero[0, 0] == pytest.approx(1)


def test_logits_are_averaged_over_folds_too() -> None:
    by_fold = [[[0.9, 0.05, 0.05, 0]], [[0.2, 0.8, 0, 0]]]
    write_run("one", LABELS, [0], [row(0)], by_fold)
    # 0.9 + 0.2 > 0.05 + 0.8, and 0.9 * 0.2 > 0.05 * 0.8; the probability tells the two apart.
    blends = {
        kind: blended({"runs": {"A": "one"}, "average": kind}).predictions for kind in ("probabilities", "logits")
    }
    assert blends["probabilities"].test_probabilities[0, 0] == pytest.approx(0.55)
    first, second = (0.9 * 0.2) ** 0.5, (0.05 * 0.8) ** 0.5
    assert blends["logits"].test_probabilities[0, 0] == pytest.approx(first / (first + second))


def test_a_rule_takes_an_average_of_other_sources() -> None:
    runs(one=[(A_BAD, 0.9), A_GOOD], two=[(B_BAD, 0.5), (B_BAD, 0.9)])
    sources = {"one": "one", "two": "two", "both": {"average_of": {"one": 1, "two": 3}}}
    # 1 to 3: a-bad (0.9 + 3 * 0.167) / 4 = 0.35, b-bad (0.033 + 3 * 0.5) / 4 = 0.38.
    result = blended({"runs": sources, "rules": [{"take": "both", "classes": ["a"]}]})
    assert result.predictions.predicted.tolist() == [B_BAD, B_BAD]
    # `equal` averages the runs alone.
    assert result.shares == {"one": 0.5, "two": 0.5, "both": 0}


# ---- votes


@pytest.mark.parametrize(
    ("weights", "ties", "winner"),
    [
        ([1, 1, 1], "keep", 1),  # 2 votes to 1
        ([3, 1, 1], "keep", 0),  # 3 to 2
        ([2, 1, 1], "keep", None),  # 2 to 2
        ([2, 1, 1], "first", 0),
        ([0.3, 0.1, 0.2], "keep", None),  # 0.1 + 0.2 is not exactly 0.3
        ([0.3, 0.1, 0.2], "first", 0),
    ],
)
def test_votes_have_weights_and_a_rule_for_ties(weights: list[float], ties: str, winner: int | None) -> None:
    votes = [(np.array([label]), np.array([False])) for label in (0, 1, 1)]
    shares, winners, won = count_votes(votes, weights, 2, ties)
    assert won.tolist() == [winner is not None]
    if winner is not None:
        assert winners.tolist() == shares.argmax(axis=1).tolist() == [winner]
    assert shares.sum() == pytest.approx(1)


def test_null_wins_a_tie_and_all_null_has_no_winner() -> None:
    cases = {(True, False, False): True, (True, True, False): False, (True, True, True): False}
    for nulls, has_winner in cases.items():
        votes = [(np.array([1]), np.array([null])) for null in nulls]
        assert count_votes(votes, [1, 1, 1], 2, "first")[2].tolist() == [has_winner]
    # Null and a label with one vote each.
    votes = [(np.array([1]), np.array([null])) for null in (True, False)]
    assert count_votes(votes, [1, 1], 2, "first")[2].tolist() == [False]


def test_a_vote_with_nulls_and_with_the_current_label() -> None:
    runs(
        now=[A_GOOD, A_GOOD, A_GOOD, A_GOOD],
        x=[A_BAD, (A_BAD, 0.4), A_BAD, B_BAD],
        y=[A_BAD, A_BAD, B_BAD, B_BAD],
    )
    names = ("now", "x", "y")
    votes = {"x": 1, "y": 1}
    assert result_of({"vote": votes}, names) == [A_BAD, A_BAD, A_GOOD, B_BAD]
    assert result_of({"vote": votes, "ties": "first"}, names) == [A_BAD, A_BAD, A_BAD, B_BAD]
    # The second image has one null and one a-bad, which is a tie that null wins.
    assert result_of({"vote": votes, "null_below": 0.5}, names) == [A_BAD, A_GOOD, A_GOOD, B_BAD]
    assert result_of({"vote": {"x": 1, "y": 2}, "null_below": 0.5}, names) == [A_BAD, A_BAD, B_BAD, B_BAD]
    assert result_of({"vote": {"x": 1, "y": 2}, "null_unless_class": ["a"]}, names) == [A_BAD, A_BAD, A_GOOD, A_GOOD]
    assert result_of({"vote": {"current": 2, **votes}}, names) == [A_GOOD] * 4
    assert result_of({"vote": {"current": 1, **votes}}, names) == [A_BAD, A_BAD, A_GOOD, B_BAD]
    assert result_of({"vote": votes, "where_state_not": "bad"}, names) == [A_GOOD] * 4
    # The confidence of a vote is its share.
    rule = {"vote": {"x": 1, "y": 3}, "where_confidence_below": 0.9}
    assert result_of(rule, names) == [A_GOOD, A_GOOD, B_BAD, A_GOOD]


# ---- rules


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({}, [1, 1, 1, 1]),
        ({"where_class": ["a"]}, [1, 0, 0, 1]),
        ({"unless_class": ["a"]}, [0, 1, 1, 0]),
        ({"where_class": ["a"], "of": "current"}, [1, 1, 0, 0]),
        ({"unless_class": ["a"], "of": "current"}, [0, 0, 1, 1]),
        ({"where_class": ["a"], "classes": ["b"]}, [0, 0, 0, 1]),
        ({"where_state": "bad", "of": "current"}, [0, 1, 1, 0]),
        ({"where_state_not": "bad", "of": "current"}, [1, 0, 0, 1]),
        ({"where_label": "a-good", "of": "current"}, [1, 0, 0, 0]),
        ({"where_confidence_below": 0.6}, [0, 1, 0, 0]),
        ({"where_confidence_below": 0.6, "of": "current"}, [0, 0, 1, 0]),
        ({"where_confidence_below": 0.5}, [0, 0, 0, 0]),  # 0.5 is not below 0.5
        ({"unless": {"run": "current", "state": "bad"}}, [1, 0, 0, 1]),
        ({"unless": {"run": "new", "label": "a-bad"}}, [0, 1, 1, 0]),
        ({"unless": {"run": "new", "state": "bad", "confidence_from": 0.6}}, [0, 1, 0, 0]),
        ({"unless": {"run": "new", "state": "bad", "confidence_from": 0.5}}, [0, 0, 0, 0]),
    ],
)
def test_conditions_of_a_rule(conditions: dict[str, Any], applies: list[int]) -> None:
    now = [A_GOOD, A_BAD, B_BAD, B_GOOD]
    new = [A_BAD, B_BAD, B_BAD, A_BAD]
    runs(now=[now[0], now[1], (now[2], 0.5), now[3]], new=[new[0], (new[1], 0.5), (new[2], 0.8), new[3]])
    labels = result_of({"take": "new", **conditions}, ("now", "new"))
    assert labels == [new[i] if rule_applies else now[i] for i, rule_applies in enumerate(applies)]


def test_the_second_label() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.4, 0.2, 0.4], [1, 0, 0]], dtype=np.float32)
    # Of equal probabilities the first label counts: in row 1 the third label is second, in row 2 the second label.
    assert second_label(rows).tolist() == [1, 2, 1]
    swapped = with_second_first(rows)
    assert swapped.argmax(axis=1).tolist() == [1, 2, 1]
    np.testing.assert_allclose(swapped[0], [0.3, 0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(swapped.sum(axis=1), 1, rtol=1e-6)


def test_a_rule_with_the_second_label_looks_at_its_probability() -> None:
    rows = [[0.1, 0.5, 0.4, 0], [0.1, 0.8, 0.1, 0], [0.6, 0.3, 0.1, 0]]
    write_run("one", LABELS, [0, 0, 0], rows, rows)
    rule: dict[str, Any] = {"take": "current", "choice": "second"}
    assert result_of(rule, ("one",)) == [B_BAD, A_BAD, A_GOOD]
    assert result_of({**rule, "of": "current", "where_state": "good"}, ("one",)) == [B_BAD, A_BAD, A_BAD]
    assert result_of({**rule, "where_confidence_below": 0.35}, ("one",)) == [A_GOOD, A_BAD, A_GOOD]


def test_an_older_blend_keeps_its_id(cli: Cli) -> None:
    runs(one=[A_BAD, A_GOOD], two=[A_BAD, B_GOOD])
    rules = [{"take": "B", "where_state": "good", "classes": ["a"], "unless": {"run": "A", "label": "a-bad"}}]
    recipe = {"runs": {"A": "one", "B": "two"}, "soft": {"A": 3, "B": 1}, "rules": rules}
    Path("mix.yaml").write_text(yaml.safe_dump(recipe))
    assert cli("blend", "mix.yaml").exit_code == 0
    assert [path.name for path in Path("results/mix/runs").iterdir()] == ["blend-mix-6fa7c300"]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"average": "labels"}, "average: found 'labels', expected 'probabilities' or 'logits'"),
        ({"average": "logits", "soft": "fit"}, "soft: fit found with `average: logits`; expected"),
        ({"rules": [{}]}, "expected exactly one of `take` and `vote`"),
        ({"rules": [{"take": "A", "vote": {"A": 1}}]}, "expected exactly one of `take` and `vote`"),
        ({"rules": [{"take": "A", "ties": "first"}]}, "ties: expected only with `vote`"),
        ({"rules": [{"take": "A", "null_below": 0.5}]}, "null_below: expected only with `vote`"),
        ({"rules": [{"vote": {"A": 1}, "choice": "second"}]}, "choice: expected only with `take`"),
        ({"rules": [{"vote": {"A": 1}, "ties": "last"}]}, "found 'last', expected 'keep' or 'first'"),
        ({"rules": [{"vote": {"A": 1}, "null_below": 2}]}, "null_below: found 2, expected less than or equal to 1"),
        (
            {"rules": [{"vote": {"A": 1}, "null_unless_class": ["z"]}]},
            "rules[0]: class 'z' found; expected one of a, b",
        ),
        ({"rules": [{"vote": {"A": 0}}]}, "vote: expected weights from 0 that are not all 0"),
        ({"rules": [{"vote": {"A": -1, "current": 2}}]}, "vote: expected weights from 0"),
        ({"rules": [{"vote": {"A": float("nan")}}]}, "vote: expected weights from 0"),
        ({"rules": [{"vote": {"AA": 1}}]}, "unknown run 'AA'"),
        ({"rules": [{"take": "current"}]}, "rules[0].take: current found; expected `choice: second`"),
        ({"rules": [{"take": "A", "choice": "third"}]}, "found 'third', expected 'first' or 'second'"),
        ({"rules": [{"take": "A", "of": "old"}]}, "found 'old', expected 'new' or 'current'"),
        ({"rules": [{"take": "A", "where_class": ["z"]}]}, "rules[0]: class 'z' found; expected one of a, b"),
        ({"rules": [{"take": "A", "where_class": []}]}, "where_class"),
        ({"rules": [{"take": "A", "unless_class": ["z"]}]}, "rules[0]: class 'z' found; expected one of a, b"),
        ({"rules": [{"take": "A", "where_confidence_below": 0}]}, "where_confidence_below: found 0, expected greater"),
        ({"rules": [{"take": "A", "unless": {"run": "A", "state": "good", "confidence_from": 2}}]}, "confidence_from"),
        ({"rules": [{"take": "A", "unless": {"run": "A", "state": "odd"}}]}, "state 'odd' found; expected one of bad"),
        ({"runs": {"A": "A", "M": {"average_of": {"B": 1}}}}, "unknown run 'B'"),
        ({"runs": {"A": "A", "M": {"average_of": {"A": 0}}}}, "average_of: expected weights from 0"),
        ({"runs": {"A": "A", "M": {"average_of": {"M": 1}}}}, "average_of: 'M' is an average too"),
        ({"runs": {"A": "A", "M": {"average_of": {"A": 1}, "folds": {0: 1}}}}, "folds: expected only with `run`"),
        ({"runs": {"A": {"run": "A", "average_of": {"A": 1}}}}, "expected exactly one of `run`"),
        ({"soft": {"current": 1}}, "unknown run 'current'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(cli: Cli, recipe: dict[str, Any], words: str) -> None:
    runs(A=[A_BAD, B_GOOD])
    Path("b.yaml").write_text(yaml.safe_dump({"runs": {"A": "A"}, **recipe}))
    result = cli("blend", "b.yaml")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert not Path("results").exists()
