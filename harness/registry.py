"""The only list of backends, detectors, kinds of data, tasks and metrics: name -> "module:attribute".

The harness imports an entry when it needs it. To add one, write a file and add a line here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from harness.common.errors import UnknownNameError, unknown_name

BACKENDS: dict[str, str] = {
    "anomalib": "harness.backends.anomalib:AnomalibBackend",
    "native": "harness.backends.native:NativeBackend",
    "supervised": "harness.backends.supervised:SupervisedBackend",
}

# The native backend's methods; each file follows its paper. See harness/detectors/base.py.
DETECTORS: dict[str, str] = {
    "patchcore": "harness.detectors.patchcore:PatchCore",
    "padim": "harness.detectors.padim:PaDiM",
    "spade": "harness.detectors.spade:SPADE",
    "cflow": "harness.detectors.cflow:CFlow",
}

# Each names a class with the options of that kind of data and a `load()`; see harness/data/base.py.
DATASETS: dict[str, str] = {
    "folder": "harness.data.folder:FolderData",
    "mvtec": "harness.data.mvtec:MVTecData",
    "toy": "harness.data.toy:ToyData",
}
# `data.kind` with any other name is one of anomalib's datamodules.
OTHER_DATASET = "harness.data.datamodule:DatamoduleData"

# The same for `task: classification`; see harness/data/labelled/base.py.
LABELLED_DATASETS: dict[str, str] = {
    "labelled": "harness.data.labelled.files:LabelledData",
    "toy": "harness.data.labelled.toy:LabelledToy",
}

# See harness/tasks/base.py.
TASKS: dict[str, str] = {
    "detection": "harness.tasks.detection:Detection",
    "classification": "harness.tasks.classification:Classification",
}

# Each takes a `Ranking` (counts at every threshold) and gives a number, NaN where it is undefined, along the last axis
# of the counts. The columns of the sheet are `image_<name>` and `pixel_<name>`, in this order; an image metric gets its
# interval by itself.
IMAGE_METRICS: dict[str, str] = {
    "AUROC": "harness.metrics.auroc:auroc",
    "AP": "harness.metrics.precision_recall:average_precision",
    "F1Score": "harness.metrics.precision_recall:f1_score",
    "F1Max": "harness.metrics.precision_recall:f1_max",
    "Precision": "harness.metrics.precision_recall:precision",
    "Recall": "harness.metrics.precision_recall:recall",
    "FalsePositives": "harness.metrics.precision_recall:false_positives",
    "FalseNegatives": "harness.metrics.precision_recall:false_negatives",
}
PIXEL_METRICS: dict[str, str] = {
    "AUROC": "harness.metrics.auroc:auroc",
    "AP": "harness.metrics.precision_recall:average_precision",
    "F1Score": "harness.metrics.precision_recall:f1_score",
    "F1Max": "harness.metrics.precision_recall:f1_max",
    "AUPRO": "harness.metrics.aupro:aupro",
}
METRICS = {"image": IMAGE_METRICS, "pixel": PIXEL_METRICS}


def load(target: str) -> Any:
    """Import `module:attribute`."""
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


def lookup(table: dict[str, str], what: str, name: str) -> Any:
    """Load the object of a name.

    Raises:
        UnknownNameError: the table has no such name. The message has similar names and the whole list.
    """
    if name not in table:
        raise UnknownNameError(unknown_name(what, name, table))
    return load(table[name])
