"""Supervised classification: timm's networks, trained by Lightning, predict the class and condition of images.

settings.py    options of a run, their defaults, and combinations that exclude each other
checks.py      problems of specs, found before any training
run.py         one run: trains all folds and merges their probabilities
training.py    trains one network on one fold: Lightning's Trainer, checkpoints, resuming after a kill
module.py      the training steps; losses.py, augment.py, network.py, schedules.py and views.py belong to them
one_class.py   one network for each class, and the merging of their probabilities
fold.py        the result of a fold, and the merging of folds
pictures.py    the decoded images
classifier.py  saving, loading and prediction of a trained model
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.backbones.normalization import BACKBONE
from harness.backends.base import Failure, Outcome, RunContext, Signature
from harness.backends.supervised.settings import DEFAULTS, MODELS, unused
from harness.common.errors import ConfigError, unknown_name
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit

if TYPE_CHECKING:
    from harness.backends.supervised.classifier import SupervisedScorer


# Settings without influence on the trained networks.
NOT_TRAINED = ("tta", "tensorboard")


class SupervisedBackend:
    """Trains classifiers. A run has all folds of one configuration; the runs of a group share the trained networks."""

    task: ClassVar[str] = "classification"
    heavy: ClassVar[str] = "harness.backends.supervised.run"

    def parameters(self, model: str) -> Signature:
        """Return the signature of a method: its settings with their defaults.

        Raises:
            ConfigError: there is no such method.
        """
        name = model.lower().replace("-", "_")
        if name not in MODELS:
            raise ConfigError(
                f"model: {unknown_name('method', model, MODELS)} The network is the axis `backbone`, any of timm's."
            )
        return Signature(name, DEFAULTS, unused=unused, normalization=BACKBONE)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
        """Return all problems of specs, each once.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
        """
        from harness.backends.supervised.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(self, specs: Sequence[RunSpec], device: str) -> list[str]:
        """Return no notes.

        Args:
            specs: the runs.
            device: auto, cpu, cuda, cuda:N or mps.
        """
        del specs, device
        return []

    def share_key(self, spec: RunSpec) -> Hashable:
        """Return a key without the settings of `NOT_TRAINED`, so that runs with equal networks share them."""
        values = spec.as_dict()
        trained = {key: value for key, value in spec.parameters.items() if key not in NOT_TRAINED}
        return json.dumps(values | {"params": trained}, sort_keys=True)

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """Return no levels, since the runs of a group share all their networks."""
        del spec
        return ()

    def run(self, specs: Sequence[RunSpec], split: LabelledSplit, context: RunContext) -> Iterator[Outcome | Failure]:
        """Train and test each spec in turn.

        Args:
            specs: the runs.
            split: their data.
            context: resources and options.
        """
        from harness.backends.supervised.run import run_spec

        for spec in specs:
            yield run_spec(spec, split, context)

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> SupervisedScorer:
        """Load a saved model. The file contains the complete model and no code.

        Args:
            spec: the run.
            file: the saved model.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: without effect, since the file contains no code.

        Raises:
            WeightsError: the file is damaged.
        """
        from harness.backends.supervised.classifier import SupervisedScorer

        del spec, trust
        return SupervisedScorer.from_file(file, device)
