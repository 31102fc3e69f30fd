"""The stages of RAD: a bank by position, distances for several comparisons, and scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.detectors.base import State
from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores, mean_of_largest, smooth
from harness.detectors.stages import Stage

SIGMA, KERNEL_RADIUS = 1.0, 2  # pixels, of the smoothing of maps
IMAGES = 4  # images that are compared at once

# Number of images to compare with, and the radius in patches.
Comparison = tuple[int, int]


def map_scores(distances: torch.Tensor, size: tuple[int, int]) -> Scores:
    """The scores of a batch: smoothed maps, and the mean of the largest 1% of their pixels.

    Args:
        distances: (n, h, w) of the patches.
        size: (height, width) of the maps.
    """
    maps = smooth(distances, size, sigma=SIGMA, radius=KERNEL_RADIUS)
    return Scores(mean_of_largest(maps.flatten(1)), maps)


def distances(
    state: State, features: FeatureMaps, layers: Sequence[str], token: str, comparisons: Sequence[Comparison]
) -> Iterator[dict[Comparison, torch.Tensor]]:
    """The mean distances over the layers, for a few images at a time; see `batch_distances`.

    Args:
        state: result of `PositionBank`.
        features: features by layer, on the device.
        layers: blocks of the patches.
        token: layer of the class token.
        comparisons: numbers of images, and radii.
    """
    maps = [features[layer] for layer in layers]
    tokens = features[token]
    for first in range(0, len(tokens), IMAGES):
        batch = slice(first, first + IMAGES)
        yield batch_distances(state, [layer[batch] for layer in maps], tokens[batch], comparisons)


def batch_distances(
    state: State, maps: Sequence[torch.Tensor], tokens: torch.Tensor, comparisons: Sequence[Comparison]
) -> dict[Comparison, torch.Tensor]:
    """The mean distances over the layers.

    Args:
        state: result of `PositionBank`.
        maps: (n, d, h, w) features of each layer.
        tokens: (n, d, 1, 1) class tokens.
        comparisons: numbers of images, and radii.

    Returns:
        (n, h, w) for each comparison.
    """
    likeness = F.normalize(tokens.flatten(1), dim=1) @ state["class_tokens"].T
    total: dict[Comparison, torch.Tensor] = {}
    for number, layer in enumerate(maps):
        radii = sorted({radius for _, radius in comparisons})
        # One product for all radii would have another shape than that of one radius, and so other last bits.
        products = {radius: _products(F.normalize(layer, dim=1), state[f"patches{number}"], radius) for radius in radii}
        for k, radius in comparisons:
            chosen = products[radius]
            if k < likeness.shape[1]:
                # The k-th largest likeness; images below it are not compared.
                least = likeness.topk(k, dim=1).values[:, -1:]
                chosen = chosen + torch.where(likeness < least, -4.0, 0.0)[:, None, None]
            distances = (1 - chosen.amax(dim=3)) / len(maps)
            total[k, radius] = total[k, radius] + distances if number else distances
    return total


def _products(maps: torch.Tensor, bank: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest product of each patch with the patches of each normal image within a radius.

    Args:
        maps: (n, d, h, w), vectors of length 1.
        bank: (h * w, m, d), vectors of length 1.
        radius: in patches.

    Returns:
        (n, h, w, m).
    """
    height, width = maps.shape[2:]
    offsets = [(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)]
    # Moved images instead of a moved bank, which is far larger: one product reads the bank once.
    padded = F.pad(maps, (radius, radius, radius, radius))
    moved = [padded[:, :, radius - y : radius - y + height, radius - x : radius - x + width] for y, x in offsets]
    queries = torch.stack(moved).permute(3, 4, 0, 1, 2).flatten(0, 1).flatten(1, 2)
    at_bank = (queries @ bank.mT).reshape(height, width, len(offsets), -1, bank.shape[1]).permute(2, 3, 0, 1, 4)
    largest: torch.Tensor | None = None
    for number, (y, x) in enumerate(offsets):
        if abs(y) >= height or abs(x) >= width:
            continue
        # The product of patch p with the bank's patch at p + (y, x); patches beyond the border do not exist.
        bottom, top, right, left = max(y, 0), max(-y, 0), max(x, 0), max(-x, 0)
        inside = at_bank[number][:, bottom : height - top, right : width - left]
        back = F.pad(inside, (0, 0, left, right, top, bottom), value=-2.0)
        largest = back if largest is None else torch.maximum(largest, back)
    assert largest is not None
    return largest


@dataclass(frozen=True)
class PositionBank(Stage):
    """The state of RAD: vectors of length 1 of all normal images, by position.

    Attributes:
        features: features of the training images.
        layers: blocks of the patches.
        token: layer of the class token.
    """

    features: Features
    layers: tuple[str, ...]
    token: str

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Normalise and sort the features.

        Args:
            context: memory, device and progress.
            inputs: features by layer.

        Returns:
            `class_tokens` (m, d), and `patches0` and so on, (h * w, m, d) for each layer.
        """
        state = {"class_tokens": context.to_device(F.normalize(inputs[0][self.token].flatten(1), dim=1))}
        for number, layer in enumerate(self.layers):
            maps = inputs[0][layer]
            images, width, height, columns = maps.shape
            bank = context.memory.tensor(height * columns, images, width)
            for first in range(images):
                bank[:, first] = F.normalize(maps[first].flatten(1), dim=0).T
            state[f"patches{number}"] = context.to_device(bank)
            context.report(number + 1, len(self.layers))
        return state


@dataclass(frozen=True)
class PositionDistances(Stage):
    """Distances for several numbers of similar images and radii. One product serves all numbers of a radius.

    Attributes:
        bank: features of the normal images.
        features: features of the scored images.
        comparisons: (k_image, pos_radius) of the detectors.
    """

    bank: PositionBank
    features: Features
    comparisons: tuple[Comparison, ...]

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[Comparison, torch.Tensor]:
        """Compute the distances (images, h, w) for each comparison.

        Args:
            context: device and progress.
            inputs: the bank, and features by layer.
        """
        state, maps = inputs
        device = context.device.torch
        layers, token = self.bank.layers, self.bank.token
        chosen = {layer: maps[layer] for layer in (*layers, token)}
        parts: list[dict[Comparison, torch.Tensor]] = []
        count = len(chosen[token])
        for first in range(0, count, IMAGES):
            batch = {layer: values[first : first + IMAGES].to(device) for layer, values in chosen.items()}
            parts += distances(state, batch, layers, token, self.comparisons)
            context.report(first + IMAGES, count)
        return {comparison: torch.cat([part[comparison].cpu() for part in parts]) for comparison in self.comparisons}

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The bank and the features, whatever the key."""
        del key
        return [(self.bank, None), (self.features, None)]


@dataclass(frozen=True)
class RADScores(Stage):
    """The scores of one RAD.

    Attributes:
        distances: distances for several comparisons.
        comparison: (k_image, pos_radius) of this detector.
    """

    distances: PositionDistances
    comparison: Comparison

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute maps and image scores.

        Args:
            context: size of the maps.
            inputs: distances by comparison.
        """
        return map_scores(inputs[0][self.comparison], context.images[self.distances.features.role].input_size)
