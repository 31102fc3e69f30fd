"""Schemas of record.json, details.json and search.json, for the check of every value at reading.

Some schemas allow other keys with plain values, since earlier or later versions have other keys.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from harness.common.reading import LARGEST, WHOLE

LARGEST_COUNT = 10**9  # of images, epochs ...


def _inside(name: str) -> str:
    """A path inside the run's folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", name):
        raise ValueError(f"found {name!r}, expected a path inside the run's folder")
    return name


def _folder_name(name: str) -> str:
    """A name of a folder in runs/, without any path."""
    if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,199}", name):
        raise ValueError(f"found {name!r}, expected the name of a run's folder")
    return name


Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Whole = Annotated[int, Field(gt=-WHOLE, lt=WHOLE)]
TwoNumbers = Annotated[list[Number], Field(min_length=2, max_length=2)]
Size = Annotated[list[Annotated[int, Field(ge=1, le=10**6)]], Field(min_length=2, max_length=2)]
Inside = Annotated[str, AfterValidator(_inside)]
RunName = Annotated[str, AfterValidator(_folder_name)]
Share = Annotated[float, Field(ge=0, le=1)]
Proportion = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    """A schema without conversions: "1" is no number."""

    model_config = ConfigDict(strict=True, extra="allow")


class Input(_Strict):
    """Normalization of a network's input."""

    name: str = ""
    mean: list[Number]
    std: list[Number]


class ThresholdPolicy(_Strict):
    """The `threshold:` block, see `harness.config.threshold.Threshold`; empty in a classification."""

    method: str | None = None
    quantile: Share | None = None
    pixel_quantile: Share | None = None
    share: Share | None = None
    seed: Whole | None = None
    false_alarms: Proportion | None = None
    folds: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ThresholdPolicy:
        """Check that all keys of the policy for reports are present."""
        if self.method == "normal_quantile" and self.quantile is None:
            raise ValueError("quantile: missing; expected a number")
        if self.method == "f1_on_val" and (self.share is None or self.seed is None):
            raise ValueError("share or seed: missing; expected numbers")
        return self


class Holdout(_Strict):
    """The held-out images of a search."""

    share: Annotated[float, Field(gt=0, lt=1)]
    seed: Whole


class ProtocolRecord(_Strict):
    """The `protocol:` block, see `harness.config.protocol.ProtocolOptions`; only values that are not the default."""

    size: str = "input"
    mask: str = "above_0"
    min_area: Annotated[int, Field(ge=1, le=WHOLE)] = 1


class Spec(_Strict):
    """The spec of a run, see `harness.config.spec.RunSpec`."""

    backend: str
    model: str
    backbone: str | None
    layers: list[str | int] | None
    image_size: Size | None
    params: dict[str, Any]
    seed: Whole
    data_kind: str
    category: str
    weights: str
    trainer: dict[str, Any]
    train_batch_size: Count
    eval_batch_size: Count
    threshold: ThresholdPolicy
    aupro_limit: Number | None = None
    normalization: Input | None = None
    holdout: Holdout | None = None
    rank: Literal["synthetic"] | None = None
    protocol: ProtocolRecord = ProtocolRecord()
    extra_metrics: list[str] = []
    unify: bool = False


class Data(_Strict):
    """Summary of a run's data."""

    kind: str
    category: str = ""
    root: str
    fingerprint: str
    test_fingerprint: str | None = None
    train: Count
    test: Count
    val: Count = 0
    test_anomalous: Count = 0
    unlabelled: Count = 0
    held_out: TwoNumbers = []
    validation: str | None = None
    notes: list[str] = []
    folds: list[Count] = []
    judged: Count = 0
    labels: Count = 0
    sample_submission: str | None = None
    group: str | None = None
    groups: Count = 0
    excluded: Count = 0
    unified: Count = 1


class WeightsRecord(_Strict):
    """Source of a run's weights, see `harness.backbones.resolve.Weights`."""

    backbone: str | None = None
    source: str | None = None
    file: str | None = None
    sha256: str | None = None
    fallback: bool | None = None
    assumed: bool = False
    normalization: Input | None = None
    normalization_from: str | None = None
    others: list[WeightsRecord] = []


