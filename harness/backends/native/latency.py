"""Time of single images for the detectors of a group: the backbone's once, each detector's scoring by itself."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import torch

from harness.backends.cost import IMAGES, latency, size, some, times
from harness.datasets.base import Sample
from harness.detectors.base import Detector, State
from harness.detectors.features import FeatureMaps
from harness.devices import Device
from harness.images import RGB, read_image

KEPT = 64 * 2**20  # bytes of features that are kept to time scoring on


class Latencies:
    """Answers for one detector after the other.

    Resizing and the backbone are timed once for all detectors that have them in common, on the same images; a
    detector's time is the sum of theirs and its scoring's.

    Args:
        samples: images to take.
        device: what the detectors run on.
    """

    def __init__(self, samples: Sequence[Sample], device: Device) -> None:
        self._images = [read_image(sample.path) for sample in some(samples, IMAGES)]
        self._device = device
        self._features: dict[Hashable, tuple[list[float], list[FeatureMaps], float]] = {}

    def cost(self, detector: Detector, state: State) -> dict[str, float | None]:
        """Its latency, and the size of its model."""
        seconds, features, network = self._backbone(detector)

        def score(one: FeatureMaps) -> None:
            with torch.no_grad():
                detector.score(state, one, detector.view.seen)

        scoring = times(score, features, self._device)
        # The shorter list again and again, so that no measured time is lost.
        longest = max(len(seconds), len(scoring))
        both = zip(itertools.cycle(seconds), itertools.cycle(scoring), strict=False)
        total = [sum(pair) for pair in itertools.islice(both, longest)]
        return {**latency(total), "model_size": network + size(state.values())}

    def _backbone(self, detector: Detector) -> tuple[list[float], list[FeatureMaps], float]:
        """Seconds, features of some images, and the network's bytes."""
        key = (detector.needed_layers(), detector.precision, detector.weights_seed, detector.view)
        if key not in self._features:
            extractor = detector.extractor()
            kept: list[FeatureMaps] = []

            def extract(image: RGB) -> None:
                found = extractor(detector.view(image)[None].to(self._device.torch))
                if size(tensor for one in kept for tensor in one.values()) < KEPT:
                    kept.append(found)

            seconds = times(extract, self._images, self._device)
            self._features[key] = (seconds, kept, size(extractor.network.state_dict().values()))
            detector.forget()
        return self._features[key]
