"""What the runs of a group cost: what they have in common is timed once, as it is computed once."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import torch

from harness.backends.cost import IMAGES, PeakMemory, Timing, latency, size, some, times
from harness.common.devices import Device
from harness.data.base import Sample
from harness.data.images import RGB, read_image
from harness.detectors.base import Detector, State
from harness.detectors.features import Extractor, FeatureMaps

KEPT = 64 * 2**20  # bytes of features that are kept to time scoring on


class Costs:
    """Answers for one detector of a group after the other.

    Resizing and the backbone are timed once for all detectors that have them in common, and scoring once for all of
    equal speed, on the same images; a detector's time is the sum of both.

    Args:
        test: images, of which some are taken.
        device: what the detectors run on.
        timed: whether single images are timed.
    """

    def __init__(self, test: Sequence[Sample], device: Device, timed: bool) -> None:
        self._peak = PeakMemory(device)
        self._test, self._device, self._timed = test, device, timed
        self._images: list[RGB] = []
        self._features: dict[Hashable, tuple[Timing, list[FeatureMaps]]] = {}
        self._scoring: dict[Hashable, Timing] = {}
        self._network: tuple[Hashable, Extractor] | None = None

    def of(self, detector: Detector, state: State, test_seconds: float) -> tuple[dict[str, float | None], list[str]]:
        """See `harness.backends.base.Outcome.cost`; and what is to be said of it."""
        # Before single images are timed, which no run needs.
        cost = self._peak.cost()
        cost["images_per_second"] = len(self._test) / test_seconds if test_seconds else None
        self.lend_network(detector)
        network = detector.extractor().network.state_dict()
        cost["model_size"] = size(network.values()) + size(state.values())
        warnings: list[str] = []
        if self._timed:
            timing = self._timing(detector, state)
            cost |= latency(timing.seconds)
            warnings = timing.warnings()
        detector.forget()
        return cost, warnings

    def lend_network(self, detector: Detector) -> None:
        """Give the detector the network of the one before, if it is the same: building one takes time."""
        key = _network_key(detector)
        if self._network is None or self._network[0] != key:
            self._network = (key, detector.extractor())
        detector.lend(self._network[1])

    def _timing(self, detector: Detector, state: State) -> Timing:
        extracting, features = self._extracting(detector)
        key = (_network_key(detector), detector.view, detector.timing_key())
        if key not in self._scoring:

            def score(one: FeatureMaps) -> None:
                with torch.no_grad():
                    detector.score(state, one, detector.view.input_size)

            self._scoring[key] = times(score, features, self._device)
        scoring = self._scoring[key]
        # The shorter list again and again, so that no measured time is lost.
        longest = max(len(extracting.seconds), len(scoring.seconds))
        pairs = zip(itertools.cycle(extracting.seconds), itertools.cycle(scoring.seconds), strict=False)
        total = [sum(pair) for pair in itertools.islice(pairs, longest)]
        return Timing(total, max(extracting.others, scoring.others))

    def _extracting(self, detector: Detector) -> tuple[Timing, list[FeatureMaps]]:
        """Resizing and the backbone, timed; and features of some images."""
        key = (_network_key(detector), detector.view)
        if key not in self._features:
            self._images = self._images or [read_image(sample.path) for sample in some(self._test, IMAGES)]
            extractor = detector.extractor()
            kept: list[FeatureMaps] = []

            def extract(image: RGB) -> None:
                found = extractor(detector.view(image)[None].to(self._device.torch))
                if size(tensor for one in kept for tensor in one.values()) < KEPT:
                    kept.append(found)

            self._features[key] = (times(extract, self._images, self._device), kept)
        return self._features[key]


def _network_key(detector: Detector) -> Hashable:
    """What a network depends on within a group."""
    return (detector.needed_layers(), detector.precision, detector.weights_seed)
