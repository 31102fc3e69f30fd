"""Detectors in plain Torch, each a file that follows its paper.

    from harness.detectors import SPADE
    model = SPADE(backbone="resnet18", num_neighbors=5).fit("datasets/bottle/train/good")
    model.evaluate("datasets/bottle")["image_AUROC"]
    model.predict("part.png").score
    model.save("bottle.safetensors")

patchcore.py, padim.py, spade.py, cflow.py,    the methods; a file NAME_stages.py has the stages of the method NAME
anomalydino.py, subspacead.py, mhpatchcore.py,
rad.py, dinomaly.py
base.py, options.py, default.py,               the class of all detectors, and the parts that they share
arguments.py, saving.py
stages.py, context.py, reporter.py             computes the common work of several runs once
folds.py                                       the stages of a detector for a part of the training images
features.py, block_means.py, embedding.py,     images -> feature maps -> patch vectors
pooled_patches.py, sources.py
coreset.py, coreset_cpu.py, bank.py            greedy k-center selection and the memory bank of PatchCore
gaussian.py, flows.py, neighbours.py, maps.py, building blocks of the methods
moments.py, foreground.py, merge_reduce.py,
reconstruction.py, stable_adamw.py
memory.py, cache.py                            arrays within a memory budget, and results kept on disk
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.detectors.anomalydino import AnomalyDINO
    from harness.detectors.base import Detector, Prediction
    from harness.detectors.cflow import CFlow
    from harness.detectors.dinomaly import Dinomaly
    from harness.detectors.mhpatchcore import MHPatchCore
    from harness.detectors.padim import PaDiM
    from harness.detectors.patchcore import PatchCore
    from harness.detectors.rad import RAD
    from harness.detectors.saving import load
    from harness.detectors.spade import SPADE
    from harness.detectors.subspacead import SubspaceAD

__all__ = [
    "RAD", "SPADE", "AnomalyDINO", "CFlow", "Detector", "Dinomaly", "MHPatchCore", "PaDiM", "PatchCore", "Prediction",
    "SubspaceAD", "load",
]  # fmt: skip

MODULES = {"Prediction": "base", "Detector": "base", "load": "saving"}


def __getattr__(name: str) -> Any:
    """Import a detector on its first use: a program often needs only one, and some import large libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES.get(name, name.lower())}"), name)
