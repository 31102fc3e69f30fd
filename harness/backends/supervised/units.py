"""The networks of a run: one for all labels, or one or more for each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.backends.supervised.fold_data import seed_of
from harness.backends.supervised.one_class import classes
from harness.backends.supervised.settings import Settings
from harness.data.labelled.base import LabelSpec

BYTES = 256  # numbers from here on are no byte of a class's name


@dataclass(frozen=True)
class Unit:
    """One network of a run.

    Attributes:
        fold: number of the fold that is the network's validation subset.
        class_name: class of a one-class network; "" for a network of all labels.
        positions: positions of the network's labels.
        repeat: number of the network among those of the same class and fold, from 0.
    """

    fold: int
    class_name: str
    positions: tuple[int, ...]
    repeat: int = 0

    @property
    def name(self) -> str:
        """Name for folders and curves."""
        name = f"fold{self.fold}" + (f"-{self.class_name}" if self.class_name else "")
        return f"{name}-repeat{self.repeat}" if self.repeat else name

    @property
    def outputs(self) -> int:
        """Number of outputs; a one-class network has one more, for null."""
        return len(self.positions) + bool(self.class_name)

    @property
    def text(self) -> str:
        """Name for messages; "" for a network of all labels."""
        return f"{self.class_name}, repeat {self.repeat + 1}" if self.repeat else self.class_name

    def seed(self, seed: int) -> int:
        """Return the seed of the network's training, a function of the run's seed."""
        repeat = [BYTES + self.repeat] if self.repeat else []
        return seed_of(seed, self.fold, *self.class_name.encode(), *repeat)


def units(model: str, settings: Settings, label_specs: tuple[LabelSpec, ...], fold: int) -> Iterator[Unit]:
    """Yield the networks of a fold.

    Args:
        model: baseline or one_class.
        settings: settings of the run.
        label_specs: class and condition of each label.
        fold: number of the fold.
    """
    if model == "baseline":
        yield Unit(fold, "", tuple(range(len(label_specs))))
        return
    for class_name, positions in classes(label_specs, settings.only_classes).items():
        for repeat in range(settings.repeats):
            yield Unit(fold, class_name, tuple(positions), repeat)
