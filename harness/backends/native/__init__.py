"""The harness's own detectors (harness/detectors/). A whole grid costs little more than its largest configuration.

group.py        computes the shared stages of runs with the same images and backbone
costs.py        measures the cost of each run
checks.py       problems of specs that need no training
large_banks.py  a note on patches that memory has no room for
scorer.py       predictions of a saved model
export.py       export of a saved model
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from harness import registry
from harness.backbones.normalization import IMAGENET
from harness.backends.base import Backend, Failure, Outcome, RunContext, Signature
from harness.backends.scorers import Scorer
from harness.common.errors import ConfigError, unknown_name
from harness.common.signatures import class_constant, init_parameters
from harness.config.spec import RunSpec
from harness.config.threshold import FOLDS
from harness.data.samples import Split

# Parameters of all detectors; see harness.detectors.base.Options.
COMMON = {"precision": "fp32", "center_crop": None}


class NativeBackend(Backend):
    """Runs the harness's detectors. A group has all runs with the same images, preprocessing and backbone."""

    task: ClassVar[str] = "detection"
    heavy: ClassVar[str] = "harness.backends.native.group"

    def parameters(self, model: str) -> Signature:
        """Return the signature of a detector, read from its source.

        Raises:
            ConfigError: there is no such detector.
        """
        key = model.lower().replace("_", "").replace("-", "")
        definition = _definition(key, model)
        parameters = {**init_parameters(definition), **COMMON}
        folds = class_constant(definition, "default_folds", FOLDS)
        implied = class_constant(definition, "implied", {})
        return Signature(key, parameters, trainer=False, normalization=IMAGENET, folds=folds, implied=implied)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
        """Return all problems of specs, each once.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
        """
        from harness.backends.native.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(
        self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str, memory_limit: int | None
    ) -> list[str]:
        """Return a note for each backbone whose weights have a licence with conditions, and one on large banks.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
            memory_limit: in bytes, for features; None for half of the free memory.
        """
        from harness.backbones.networks import licence_notes
        from harness.backends.native.large_banks import large_banks

        return [*licence_notes(str(spec.backbone) for spec in specs), *large_banks(specs, splits, device, memory_limit)]

    def share_key(self, spec: RunSpec) -> Hashable:
        """Return a key of image size, crop, backbone, weights and normalisation.

        The key has no seed, because the features depend on the seed only with random weights.
        """
        return (
            spec.image_size,
            dict(spec.params).get("center_crop"),
            spec.backbone,
            spec.weights,
            # Without a normalisation, the key and thus the group's name are those of version 0.1.
            *([spec.normalization] if spec.normalization else []),
        )

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """Return (model, layers), then the seed. Jobs with different values compute the features again."""
        return ((spec.model, spec.layers), spec.seed)

    def run(self, specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
        """Train and test the runs of one group, with shared stages.

        Args:
            specs: the runs.
            split: their data.
            context: resources and options.
        """
        from harness.backends.native.group import run_group

        yield from run_group(specs, split, context)

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Scorer:
        """Load a saved model. The file contains the complete model and no code.

        Args:
            spec: the run.
            file: the saved model.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: without effect, since the file contains no code.

        Raises:
            WeightsError: the file is damaged.
        """
        from harness.backends.native.scorer import NativeScorer

        del spec, trust
        return NativeScorer.from_file(file, device)


@cache
def _definition(key: str, name: str) -> ast.ClassDef:
    """The source of a registered detector, since its import takes long."""
    if key not in registry.DETECTORS:
        raise ConfigError(f"model: {unknown_name('native model', name, registry.DETECTORS)}")
    module, class_name = registry.DETECTORS[key].split(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"{registry.DETECTORS[key]}: no such module")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return node
    raise LookupError(registry.DETECTORS[key])
