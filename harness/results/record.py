"""RunRecord: the content of record.json, in plain values. A reader needs no large library."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Literal

from harness.registry import HEADLINES, SYNTHETIC_AUROC

# Raise it when a field changes its meaning or goes; older records must stay readable.
SCHEMA = 4


@dataclass(frozen=True)
class RunRecord:
    """One finished, failed or skipped run.

    Attributes:
        run_id: name of the run's folder.
        status: "ok", "failed", or "skipped" where no place has the weights of the backbone.
        spec: `RunSpec.as_dict()`.
        axes: names of the axes in the grid.
        data: kind, category, root, fingerprint, numbers of images by role, and the backend's own validation set.
        weights: see `harness.backbones.resolve.Weights`. In records of version 0.1 `fallback` means random weights in
            place of missing weights; later versions have no fallback.
        metrics: `<level>_<name>` -> value, None where undefined; also the backend's own metrics, with a prefix. An
            optional metric that is undefined is missing.
        intervals: 95% confidence intervals of the image metrics, [low, high].
        defects: metrics of each type of defect.
        thresholds: image and pixel (raw scores), fixed_by, image_scale and pixel_scale; see
            `harness.predictions.decision.Thresholds`.
        model: file (in the run's folder) and sha256 of the saved model; empty without a saved model.
        cost: see `harness.backends.base.Outcome.cost`. Where single images were timed, also seconds_p50 and seconds_p95
            of one image, from its file to the decision; `timed_images`, the number of images; `latency_threads`, the
            number of threads; and `latency_busy`, whether other programs kept the machine busy.
        seconds: `fit` and `test`. `total` is the whole wall time, with evaluation and writing. Where runs share work,
            `alone` is the time of the run without sharing, and `spent` the additional time of this run.
        device: device of the run.
        warnings: differences between the config and the run.
        provenance: versions, hardware, start and end.
        error: type, message and traceback of a failed run; a skipped run also has the reason in few words.
        task: detection or classification; records before format 4 are of a detection.
        folds: metrics and epochs of each fold of a classification.
        temperature: of a classification, see `harness.metrics.temperature.Temperature`. probabilities.npz has raw
            probabilities. Records of earlier versions have no temperature.
        recipe: recipe of a classification: its name, the name in the config, the numbers of images and epochs that
            chose it, and the values that it set; empty without a recipe.
    """

    run_id: str
    status: Literal["ok", "failed", "skipped"]
    spec: dict[str, Any]
    axes: list[str]
    data: dict[str, Any]
    weights: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    defects: list[dict[str, Any]] = field(default_factory=list)
    thresholds: dict[str, Any] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    task: str = "detection"
    folds: list[dict[str, Any]] = field(default_factory=list)
    temperature: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, with the version of the format."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunRecord:
        """Convert from the plain values of `as_dict`.

        Raises:
            TypeError: a field is unknown or missing.
        """
        return cls(**{key: value for key, value in values.items() if key != "schema"})

    @property
    def n_train(self) -> float:
        """Number of normal images that the run may use; infinite for all images, as in every classification."""
        number = self.spec.get("n_train")
        return inf if number is None else float(number)

    def rank(self) -> tuple[float, float, float, float, str]:
        """Sort key, higher is better: image AUROC and pixel AUROC, or macro F1 and accuracy; then synthetic AUROC.

        A run that may use more images comes first, whatever its metrics, so that runs with different `n_train` are no
        rivals. The id decides ties.
        """
        values = (self.metrics.get(name) for name in (*HEADLINES[self.task], SYNTHETIC_AUROC))
        first, second, synthetic = (-1.0 if value is None else value for value in values)
        return self.n_train, first, second, synthetic, self.run_id
