"""Our own detectors (harness/detectors/): a whole grid for about the price of its largest point.

group.py    runs that share images and backbone, through the stage tree
checks.py   what would make a spec fail, found before any work
scorer.py   a saved model at work
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
from harness.backends.base import Failure, Outcome, RunContext, Scorer, Signature
from harness.common.errors import ConfigError, unknown_name
from harness.common.signatures import init_parameters
from harness.config.spec import RunSpec
from harness.data.base import Split

# What every detector takes beside its own; see harness.detectors.base.Options.
COMMON = {"precision": "fp32", "center_crop": None}


class NativeBackend:
    """See `harness.backends.base.Backend`. A group is all runs on the same images, seen alike by the same backbone."""

    task: ClassVar[str] = "detection"
    heavy: ClassVar[str] = "harness.backends.native.group"

    def parameters(self, model: str) -> Signature:
        """See `Backend.parameters`."""
        key = model.lower().replace("_", "").replace("-", "")
        return Signature(key, {**_own_parameters(key, model), **COMMON}, trainer=False, normalization=IMAGENET)

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
        """See `Backend.check`."""
        from harness.backends.native.checks import check_specs

        return check_specs(specs, splits, device)

    def remarks(self, specs: Sequence[RunSpec], device: str) -> list[str]:
        """See `Backend.remarks`."""
        del specs, device
        return []

    def share_key(self, spec: RunSpec) -> Hashable:
        """See `Backend.share_key`. Seeds share features too: only random weights depend on them."""
        return (
            spec.image_size,
            dict(spec.params).get("center_crop"),
            spec.backbone,
            spec.weights,
            # Absent as in version 0.1, whose groups' names are kept where nothing is new.
            *([spec.normalization] if spec.normalization else []),
        )

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """See `Backend.share_levels`. Apart, models take the features again; seeds apart, one model's too."""
        return ((spec.model, spec.layers), spec.seed)

    def run(self, specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
        """See `Backend.run`."""
        from harness.backends.native.group import run_group

        yield from run_group(specs, split, context)

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Scorer:
        """See `Backend.load`. All is in the file, and nothing in it is code."""
        from harness.backends.native.scorer import NativeScorer

        del spec, trust
        return NativeScorer.from_file(file, device)


@cache
def _own_parameters(key: str, name: str) -> Mapping[str, object]:
    """The parameters of a registered detector, read from its source."""
    if key not in registry.DETECTORS:
        raise ConfigError(f"model: {unknown_name('native model', name, registry.DETECTORS)}")
    module, class_name = registry.DETECTORS[key].split(":")
    found = find_spec(module)
    if found is None or found.origin is None:
        raise LookupError(f"{registry.DETECTORS[key]}: no such module")
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return init_parameters(node)
    raise LookupError(registry.DETECTORS[key])
