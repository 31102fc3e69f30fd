"""Supervised networks that name the state of a part: timm's, trained by Lightning.

settings.py  what a run can be told, and what does not go together
checks.py    what would make a spec fail, found before any work
run.py       one spec: its folds, merged into probabilities
training.py  one network on one fold: Lightning's Trainer, checkpoints, what outlives a kill
module.py    a step of training; losses.py, augment.py, network.py, schedules.py and views.py beside it
one_class.py a network a class, and how their answers are merged
fold.py      what came of a fold, and folds put together
namer.py     a model saved, and at work
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


# Settings that no network learns by.
NOT_TRAINED = ("tta", "tensorboard")


class SupervisedBackend:
    """See `harness.backends.base.Backend`. A run is a setting with all its folds; a group has the same training."""

    task: ClassVar[str] = "classification"
    heavy: ClassVar[str] = "harness.backends.supervised.run"

    def parameters(self, model: str) -> Signature:
        """See `Backend.parameters`."""
        name = model.lower().replace("-", "_")
        if name not in MODELS:
            raise ConfigError(
                f"model: {unknown_name('method', model, MODELS)} The network is the axis `backbone`, any of timm's."
            )
        return Signature(name, DEFAULTS, unused=unused, normalization=BACKBONE)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
        """See `Backend.check`."""
        from harness.backends.supervised.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(self, specs: Sequence[RunSpec], device: str) -> list[str]:
        """See `Backend.remarks`."""
        del specs, device
        return []

    def share_key(self, spec: RunSpec) -> Hashable:
        """See `Backend.share_key`. Runs that only look at their networks' images otherwise share the networks."""
        values = spec.as_dict()
        trained = {key: value for key, value in spec.parameters.items() if key not in NOT_TRAINED}
        return json.dumps(values | {"params": trained}, sort_keys=True)

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """See `Backend.share_levels`."""
        del spec
        return ()

    def run(self, specs: Sequence[RunSpec], split: LabelledSplit, context: RunContext) -> Iterator[Outcome | Failure]:
        """See `Backend.run`."""
        from harness.backends.supervised.run import run_spec

        for spec in specs:
            yield run_spec(spec, split, context)

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> SupervisedScorer:
        """See `Backend.load`. All is in the file, and nothing in it is code."""
        from harness.backends.supervised.classifier import SupervisedScorer

        del spec, trust
        return SupervisedScorer.from_file(file, device)
