"""The only list of backends, detectors, kinds of data, tasks, trackers, metrics ...: name -> "module:attribute".

The harness imports an entry when it needs it. To add one, write a file and add a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from harness.common.errors import UnknownNameError, unknown_name

BACKENDS: dict[str, str] = {
    "anomalib": "harness.backends.anomalib:AnomalibBackend",
    "native": "harness.backends.native:NativeBackend",
    "supervised": "harness.backends.supervised:SupervisedBackend",
}

# Models of the native backend; each file follows its paper. See harness/detectors/base.py.
DETECTORS: dict[str, str] = {
    "patchcore": "harness.detectors.patchcore:PatchCore",
    "padim": "harness.detectors.padim:PaDiM",
    "spade": "harness.detectors.spade:SPADE",
    "cflow": "harness.detectors.cflow:CFlow",
    "subspacead": "harness.detectors.subspacead:SubspaceAD",
    "anomalydino": "harness.detectors.anomalydino:AnomalyDINO",
    "mhpatchcore": "harness.detectors.mhpatchcore:MHPatchCore",
    "rad": "harness.detectors.rad:RAD",
    "dinomaly": "harness.detectors.dinomaly:Dinomaly",
}

# Each class has the options of one kind of data, and a method `load()`; see harness/data/base.py.
DATASETS: dict[str, str] = {
    # `kind: auto` takes the first kind that recognises the folder: kinds with more distinct names come first.
    "mvtec_ad2": "harness.data.mvtec_ad2:MVTecAD2Data",
    "mvtec_loco": "harness.data.mvtec_loco:MVTecLocoData",
    "visa": "harness.data.visa:VisAData",
    "real_iad": "harness.data.real_iad:RealIADData",
    "kolektor": "harness.data.kolektor:KolektorData",
    "dagm": "harness.data.dagm:DAGMData",
    "magnetic_tiles": "harness.data.magnetic_tiles:MagneticTilesData",
    "mvtec": "harness.data.mvtec:MVTecData",
    "folder": "harness.data.folder:FolderData",
    "toy": "harness.data.toy:ToyData",
}
# Datamodules of anomalib whose names differ from a kind above by capital letters only.
DATAMODULES = frozenset({"Kolektor", "Visa"})
# `data.kind` with any other name is one of anomalib's datamodules.
OTHER_DATASET = "harness.data.datamodule:DatamoduleData"

# Kinds of data for `task: classification`; see harness/data/labelled/base.py.
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
# Formats of `submit --format`; see harness/ensemble/submission_format.py.
SUBMISSIONS: dict[str, str] = {
    "mvtec_ad2": "harness.ensemble.mvtec_ad2:MVTecAD2Submission",
}
# Names of `tracking:`; each is also the name of an extra. See harness/tracking/base.py.
TRACKERS: dict[str, str] = {
    "mlflow": "harness.tracking.mlflow:MLflowTracker",
    "wandb": "harness.tracking.wandb:WandbTracker",
    "tensorboard": "harness.tracking.tensorboard:TensorBoardTracker",
}
# The two metrics that runs of a task are ranked by, and that the terminal shows.
HEADLINES: dict[str, tuple[str, str]] = {
    "detection": ("image_AUROC", "pixel_AUROC"),
    "classification": ("macro_F1", "accuracy"),
}
# The metric of `rank: synthetic`. It ranks runs whose headline metrics are undefined or equal.
SYNTHETIC_AUROC = "synthetic_AUROC"


@dataclass(frozen=True)
class Metric:
    """One metric: its function, and its display in tables and plots.

    Attributes:
        name: without the level, such as AUROC.
        level: image or pixel; empty for a metric of a whole classification.
        function: "module:attribute" of a function from a `Ranking` (counts at every threshold) to the values. The
            values run along the last axis of the counts; NaN stands for undefined. Empty where the task has the code.
        higher_is_better: False for an error rate. Bold cells, colours, searches and plots depend on this field.
        count: whether the value counts images. A count has no colours, since the count depends on the number of images.
        images: the class whose share or count the value is: "normal", "anomalous", or "both". The number of these
            images sets the confidence interval; with "both" the smaller class does.
        format: number format of the value in a spreadsheet.
        at_threshold: whether the value is undefined without a threshold.
        optimistic: whether the labels that the metric counts choose its threshold; its interval corrects this.
        at_original: whether the evaluation of its data set measures at the size of the masks. Reports say so where the
            protocol resizes the masks.
        on_request: whether the metric is computed only where `extra_metrics` of the config names it. Such a metric is a
            function of a `harness.metrics.extra.PixelCase`, and optional.
        optional: whether only some data have the metric. Its column and its place on the page exist only where some
            run has a value, and a record has the metric only with a value.
        by_defect: whether each type of defect has the value too, from its images and all normal images.
    """

    name: str
    level: str = ""
    function: str = ""
    higher_is_better: bool = True
    count: bool = False
    images: str = "both"
    format: str = "0.000"
    at_threshold: bool = False
    optimistic: bool = False
    optional: bool = False
    by_defect: bool = False
    on_request: bool = False
    at_original: bool = False

    @cached_property
    def key(self) -> str:
        """Name of the column, such as image_AUROC."""
        return f"{self.level}_{self.name}" if self.level else self.name


def _extra(level: str, name: str, function: str, higher_is_better: bool = True, at_threshold: bool = False) -> Metric:
    """A metric of `extra_metrics`."""
    return Metric(
        name,
        level,
        f"harness.metrics.{function}",
        higher_is_better,
        at_threshold=at_threshold,
        optional=True,
        on_request=True,
    )


_PR = "harness.metrics.precision_recall"
# In the order of the sheet's columns. Every image metric gets a confidence interval.
METRICS: tuple[Metric, ...] = (
    Metric("AUROC", "image", "harness.metrics.auroc:auroc", by_defect=True),
    Metric("AP", "image", f"{_PR}:average_precision", by_defect=True),
    Metric("F1Score", "image", f"{_PR}:f1_score", at_threshold=True),
    Metric("F1Max", "image", f"{_PR}:f1_max", optimistic=True),
    Metric("Precision", "image", f"{_PR}:precision", at_threshold=True),
    Metric("Recall", "image", f"{_PR}:recall", images="anomalous", at_threshold=True),
    Metric("FPR95", "image", "harness.metrics.fpr95:fpr95", higher_is_better=False),
    Metric(
        "FalsePositives",
        "image",
        f"{_PR}:false_positives",
        False,
        count=True,
        images="normal",
        format="0",
        at_threshold=True,
    ),
    Metric(
        "FalseNegatives",
        "image",
        f"{_PR}:false_negatives",
        False,
        count=True,
        images="anomalous",
        format="0",
        at_threshold=True,
    ),
    Metric("AUROC", "pixel", "harness.metrics.auroc:auroc"),
    Metric("AP", "pixel", f"{_PR}:average_precision"),
    Metric("F1Score", "pixel", f"{_PR}:f1_score", at_threshold=True),
    Metric("F1Max", "pixel", f"{_PR}:f1_max"),
    Metric("AUPRO", "pixel", "harness.metrics.aupro:aupro"),
    # For data with `Sample.saturation`. The number is the upper limit of the false positive rate, in percent.
    Metric("AUsPRO5", "pixel", "harness.metrics.spro:auspro5", optional=True, by_defect=True, at_original=True),
    Metric("AUsPRO30", "pixel", "harness.metrics.spro:auspro30", optional=True, by_defect=True, at_original=True),
    Metric("FPR95", "pixel", "harness.metrics.fpr95:fpr95", higher_is_better=False),
    _extra("pixel", "AUPRO5", "aupro:aupro5"),
    _extra("pixel", "AUPIMO", "pimo:aupimo"),
    _extra("pixel", "SegF1", "seg_f1:seg_f1"),
    _extra("pixel", "SegF1_oracle", "seg_f1:seg_f1_oracle"),
    _extra("pixel", "FPArea95", "false_area:false_area95", higher_is_better=False),
    _extra("region", "Precision", "region_recall:region_precision", at_threshold=True),
    _extra("region", "Recall", "region_recall:region_recall", at_threshold=True),
)
# Tables of details.json that belong to metrics of `extra_metrics`: name -> (metric, "module:attribute").
METRIC_TABLES: dict[str, tuple[str, str]] = {
    "aupimo_by_image": ("pixel_AUPIMO", "harness.metrics.pimo:aupimo_by_image"),
    "pimo_curve": ("pixel_AUPIMO", "harness.metrics.pimo:pimo_curve"),
    "recall_by_area": ("region_Recall", "harness.metrics.region_recall:recall_by_area"),
}
CLASSIFICATION_METRICS: tuple[Metric, ...] = tuple(
    Metric(name)
    for name in (
        "macro_F1",
        "accuracy",
        "tail_F1",
        "class_F1",
        "state_F1",
        "plain_macro_F1",
        "network_macro_F1",
        "test_macro_F1",
        "test_accuracy",
    )
)


def metric(column: str) -> Metric:
    """The metric of a table column. The column's name may have more words, or a suffix such as `_low`.

    For a metric that is not registered, such as a backend's own metric, higher is better.
    """
    name = column.split(maxsplit=1)[0] if column.split() else column
    by_key = {metric.key: metric for metric in (*METRICS, *CLASSIFICATION_METRICS)}
    for suffix in ("", "_low", "_high", "_by_then"):
        if name.endswith(suffix) and (registered := by_key.get(name.removesuffix(suffix))):
            return registered
    return Metric(name)


def load(target: str) -> Any:
    """Import an object by its path "module:attribute"."""
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


def lookup(table: dict[str, str], kind: str, name: str) -> Any:
    """Import a registered object.

    Args:
        table: one of the tables of this module.
        kind: word for the entries of the table, for the error message.
        name: a key of the table.

    Raises:
        UnknownNameError: the table has no such name; the message lists the nearest names and all names.
    """
    if name not in table:
        raise UnknownNameError(unknown_name(kind, name, table))
    return load(table[name])
