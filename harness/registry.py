"""The only list of backends, detectors, kinds of data, tasks and metrics: name -> "module:attribute".

The harness imports an entry when it needs it. To add one, write a file and add a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
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
# What a task shows in workbook, page and terminal; see harness/report/parts.py.
TASK_REPORTS: dict[str, str] = {
    "detection": "harness.report.detection:DetectionReport",
    "classification": "harness.report.classification:ClassificationReport",
}
# The two metrics that runs of a task are ranked by, and that the terminal shows.
HEADLINES: dict[str, tuple[str, str]] = {
    "detection": ("image_AUROC", "pixel_AUROC"),
    "classification": ("macro_F1", "accuracy"),
}


@dataclass(frozen=True)
class Metric:
    """One metric: how it is computed, and how tables and plots show it.

    Attributes:
        name: without the level, such as AUROC.
        level: image or pixel; empty for a metric of a whole classification.
        function: "module:attribute" of a function that takes a `Ranking` (counts at every threshold) and gives numbers
            along the last axis of the counts, NaN where the metric is undefined. Empty where the task computes it.
        higher_is_better: False for an error rate: bold cells, colours, searches and plots follow.
        count: whether the value counts images. A count has no colours, since it depends on the number of images.
        images: the class that the value is a share or count of: "normal", "anomalous", or "both". The confidence
            interval rests on so many images; with "both" on the smaller class.
        format: of the value, as in a spreadsheet.
    """

    name: str
    level: str = ""
    function: str = ""
    higher_is_better: bool = True
    count: bool = False
    images: str = "both"
    format: str = "0.000"

    @property
    def key(self) -> str:
        """Name of the column, such as image_AUROC."""
        return f"{self.level}_{self.name}" if self.level else self.name


_PR = "harness.metrics.precision_recall"
# In the order of the sheet's columns. An image metric gets its confidence interval by itself.
METRICS: tuple[Metric, ...] = (
    Metric("AUROC", "image", "harness.metrics.auroc:auroc"),
    Metric("AP", "image", f"{_PR}:average_precision"),
    Metric("F1Score", "image", f"{_PR}:f1_score"),
    Metric("F1Max", "image", f"{_PR}:f1_max"),
    Metric("Precision", "image", f"{_PR}:precision"),
    Metric("Recall", "image", f"{_PR}:recall", images="anomalous"),
    Metric("FPR95", "image", "harness.metrics.fpr95:fpr95", higher_is_better=False),
    Metric("FalsePositives", "image", f"{_PR}:false_positives", False, count=True, images="normal", format="0"),
    Metric("FalseNegatives", "image", f"{_PR}:false_negatives", False, count=True, images="anomalous", format="0"),
    Metric("AUROC", "pixel", "harness.metrics.auroc:auroc"),
    Metric("AP", "pixel", f"{_PR}:average_precision"),
    Metric("F1Score", "pixel", f"{_PR}:f1_score"),
    Metric("F1Max", "pixel", f"{_PR}:f1_max"),
    Metric("AUPRO", "pixel", "harness.metrics.aupro:aupro"),
    Metric("FPR95", "pixel", "harness.metrics.fpr95:fpr95", higher_is_better=False),
)
CLASSIFICATION_METRICS: tuple[Metric, ...] = tuple(
    Metric(name)
    for name in (
        "macro_F1",
        "accuracy",
        "tail_F1",
        "class_F1",
        "state_F1",
        "plain_macro_F1",
        "test_macro_F1",
        "test_accuracy",
    )
)


def metric(column: str) -> Metric:
    """The metric that a column shows; the name may have more words, or an end such as `_low`.

    A metric that is not registered, such as a backend's own, is one of which more is better.
    """
    name = column.split(maxsplit=1)[0] if column.split() else column
    by_key = {one.key: one for one in (*METRICS, *CLASSIFICATION_METRICS)}
    for end in ("", "_low", "_high", "_by_then"):
        if name.endswith(end) and (known := by_key.get(name.removesuffix(end))):
            return known
    return Metric(name)


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
