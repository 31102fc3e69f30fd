"""The time of a single image: warm-up, number of images, marks; and the parts that it covers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from harness.backends import latency
from harness.backends.latency import (
    BUSY,
    FOR_P95,
    IMAGES,
    LEAST,
    MAX_LOAD,
    THREADS,
    WARM_UP_IMAGES,
    OtherLoad,
    Timing,
    measure,
    some,
    times,
)
from harness.data.toy_images import write_toy
from harness.tasks.detection import Detection


class Work:
    """A function that takes given times on a clock of its own, whatever the machine does."""

    def __init__(self, seconds: Sequence[float], then: float) -> None:
        self.now = 0.0
        self.inputs: list[int] = []
        self._seconds: Iterator[float] = chain(seconds, repeat(then))

    def __call__(self, value: int) -> None:
        self.inputs.append(value)
        self.now += next(self._seconds)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float], then: float) -> tuple[Timing, Work]:
    work = Work(seconds, then)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: work.now)
    return times(work, [1, 2]), work


@pytest.mark.parametrize(("seconds", "images", "warm_up"), [(0.001, IMAGES, 4), (0.25, 8, 4), (10.0, LEAST, 2)])
def test_fast_models_get_20_images_and_slow_ones_two_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, images: int, warm_up: int
) -> None:
    timing, work = timed(monkeypatch, [], seconds)
    assert timing.seconds == pytest.approx([seconds] * images)
    assert len(work.inputs) == images + warm_up
    assert work.inputs[:3] == [1, 2, 1]


def test_the_warm_up_ends_once_the_times_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    timing, work = timed(monkeypatch, [0.9, 0.08, 0.04, 0.02], 0.01)
    assert timing.seconds == pytest.approx([0.01] * IMAGES)
    assert len(work.inputs) == IMAGES + 7


def test_times_that_are_never_steady_end_the_warm_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, work = timed(monkeypatch, [0.01, 0.02] * 30, 0.01)
    assert len(work.inputs) == IMAGES + WARM_UP_IMAGES


def test_the_cost_has_median_95th_percentile_and_mark() -> None:
    cost = Timing([0.1] * 19 + [0.3], 0.1, 2).cost()
    expected = {"seconds_p50": 0.1, "seconds_p95": 0.11, "timed_images": 20, THREADS: 2, BUSY: False}
    assert cost == pytest.approx(expected)
    assert cost[BUSY] is False
    assert Timing([0.1] * (FOR_P95 - 1), 0.1).cost()["seconds_p95"] is None


def test_a_busy_machine_is_said_and_marked() -> None:
    assert Timing([0.1], MAX_LOAD).warnings() == []
    busy = Timing([0.1], 0.45)
    assert busy.cost()[BUSY] is True
    assert busy.warnings() == [
        "latency: other programs kept 45% of the machine busy while single images were timed; the times are too long"
    ]


def test_some_items_are_spread_over_all() -> None:
    items = list(range(100))
    assert some(items, 3) == [0, 50, 99]
    assert some(items[:2], 20) == items[:2]


@pytest.mark.slow
def test_what_this_process_does_itself_keeps_nobody_busy() -> None:
    """Another process that computes is seen; one's own work is not."""
    cores = psutil.cpu_count() or 1
    others = OtherLoad()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        sum(range(1000))
    alone = others.share()
    others = OtherLoad()
    # Until it is told to end.
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(1.5)
        beside = others.share()
        busy.kill()
    assert 0 <= alone <= 1
    assert beside >= 0.5 / cores


class Brightness:
    """A `Scorer` whose score is the brightness of an image."""

    def __init__(self) -> None:
        self.prepared: list[tuple[int, ...]] = []

    def prepare(self, pixels: Any) -> Any:
        self.prepared.append(pixels.shape)
        return pixels

    def score(self, prepared: Sequence[Any]) -> tuple[Any, Any]:
        maps = np.stack([pixels.mean(axis=2) for pixels in prepared])
        return maps.mean(axis=(1, 2)), maps


def test_the_time_begins_with_the_file_and_ends_with_the_decision(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy", categories=["plate"], train=4)
    paths = [str(path) for path in sorted((tmp_path / "toy/plate/train/good").iterdir())]
    scorer: Any = Brightness()
    decide = Detection().decision(scorer, {"image": 10.0, "pixel": 255.0})
    timing = measure(decide, paths)
    assert LEAST <= len(timing.seconds) <= IMAGES
    assert min(timing.seconds) > 0
    # Each timed image was read from its file and prepared, beside those of the warm-up.
    assert len(scorer.prepared) > len(timing.seconds)
    label, mask = decide(np.full((8, 8, 3), 255, np.uint8))  # type: ignore[misc]
    assert label.tolist() == [True]
    assert not mask.any()
    assert Detection().decision(scorer, {})(np.zeros((8, 8, 3), np.uint8)) == (None, None)
