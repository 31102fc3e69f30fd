"""The trained networks of Dinomaly: a bottleneck and a decoder that reconstruct the features of a vision transformer.

Guo et al., Dinomaly, CVPR 2025, section 3. The names of the tensors are those of anomalib's model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

MLP_RATIO = 4  # hidden channels of an MLP, relative to the channels of a token
EPSILON = 1e-8  # of layer normalisation
# Initial weights: a normal distribution with this deviation, cut off at +-BOUND.
DEVIATION, BOUND = 0.01, 0.03


Item = TypeVar("Item")


@dataclass(frozen=True)
class Architecture:
    """The shape of the trained networks.

    Attributes:
        channels: of a token of the encoder.
        heads: of the attention; those of the encoder.
        depth: number of blocks of the decoder.
        dropout: share of the bottleneck's values that are zero in training.
        groups: number of means that the decoder reconstructs.
    """

    channels: int
    heads: int
    depth: int
    dropout: float
    groups: int


class MLP(nn.Module):
    """Two linear layers with GELU between them.

    Args:
        channels: of a token.
        dropout: share of zeros before, between and after the layers.
    """

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)
        self._dropout = dropout

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Transform tokens (n, tokens, channels)."""
        tokens = F.gelu(self.fc1(self._noisy(tokens)))
        return self._noisy(self.fc2(self._noisy(tokens)))

    def _noisy(self, values: torch.Tensor) -> torch.Tensor:
        return F.dropout(values, self._dropout, self.training)


class LinearAttention(nn.Module):
    """Attention without softmax, whose time grows linearly with the tokens (section 3.4).

    Katharopoulos et al., Transformers are RNNs, ICML 2020: exp(q k) becomes (elu(q) + 1) (elu(k) + 1).

    Args:
        channels: of a token.
        heads: number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Transform tokens (n, tokens, channels)."""
        # Each (n, heads, tokens, channels / heads).
        queries, keys, values = self.qkv(tokens).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        queries, keys = F.elu(queries) + 1, F.elu(keys) + 1
        weights = queries @ keys.sum(dim=2)[..., None]
        mixed = queries @ (keys.mT @ values) / weights
        attended: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return attended


class DecoderBlock(nn.Module):
    """One block of the decoder: attention and MLP, each after a norm and around a shortcut.

    Args:
        channels: of a token.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attn = LinearAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = MLP(channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Transform tokens (n, tokens, channels)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        mixed: torch.Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class Reconstruction(nn.Module):
    """Bottleneck and decoder.

    Args:
        architecture: shape of the networks.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, heads = architecture.channels, architecture.heads
        self._groups = architecture.groups
        self.bottleneck = nn.ModuleList([MLP(channels, architecture.dropout)])
        self.decoder = nn.ModuleList(DecoderBlock(channels, heads) for _ in range(architecture.depth))

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Reconstruct the means of the encoder's blocks.

        Args:
            tokens: (n, tokens, channels), the mean of all blocks of the encoder.

        Returns:
            For each group of the encoder's blocks, the shallow group first, (n, tokens, channels). The last blocks of
            the decoder reconstruct the first blocks of the encoder (section 3.5).
        """
        tokens = self.bottleneck[0](tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens)
            outputs.append(tokens)
        return [torch.stack(group).mean(dim=0) for group in in_groups(outputs[::-1], self._groups)]

    def initialise(self) -> None:
        """Draw the initial weights from Torch's global generator; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=DEVIATION, a=-BOUND, b=BOUND)
                nn.init.zeros_(module.bias)


def in_groups(items: Sequence[Item], count: int) -> list[list[Item]]:
    """Split items into groups that follow each other; the first groups are one item larger where sizes differ."""
    size, rest = divmod(len(items), count)
    ends = [(number + 1) * size + min(number + 1, rest) for number in range(count)]
    return [list(items[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
