"""anomalib's image models through anomalib's own Engine.

catalog.py   which models there are and what they take (imports nothing heavy)
checks.py    what would make a spec fail, found before any work
build.py     a spec -> anomalib's model
data.py      the split, as an anomalib datamodule
engine.py    one spec: fit, test, raw predictions
scorer.py    a saved model at work
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from harness.backbones.normalization import IMAGENET
from harness.backends.anomalib import catalog
from harness.backends.base import Failure, Outcome, RunContext, Scorer, Signature
from harness.config.spec import RunSpec
from harness.data.base import Split

# Beside anomalib's own parameters: who selects PatchCore's coreset, anomalib or harness/detectors/coreset.py.
CORESET = {"patchcore": {"coreset": "anomalib"}}


class AnomalibBackend:
    """See `harness.backends.base.Backend`. A group is one run: anomalib shares no work between runs."""

    task: ClassVar[str] = "detection"
    heavy: ClassVar[str] = "harness.backends.anomalib.engine"

    def parameters(self, model: str) -> Signature:
        """See `Backend.parameters`."""
        name, parameters = catalog.signature(model)
        normalization = IMAGENET if catalog.normalizes(name) else None
        return Signature(name, {**parameters, **CORESET.get(name, {})}, normalization=normalization)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
        """See `Backend.check`."""
        from harness.backends.anomalib.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(self, specs: Sequence[RunSpec], device: str) -> list[str]:
        """See `Backend.remarks`."""
        from harness.backends.anomalib.checks import slow_models

        return slow_models(specs, device)

    def share_key(self, spec: RunSpec) -> Hashable:
        """See `Backend.share_key`."""
        return spec

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """See `Backend.share_levels`."""
        del spec
        return ()

    def run(self, specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
        """See `Backend.run`."""
        from harness.backends.anomalib.engine import run_spec
        from harness.backends.anomalib.memory import release_memory

        for spec in specs:
            try:
                yield run_spec(spec, split, context)
            finally:
                release_memory()

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Scorer:
        """See `Backend.load`. anomalib's checkpoints can be loaded without executing anything, most of them."""
        from harness.backends.anomalib.scorer import AnomalibScorer

        return AnomalibScorer.from_file(spec, file, device, trust)
