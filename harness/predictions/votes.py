"""Hard votes of several voters, where a vote may be null. Exports can contain all operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SAME = 1e-9  # smaller differences between sums of weights are rounding errors


def add_votes(
    choices: Sequence[torch.Tensor], nulls: Sequence[torch.Tensor], weights: Sequence[float], labels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the weights of the votes.

    Args:
        choices: of each voter, the positions of its labels, (n,).
        nulls: of each voter, whether its votes are null, (n,).
        weights: weight of each voter.
        labels: number of labels.

    Returns:
        Votes of each label, (n, labels), and null votes, (n,), in double precision.
    """
    positions = torch.arange(labels)
    votes = [
        weight * ((choice[:, None] == positions) & ~is_null[:, None]).double()
        for choice, is_null, weight in zip(choices, nulls, weights, strict=True)
    ]
    null_votes = [weight * is_null.double() for is_null, weight in zip(nulls, weights, strict=True)]
    return torch.stack(votes).sum(dim=0), torch.stack(null_votes).sum(dim=0)


def has_winner(votes: torch.Tensor, null_votes: torch.Tensor) -> torch.Tensor:
    """Return whether a label has more votes than null, (n,). Null counts as a label, and wins a tie.

    Args:
        votes: votes of each label, (n, labels).
        null_votes: null votes, (n,).
    """
    return votes.max(dim=1).values > null_votes + SAME
