"""anomalib's image models, trained by anomalib's own Engine.

catalog.py   the models and their parameters (no heavy imports)
needs.py     image sizes, numbers of images, files and packages that each model needs
checks.py    problems of specs that need no training
coreset_time.py  a note on coresets that take long
assets.py    files that models would download, taken from this machine
build.py     builds anomalib's model from a spec
data.py      the split as an anomalib datamodule
engine.py    one run: fit, test, raw predictions
scorer.py    predictions of a saved model
export.py    export of a saved model
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from harness.backbones.normalization import IMAGENET
from harness.backends.anomalib import catalog
from harness.backends.base import Backend, Failure, Outcome, RunContext, Signature
from harness.backends.scorers import Scorer
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.data.subset import part_of

# Added to anomalib's parameters: the coreset selection of PatchCore, by anomalib or by harness/detectors/coreset.py.
CORESET = {"patchcore": {"coreset": "anomalib"}}


class AnomalibBackend(Backend):
    """Runs anomalib's models. A group is one training, because anomalib shares no work between trainings."""

    task: ClassVar[str] = "detection"
    heavy: ClassVar[str] = "harness.backends.anomalib.engine"

    def parameters(self, model: str) -> Signature:
        """Return the signature of an anomalib model, read from its source.

        Raises:
            ConfigError: anomalib has no such model.
        """
        name, parameters = catalog.signature(model)
        normalization = IMAGENET if catalog.normalizes(name) else None
        return Signature(name, {**parameters, **CORESET.get(name, {})}, normalization=normalization)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
        """Return all problems of specs, each once.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
        """
        from harness.backends.anomalib.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(
        self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str, memory_limit: int | None
    ) -> list[str]:
        """Return notes on networks and coresets too large for a CPU, and on weights whose licence has conditions.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
            memory_limit: without effect.
        """
        del memory_limit
        from harness.backbones.networks import licence_notes
        from harness.backends.anomalib.checks import slow_models
        from harness.backends.anomalib.coreset_time import slow_coresets

        notes = [*slow_models(specs, device), *slow_coresets(specs, splits, device)]
        return [*notes, *licence_notes(str(spec.backbone) for spec in specs)]

    def share_key(self, spec: RunSpec) -> Hashable:
        """Return the spec itself, so that each run is its own group; without the category where categories share it."""
        return replace(spec, category="") if spec.unify else spec

    def run(self, specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
        """Train and test each spec in turn, or one model for the specs of all categories; then release the memory.

        Args:
            specs: the runs.
            split: their data.
            context: resources and options.
        """
        from harness.backends.anomalib.engine import run_spec, run_unified
        from harness.backends.anomalib.memory import release_memory

        try:
            if split.parts:
                yield from run_unified(specs, split, context)
                return
            for spec in specs:
                yield run_spec(spec, part_of(split, spec.n_train, spec.seed), context)
                release_memory()
        finally:
            release_memory()

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Scorer:
        """Load a saved model. Most of anomalib's checkpoints load without executing code.

        Args:
            spec: the run.
            file: the checkpoint.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: whether loading may execute code in the file, if the file cannot be loaded otherwise.

        Raises:
            WeightsError: the file is damaged, does not fit the spec, or would execute code and is not trusted.
        """
        from harness.backends.anomalib.scorer import AnomalibScorer

        return AnomalibScorer.from_file(spec, file, device, trust)
