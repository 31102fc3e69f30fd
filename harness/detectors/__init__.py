"""PatchCore, PaDiM, SPADE and CFlow in plain Torch, each a file that follows its paper.

    from harness.detectors import SPADE
    model = SPADE(backbone="resnet18", num_neighbors=5).fit("datasets/bottle/train/good")
    model.evaluate("datasets/bottle")["image_AUROC"]
    model.predict("part.png").score
    model.save("bottle.safetensors")

patchcore.py, padim.py, spade.py, cflow.py   the methods
base.py, arguments.py, saving.py             the face above, and how detectors share work
stages.py, workbench.py                      what runs have in common is computed once
features.py, embedding.py, sources.py        images -> feature maps -> patch vectors
coreset.py, coreset_cpu.py, bank.py          greedy k-center, exact and lazy
gaussian.py, flows.py, neighbours.py, maps.py what the methods are made of
memory.py, cache.py                          large arrays within a budget; results kept between sweeps
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.detectors.base import Detector, Prediction
    from harness.detectors.cflow import CFlow
    from harness.detectors.padim import PaDiM
    from harness.detectors.patchcore import PatchCore
    from harness.detectors.saving import load
    from harness.detectors.spade import SPADE

__all__ = ["SPADE", "CFlow", "Detector", "PaDiM", "PatchCore", "Prediction", "load"]

HOME = {"Prediction": "base", "Detector": "base", "load": "saving"}


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: judging an image needs one of them, and some bring large libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOME.get(name, name.lower())}"), name)
