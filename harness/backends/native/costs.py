"""The cost of the runs of a group, and the network that its detectors share."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from harness.backends.cost import PeakMemory, size
from harness.common.devices import Device
from harness.detectors.base import Detector, State
from harness.detectors.features import Extractor


class Costs:
    """Measures the cost of the detectors of a group, one after the other.

    Args:
        device: the device of the detectors.
    """

    def __init__(self, device: Device) -> None:
        self._peak = PeakMemory(device)
        self._network: tuple[Hashable, Extractor] | None = None

    def of(self, detector: Detector, state: State, test_seconds: float, test_images: int) -> dict[str, float | None]:
        """Return the cost of a detector, see `harness.backends.base.Outcome.cost`.

        Args:
            detector: the detector.
            state: its fitted state.
            test_seconds: time of the test, in seconds.
            test_images: number of test images.
        """
        # The peak must not include the timing of single images, which is not a part of a run.
        cost = self._peak.cost()
        cost["images_per_second"] = test_images / test_seconds if test_seconds else None
        with self.fitted(detector, state):
            cost["model_size"] = size(detector.extractor().network.state_dict().values()) + size(state.values())
        return cost

    @contextmanager
    def fitted(self, detector: Detector, state: State) -> Iterator[Detector]:
        """Give a detector its state and network inside this context only: a group has many runs in memory at once.

        Equal detectors share a network, since building a network is slow.

        Args:
            detector: the detector.
            state: its fitted state.

        Yields:
            The detector.
        """
        key = network_key(detector)
        if self._network is None or self._network[0] != key:
            self._network = (key, detector.extractor())
        detector.lend(self._network[1])
        detector.state = state
        try:
            yield detector
        finally:
            detector.forget()


def network_key(detector: Detector) -> Hashable:
    """The properties that distinguish the networks of a group."""
    return (detector.needed_layers(), detector.precision, detector.weights_seed)
