"""harness: which anomaly detector to trust on your images.

The way through, one module a step, imports pointing one way:

    config -> plan -> execute -> store -> report
                         |         |
                      backends   inference, export, demo
                         |
                      predictions -> metrics

The model of a finished run, from Python:

    from harness import load_model
    result = load_model("results/patchcore").predict("part.png")
    result.score, result.label, result.anomaly_map

The results of a sweep, in pandas:

    from harness import load_results
    load_results("results/patchcore").runs
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis import LoadedResults, load_results
    from harness.inference import Classifier, ClassResult, Model, Result, load_classifier, load_model

__version__ = "0.1.0"
__all__ = [
    "ClassResult",
    "Classifier",
    "LoadedResults",
    "Model",
    "Result",
    "__version__",
    "load_classifier",
    "load_model",
    "load_results",
]


def __getattr__(name: str) -> Any:
    """What is heavy is imported when it is asked for: the command line must start fast."""
    if name in __all__ and name != "__version__":
        # Predictions need no pandas.
        module = "analysis" if name in {"LoadedResults", "load_results"} else "inference"
        return getattr(import_module(f"harness.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