class Defect(_Strict):
    """Metrics of one type of defect."""

    defect: str
    images: Count
    missed: Count | None = None
    auroc: Number | None = Field(default=None, alias="image_AUROC")
    ap: Number | None = Field(default=None, alias="image_AP")
    auspro5: Number | None = Field(default=None, alias="pixel_AUsPRO5")
    auspro30: Number | None = Field(default=None, alias="pixel_AUsPRO30")


class ThresholdsRecord(BaseModel):
    """Thresholds of a run, see `harness.predictions.decision.Thresholds`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    image: Number | None = None
    pixel: Number | None = None
    fixed_by: str = ""
    image_scale: Annotated[float, Field(gt=0, le=LARGEST)] | None = None
    pixel_scale: Annotated[float, Field(gt=0, le=LARGEST)] | None = None
    false_alarms: Proportion | None = None
    false_alarms_asked: Proportion | None = None
    guarantee: Literal["", "promised", "estimated"] = ""

    @model_validator(mode="after")
    def _complete(self) -> ThresholdsRecord:
        if self.false_alarms is not None and (self.false_alarms_asked is None or not self.guarantee):
            raise ValueError("false_alarms without false_alarms_asked and guarantee")
        return self


class Fold(_Strict):
    """Metrics and epochs of one fold."""

    fold: Count
    f1: Number | None = Field(default=None, alias="macro_F1")
    epochs: Count | None = None


class TemperatureRecord(_Strict):
    """The temperature of a classification, see `harness.metrics.temperature.Temperature`."""

    value: Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)] = 1.0
    images: Count = 0
    note: str = ""


class Recipe(_Strict):
    """The recipe of a classification, and the values that it set; without keys for no recipe."""

    name: str = ""
    asked: str = ""
    images: Count = 0
    epochs: Count = 0
    values: dict[str, Number | str] = {}


class Provenance(_Strict):
    """Versions, hardware, start and end of a run."""

    cpu: str | None = None
    began: str = ""
    ended: str = ""
    packages: dict[str, str | None] = {}
    references: dict[str, Annotated[str, Field(pattern=r"^\$\{oc\.env:[^{}]*\}$")]] = {}


# What reports count by, by task.
DATA_OF_TASK = {"detection": {"val", "test_anomalous"}, "classification": {"judged", "labels", "folds"}}


class RecordFile(BaseModel):
    """record.json, see `harness.results.record.RunRecord`. An unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    format: Annotated[int, Field(ge=1)] = Field(alias="schema")
    run_id: RunName
    status: Literal["ok", "failed", "skipped"]
    spec: Spec
    axes: list[str]
    data: Data
    weights: WeightsRecord = WeightsRecord()
    metrics: dict[str, Number | None] = {}
    intervals: dict[str, TwoNumbers] = {}
    defects: list[Defect] = []
    thresholds: ThresholdsRecord = ThresholdsRecord()
    model: dict[str, str] = {}
    cost: dict[str, Number | bool | None] = {}
    seconds: dict[str, Number] = {}
    device: str = ""
    warnings: list[str] = []
    provenance: Provenance = Provenance()
    error: dict[str, str] | None = None
    task: Literal["detection", "classification"] = "detection"
    folds: list[Fold] = []
    temperature: TemperatureRecord = TemperatureRecord()
    recipe: Recipe = Recipe()

    @model_validator(mode="after")
    def _counted(self) -> RecordFile:
        """What reports count by is there."""
        if missing := sorted(DATA_OF_TASK[self.task] - self.data.model_fields_set):
            raise ValueError(f"data.{missing[0]}: missing; expected a value")
        if self.data.test_anomalous > self.data.test:
            raise ValueError(f"data.test_anomalous: found {self.data.test_anomalous}, expected at most data.test")
        return self


