"""The stage tree: what runs have in common is computed once and kept only as long as one of them needs it.

    images -> features -> embedding -> coreset order -> bank -> neighbours -> scores

A stage is a frozen dataclass: its fields are its parameters and the stages it is computed from. Two equal stages are
the same work, whichever run asks. `Stages` computes each once, on demand, times it, and drops it when the last stage
or run that needs it has had it.
"""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from harness.detectors.context import StageContext


@dataclass(frozen=True)
class Stage(ABC):
    """A pure function of its fields and of the images.

    Attributes:
        title: what it does, for the progress line.
    """

    title: ClassVar[str]

    @abstractmethod
    def compute(self, context: StageContext, *inputs: Any) -> Any:
        """The result.

        Args:
            bench: device, images, memory.
            inputs: results of the stages in `uses()`, in that order.
        """

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The stages it is computed from, each with the part of it that is needed (None: all of it).

        Args:
            part: the part of this stage that is asked for; a name that `compute` gave to `StageContext.lap`.
        """
        del part
        return [(value, None) for field in fields(self) if isinstance(value := getattr(self, field.name), Stage)]


class Stages:
    """Computes stages for some runs.

    Args:
        roots: what will be asked for, once each; the same stage may be there several times.
        bench: passed on to the stages.
    """

    def __init__(self, roots: Iterable[Stage], context: StageContext) -> None:
        self._context = context
        self._values: dict[Stage, Any] = {}
        self._errors: dict[Stage, Exception] = {}
        self._seconds: dict[tuple[Stage, Hashable], float] = {}
        self._warnings: dict[Stage, list[tuple[Hashable, str]]] = {}
        self.spent = 0.0  # seconds in all
        # How many stages and runs still wait for each.
        self._waiting: Counter[Stage] = Counter(roots)
        for stage in {stage for stage, _ in _closure((root, None) for root in self._waiting)}:
            self._waiting.update(used for used, _ in stage.uses())

    def value(self, stage: Stage) -> Any:
        """The result of a stage.

        Raises:
            Exception: what the stage raised, each time it is asked for.
        """
        if stage in self._errors:
            raise self._errors[stage]
        if stage not in self._values:
            used = [needed for needed, _ in stage.uses()]
            try:
                inputs = [self.value(needed) for needed in used]
                self._values[stage] = self._compute(stage, inputs)
            except Exception as error:
                self._errors[stage] = error
                # Its frames would keep their inputs alive for as long as the error is kept.
                traceback.clear_frames(error.__traceback__)
                raise
            finally:
                for needed in used:
                    self.release(needed)
        return self._values[stage]

    def _compute(self, stage: Stage, inputs: Sequence[Any]) -> Any:
        self._context.say(stage.title)
        part_seconds = self._context.start_stage()
        start = time.perf_counter()
        try:
            value = stage.compute(self._context, *inputs)
            self._context.device.synchronize()
        finally:
            took = time.perf_counter() - start - self._context.observation_seconds
            self.spent += took
        # What a stage took from the cache, or without, its run would have had to compute.
        self._seconds[stage, None] = took + self._context.cached_seconds
        self._seconds.update({(stage, part): seconds for part, seconds in part_seconds.items()})
        self._warnings[stage] = self._context.warnings
        return value

    def release(self, stage: Stage) -> None:
        """One who waited for the stage has had it, or will not ask."""
        self._waiting[stage] -= 1
        if self._waiting[stage] <= 0:
            self._values.pop(stage, None)

    def standalone_seconds(self, root: Stage) -> dict[Stage, float]:
        """Seconds that each stage behind `root` would take for it alone."""
        found: dict[Stage, float] = {}
        for stage, part in _closure([(root, None)]):
            seconds = self._seconds.get((stage, part), self._seconds.get((stage, None), 0.0))
            found[stage] = max(found.get(stage, 0.0), seconds)
        return found

    def warnings(self, root: Stage) -> list[str]:
        """What was done differently from what was asked, in the stages behind `root`."""
        return [
            text
            for stage, part in _closure([(root, None)])
            for about, text in self._warnings.get(stage, [])
            if about is None or about == part
        ]


def _closure(roots: Iterable[tuple[Stage, Hashable]]) -> list[tuple[Stage, Hashable]]:
    """Roots and all that they use, each (stage, part) once."""
    found: dict[tuple[Stage, Hashable], None] = {}
    todo = list(roots)
    while todo:
        stage, part = todo.pop()
        if (stage, part) not in found:
            found[stage, part] = None
            todo += stage.uses(part)
    return list(found)
