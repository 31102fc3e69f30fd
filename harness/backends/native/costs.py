"""The cost of the runs of a group; work that the runs share is timed once."""

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

KEPT = 64 * 2**20  # bytes of features that stay in memory for the timing of the scoring


class Costs:
    """Measures the cost of the detectors of a group, one after the other.

    Detectors with the same preprocessing and backbone share the timing of both. Detectors with the same `timing_key`
    share the timing of the scoring, on the same images. The time of a detector is the sum of both timings.

    Args:
        test: test samples; some of them are timed.
        device: the device of the detectors.
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
        """Return the cost of a detector and warnings about the measurement.

        Args:
            detector: the detector.
            state: its fitted state.
            test_seconds: time of the test, in seconds.

        Returns:
            See `harness.backends.base.Outcome.cost`; and the warnings, one sentence each.
        """
        # The peak must not include the timing of single images, which is not a part of a run.
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
        """Give the detector the network of the detector before, if both are equal, since building a network is slow."""
        key = _network_key(detector)
        if self._network is None or self._network[0] != key:
            self._network = (key, detector.extractor())
        detector.lend(self._network[1])

    def _timing(self, detector: Detector, state: State) -> Timing:
        extracting, features = self._extracting(detector)
        key = (_network_key(detector), detector.view, detector.timing_key())
        if key not in self._scoring:

            def score(maps: FeatureMaps) -> None:
                with torch.no_grad():
                    detector.score(state, maps, detector.view.input_size)

            self._scoring[key] = times(score, features, self._device)
        scoring = self._scoring[key]
        # The shorter list repeats, so that every measured time counts.
        longest = max(len(extracting.seconds), len(scoring.seconds))
        pairs = zip(itertools.cycle(extracting.seconds), itertools.cycle(scoring.seconds), strict=False)
        total = [sum(pair) for pair in itertools.islice(pairs, longest)]
        return Timing(total, max(extracting.others, scoring.others))

    def _extracting(self, detector: Detector) -> tuple[Timing, list[FeatureMaps]]:
        """The timing of resizing and backbone, and the features of some images."""
        key = (_network_key(detector), detector.view)
        if key not in self._features:
            self._images = self._images or [read_image(sample.path) for sample in some(self._test, IMAGES)]
            extractor = detector.extractor()
            features: list[FeatureMaps] = []

            def extract(image: RGB) -> None:
                maps = extractor(detector.view(image)[None].to(self._device.torch))
                if size(tensor for others in features for tensor in others.values()) < KEPT:
                    features.append(maps)

            self._features[key] = (times(extract, self._images, self._device), features)
        return self._features[key]


def _network_key(detector: Detector) -> Hashable:
    """The properties that distinguish the networks of a group."""
    return (detector.needed_layers(), detector.precision, detector.weights_seed)
