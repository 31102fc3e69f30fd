"""Detectors that are fitted and tested in one call: one stage may serve several of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from harness.detectors.base import Detector

Alike = TypeVar("Alike", bound="Detector")


class Group:
    """Detectors that are fitted and tested in one call, and which of them can share stages.

    One pass over the detectors prepares all answers.

    Args:
        detectors: the detectors; they have the same network and the same images.
    """

    def __init__(self, detectors: Iterable[Detector]) -> None:
        self._detectors = tuple(detectors)
        self._layers: dict[Hashable, set[str]] = {}
        self._alike: dict[Hashable, list[Any]] = {}
        for detector in self._detectors:
            for training in (True, False):
                layers = self._layers.setdefault((training, detector.extraction(training)), set())
                layers.update(detector.needed_layers())
            self._alike.setdefault((type(detector), detector.sharing_key()), []).append(detector)

    def __iter__(self) -> Iterator[Detector]:
        """The detectors, in their order."""
        return iter(self._detectors)

    def layers(self, detector: Detector, training: bool) -> tuple[str, ...]:
        """The layers that one pass over the images computes for all detectors with the same extraction, sorted.

        Args:
            detector: one of the detectors.
            training: whether the images are the training images.
        """
        return tuple(sorted(self._layers[training, detector.extraction(training)]))

    def alike(self, detector: Alike) -> list[Alike]:
        """The detectors of the same class with the same `sharing_key`.

        Args:
            detector: one of the detectors.
        """
        return self._alike[type(detector), detector.sharing_key()]
