"""The stage tree: several runs share the results of their common stages.

    images -> features -> embedding -> coreset order -> bank -> neighbours -> scores

A stage is a frozen dataclass. Its fields are its parameters and the stages that it uses. Two equal stages have the same
result, so `Stages` computes the result once, on demand, and measures the time. The result is deleted after its last
user has read it.
"""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from harness.common.threads import same_number
from harness.detectors.context import StageContext


@dataclass(frozen=True)
class Stage(ABC):
    """A pure function of its fields and of the images.

    Attributes:
        title: name of the work, for the progress line and the timings.
    """

    title: ClassVar[str]

    @abstractmethod
    def compute(self, context: StageContext, *inputs: Any) -> Any:
        """Compute the result of the stage.

        Args:
            context: device, images, weights, memory and cache.
            inputs: results of the stages in `uses()`, in the same order.
        """

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The stages that this stage uses, each with the key of the needed subset (None: the whole result).

        Args:
            key: subset of this stage's result that is needed; a key of `StageContext.mark_time`.
        """
        del key
        return [(value, None) for field in fields(self) if isinstance(value := getattr(self, field.name), Stage)]


class Stages:
    """Computes the stages of several runs.

    Args:
        roots: one stage for each later call of `value`; equal stages may occur several times.
        context: argument of all stages.

    Attributes:
        spent: seconds of all computed stages.
    """

    def __init__(self, roots: Iterable[Stage], context: StageContext) -> None:
        self._context = context
        self._values: dict[Stage, Any] = {}
        self._errors: dict[Stage, Exception] = {}
        self._seconds: dict[tuple[Stage, Hashable], float] = {}
        self._warnings: dict[Stage, list[tuple[Hashable, str]]] = {}
        self.spent = 0.0
        # Number of stages and runs that still need each stage.
        self._users: Counter[Stage] = Counter(roots)
        for stage in {stage for stage, _ in _closure((root, None) for root in self._users)}:
            self._users.update(source for source, _ in stage.uses())

    def value(self, stage: Stage) -> Any:
        """The result of a stage, computed on the first call.

        Raises:
            Exception: the error of the stage, again on every call.
        """
        if stage in self._errors:
            raise self._errors[stage]
        if stage not in self._values:
            sources = [source for source, _ in stage.uses()]
            try:
                inputs = [self.value(source) for source in sources]
                self._values[stage] = self._compute(stage, inputs)
            except Exception as error:
                self._errors[stage] = error
                # The frames of the stored error would keep their inputs in memory.
                traceback.clear_frames(error.__traceback__)
                raise
            finally:
                for source in sources:
                    self.release(source)
        return self._values[stage]

    def _compute(self, stage: Stage, inputs: Sequence[Any]) -> Any:
        seconds_by_key = self._context.start_stage(stage.title)
        start = time.perf_counter()
        try:
            with same_number():
                value = stage.compute(self._context, *inputs)
                self._context.device.synchronize()
        finally:
            elapsed = time.perf_counter() - start - self._context.observation_seconds
            self.spent += elapsed
        # A run of its own, without a cache, would also compute the results that came from the cache.
        self._seconds[stage, None] = elapsed + self._context.cached_seconds
        self._seconds.update({(stage, key): seconds for key, seconds in seconds_by_key.items()})
        self._warnings[stage] = self._context.warnings
        return value

    def release(self, stage: Stage) -> None:
        """Count one user less; the result is deleted after the last user."""
        self._users[stage] -= 1
        if self._users[stage] <= 0:
            self._values.pop(stage, None)

    def standalone_seconds(self, root: Stage) -> dict[Stage, float]:
        """Seconds of `root` and of each stage that it uses, as if no other run shared them."""
        times: dict[Stage, float] = {}
        for stage, key in _closure([(root, None)]):
            seconds = self._seconds.get((stage, key), self._seconds.get((stage, None), 0.0))
            times[stage] = max(times.get(stage, 0.0), seconds)
        return times

    def warnings(self, root: Stage) -> list[str]:
        """Warnings of `root` and of the stages that it uses."""
        return [
            text
            for stage, key in _closure([(root, None)])
            for subset, text in self._warnings.get(stage, [])
            if subset is None or subset == key
        ]


def _closure(roots: Iterable[tuple[Stage, Hashable]]) -> list[tuple[Stage, Hashable]]:
    """The roots and all stages that they use, each (stage, key) once."""
    closure: dict[tuple[Stage, Hashable], None] = {}
    queue = list(roots)
    while queue:
        stage, key = queue.pop()
        if (stage, key) not in closure:
            closure[stage, key] = None
            queue += stage.uses(key)
    return list(closure)
