"""Averages and votes of several sources for the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from harness.predictions.classification import Probabilities
from harness.predictions.votes import SAME, add_votes, has_winner

SMALLEST = float(np.finfo(np.float32).tiny)  # the logarithm of 0 is that of this number
NUDGE = 1e-5  # the margin of a label that a tie or a rule chose; large enough for float32

Values = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def softmax(logits: Values) -> Values:
    """Softmax of each row; shape (n, labels)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def average(sources: Sequence[Probabilities], weights: Sequence[float], kind: str) -> Probabilities:
    """The weighted mean of sources.

    The mean of logits is that of log probabilities. Both differ by one number for each source and image, and softmax
    ignores it.

    Args:
        sources: probabilities of each source, shape (n, labels).
        weights: their weights, with any sum above 0.
        kind: probabilities, or logits.

    Returns:
        Shape (n, labels); rows sum to 1.
    """
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    used = [(share, one.astype(np.float64)) for share, one in zip(shares, sources, strict=True) if share]
    if kind == "probabilities":
        return np.asarray(sum(share * one for share, one in used), dtype=np.float32)
    logits = sum(share * np.log(np.maximum(one, SMALLEST)) for share, one in used)
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64)), dtype=np.float32)


def count_votes(
    votes: Sequence[tuple[Positions, Mask]], weights: Sequence[float], labels: int, ties: str
) -> tuple[Probabilities, Positions, Mask]:
    """Count hard votes. Null counts as a label: it wins if no label has more votes.

    Args:
        votes: of each voter, the positions of its labels, shape (n,), and whether each vote is null, shape (n,).
        weights: weight of each voter.
        labels: number of labels.
        ties: `first`: of labels with equal votes, the first wins. `keep`: none of them wins.

    Returns:
        Shares of the votes without null, shape (n, labels); the winners, shape (n,); whether an image has a winner,
        shape (n,). Rows without a winner have no meaning.
    """
    choices, nulls = ([torch.from_numpy(array) for array in arrays] for arrays in zip(*votes, strict=True))
    counted, null_votes = add_votes(choices, nulls, [weight / sum(weights) for weight in weights], labels)
    counts, won = counted.numpy(), has_winner(counted, null_votes).numpy()
    tied = counts >= counts.max(axis=1, initial=0)[:, None] - SAME
    if ties == "keep":
        won &= tied.sum(axis=1) == 1
    winners = tied.argmax(axis=1)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, 1 / labels), where=totals > 0)
    return with_largest(shares, winners), winners, won


def second_label(probabilities: Probabilities) -> Positions:
    """The second most probable label of each image, shape (n,). Of equal probabilities the first label counts."""
    return np.asarray(np.argsort(-probabilities, axis=1, kind="stable")[:, 1], dtype=np.int64)


def with_second_first(probabilities: Probabilities) -> Probabilities:
    """Probabilities in which each image's first and second label have changed places; shape (n, labels)."""
    rows, first, second = np.arange(len(probabilities)), probabilities.argmax(axis=1), second_label(probabilities)
    swapped = probabilities.astype(np.float64)
    swapped[rows, first], swapped[rows, second] = probabilities[rows, second], probabilities[rows, first]
    return with_largest(swapped, second)


def with_largest(probabilities: Values, positions: Positions) -> Probabilities:
    """Make a label that ties with others strictly the most probable.

    Args:
        probabilities: shape (n, labels).
        positions: position of this label for each row, shape (n,).

    Returns:
        Shape (n, labels); rows sum to 1.
    """
    rows = np.arange(len(probabilities))
    others = probabilities.copy()
    others[rows, positions] = -1
    close = probabilities[rows, positions] < others.max(axis=1, initial=-1) + NUDGE
    result = probabilities.copy()
    result[rows[close], positions[close]] = others.max(axis=1, initial=-1)[close] + NUDGE
    return np.asarray(result / result.sum(axis=1, keepdims=True), dtype=np.float32)
