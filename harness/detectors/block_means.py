"""Names of features that are means over several blocks of a vision transformer, before its final norm.

    blocks.2+blocks.3.mean           the mean of the two blocks' patches, as a map
    blocks.2+blocks.3.prefix_mean    the same of the tokens before the patches: class token and registers

A pass of the network thus keeps one map for several blocks, which saves memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

PATCHES = ".mean"
PREFIX = ".prefix_mean"


def patches_of(blocks: Sequence[str]) -> str:
    """The name of the mean of the blocks' patches."""
    return "+".join(blocks) + PATCHES


def prefix_of(blocks: Sequence[str]) -> str:
    """The name of the mean of the blocks' tokens before the patches."""
    return "+".join(blocks) + PREFIX


def is_mean(layer: str) -> bool:
    """Whether a name is one of such a mean."""
    return layer.endswith((PATCHES, PREFIX))


def blocks_of(layer: str) -> list[str]:
    """The blocks in the name of a mean."""
    return layer.removesuffix(PATCHES).removesuffix(PREFIX).split("+")


def mean(layer: str, outputs: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]]) -> torch.Tensor:
    """Compute the mean of a name.

    Args:
        layer: name of the mean.
        outputs: by block, patches (n, channels, h, w) and the tokens before them (n, tokens, channels). The tokens are
            None for a network without such tokens.

    Returns:
        (n, channels, h, w) for patches; (n, channels, 1, tokens) for the tokens before them.
    """
    values = []
    for block in blocks_of(layer):
        patches, prefix = outputs[block]
        if layer.endswith(PREFIX):
            assert prefix is not None, layer
            values.append(prefix.float().mT[:, :, None])
        else:
            values.append(patches.float())
    return torch.stack(values).mean(dim=0)