class GalleryImage(_Strict):
    """An image of the gallery."""

    file: Inside
    role: str
    name: str
    defect: str = ""
    label: Count
    score: Number
    width: Count
    height: Count


class Label(_Strict):
    """Metrics of one label of a classification."""

    label: str
    images: Count
    f1: Number | None = None


class Group(_Strict):
    """Metrics of one class or condition."""

    name: str
    images: Count
    f1: Number | None = None


class Example(_Strict):
    """An image with a wrong predicted label."""

    name: str
    probability: Number = 0.0
    file: Inside | None = None
    cam: Inside | None = None


class ConfusedPair(_Strict):
    """A true label and a wrong predicted label."""

    label: str
    said: str
    images: Count
    of: Count
    examples: list[Example] = []


class HoldoutMetrics(_Strict):
    """Metrics of a run on the held-out images of a search."""

    images: Count
    metrics: dict[str, Number | None]
    intervals: dict[str, TwoNumbers] = {}


class AreaGroup(_Strict):
    """The defects of similar area, see `harness.metrics.region_recall.recall_by_area`."""

    smallest: Count
    largest: Count
    defects: Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
    found: Count


class ImageValue(_Strict):
    """A metric of one image."""

    name: str
    value: Number


class OverlapPoint(_Strict):
    """A point of the per-image overlap curve."""

    rate: Annotated[Number, Field(gt=0)]
    overlap: Annotated[Number, Field(ge=0, le=1)]


class DetailsFile(_Strict):
    """details.json: curves and pictures of a detection, tables and curves of a classification."""

    holdout: HoldoutMetrics | None = None
    curves: dict[str, dict[str, list[Number | None]]] = {}
    gallery: list[GalleryImage] = []
    labels: list[Label] = []
    classes: list[Group] = []
    states: list[Group] = []
    confusion: list[list[Count]] = []
    confused: list[ConfusedPair] = []
    cam_note: str = ""
    epochs: dict[str, list[dict[str, Number | None]]] = {}
    distribution: dict[str, list[Count]] = {}
    recall_by_area: list[AreaGroup] = []
    aupimo_by_image: list[ImageValue] = []
    pimo_curve: list[OverlapPoint] = []

    @model_validator(mode="after")
    def _square(self) -> DetailsFile:
        """Check that the confusion matrix and the distribution have a number for each label."""
        sides = {len(self.confusion), *(len(row) for row in self.confusion)}
        if self.confusion and sides != {len(self.labels)}:
            raise ValueError(f"confusion: found another shape, expected {len(self.labels)} rows and columns")
        if any(len(counts) != len(self.labels) for counts in self.distribution.values()):
            raise ValueError(f"distribution: found another length, expected {len(self.labels)} numbers")
        return self


class TrackingEntry(_Strict):
    """What a tracker has of a run, see `harness.tracking.logged.Logged`."""

    store: str
    run: str
    record: str
    model: str


class TrackingFile(_Strict):
    """tracking.json of a run."""

    format: Annotated[int, Field(ge=1, alias="schema")] = 1
    trackers: dict[str, TrackingEntry] = {}


class TrialFile(_Strict):
    """One trial, see `harness.search.history.Trial`."""

    number: Count
    point: dict[str, Any]
    runs: list[RunName]
    state: Literal["running", "done", "stopped", "failed"]
    value: Number | None
    looks: list[TwoNumbers]
    seconds: Number
    began: str
    ended: str
    why: str

    @model_validator(mode="after")
    def _valued(self) -> TrialFile:
        """Check that a finished trial has a value."""
        if self.state == "done" and self.value is None:
            raise ValueError("value: missing; expected a number of a trial that is done")
        return self


class SearchFile(_Strict):
    """search.json: the trials of a search."""

    format: Annotated[int, Field(ge=1, alias="schema")] = 1
    metric: str
    mode: str | None = None
    num_samples: Count = 0
    holdout: Holdout | None = None
    axes: dict[str, dict[str, Any]] = {}
    importance: dict[str, Number] = {}
    interrupted: list[dict[str, Any]] = []
    trials: list[TrialFile]
