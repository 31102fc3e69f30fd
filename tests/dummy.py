"""A backend that needs no Torch: scores are the mean difference to the mean training image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.backends.base import HELD_OUT, TEST_IMAGES, Detected, Failure, Outcome, RunContext, Signature
from harness.common.errors import ConfigError
from harness.config.spec import RunSpec
from harness.data.images import read_image
from harness.data.samples import Sample, Split
from harness.predictions.detection import Predictions, join

PARAMETERS: dict[str, dict[str, Any]] = {
    "mean": {"power": 1.0, "fail": False},
    "plain": {},
}


class DummyBackend:
    """A quick backend. With `fail: true` a run raises; all runs on a category are one group."""

    task: ClassVar[str] = "detection"
    heavy: ClassVar[str] = "tests.dummy"
    runs: ClassVar[list[RunSpec]] = []
    before_run: ClassVar[Callable[[RunSpec], None] | None] = None

    def parameters(self, model: str) -> Signature:
        if model not in PARAMETERS:
            raise ConfigError(f"model: unknown dummy model {model!r}")
        return Signature(model, PARAMETERS[model])

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
        del splits, device
        return ["power: found 99, expected less."] if any(s.parameters.get("power") == 99 for s in specs) else []

    def remarks(
        self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str, memory_limit: int | None
    ) -> list[str]:
        del specs, splits, device, memory_limit
        return []

    def share_key(self, spec: RunSpec) -> Hashable:
        return spec.seed

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """No work is shared on part of a group."""
        del spec
        return ()

    def run(self, specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
        del context
        mean = np.mean([read_image(s.path) for s in split.train], axis=0)
        for spec in specs:
            type(self).runs.append(spec)
            if type(self).before_run is not None:
                type(self).before_run(spec)
            if spec.parameters.get("fail"):
                yield Failure(spec, ValueError("asked to fail\n=and to start a formula"))
                continue
            power = float(spec.parameters.get("power", 1.0))
            yield Detected(
                spec=spec,
                test=_predict(split.test, mean, power),
                calibration=_predict(split.val, mean, power) if split.val else None,
                seconds={"fit": 0.0, "test": 0.0},
                device="cpu",
                save_model=_save,
                cost={"seconds_p50": 0.001 * power, "seconds_p95": 0.002 * power, "model_size": 4.0},
                validation=TEST_IMAGES if not split.val else HELD_OUT,
                own_metrics={"dummy_image_AUROC": 0.5},
                weights={"policy": spec.weights, "source": "none"},
            )


def _save(folder: Path) -> None:
    (folder / "model.ckpt").write_text("a model")


def _predict(samples: Sequence[Sample], mean: Any, power: float) -> Predictions:
    raw = {}
    for sample in samples:
        difference = (np.abs(read_image(sample.path) - mean).mean(axis=2) / 255) ** power
        raw[sample.path] = (float(difference.mean()), difference.astype(np.float32))
    return join(samples, raw)
