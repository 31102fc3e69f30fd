"""RunRecord: what record.json holds. Plain values only; reading one imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from harness.registry import HEADLINES

# Raise it when a field changes its meaning or goes; older records must stay readable.
SCHEMA = 4


@dataclass(frozen=True)
class RunRecord:
    """One run, done or failed.

    Attributes:
        run_id: name of its folder.
        status: "ok", "failed", or "skipped" where the weights of the backbone can't be had.
        spec: `RunSpec.as_dict()`.
        axes: names that the grid set.
        data: kind, category, root, fingerprint, how many images in which role, and what the backend itself took for
            validation.
        weights: see `harness.backbones.resolve.Weights`. Records of version 0.1 also have fallback: random where
            weights were asked for, which no later version does.
        metrics: `<level>_<name>` -> value, None where undefined; the backend's own beside them, with its prefix.
        intervals: 95% of the image metrics, [low, high].
        defects: figures of each type of defect.
        thresholds: image, pixel (raw scores) and what fixed them; image_scale, pixel_scale, see
            `harness.predictions.decision.Thresholds`.
        model: file (in the run's folder) and sha256 of the model as it was saved; empty where it was not.
        cost: see `harness.backends.base.Outcome.cost`.
        seconds: fit and test; total, by the clock, with measuring and writing; where runs share work, alone: what
            this one would have taken by itself, and spent: what it added.
        device: what it ran on.
        warnings: what was done differently from what was asked.
        provenance: versions, hardware, when.
        error: type, message, traceback of a failed run; of a skipped one also the reason in few words.
        task: detection or classification; records before format 4 know the first only.
        folds: of a classification, what there is to know of each fold.
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the format's version."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunRecord:
        """From JSON. Fields that are not known are an error: a record is never read in part."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key != "schema" or key in known})

    def rank(self) -> tuple[float, float, str]:
        """Larger is better: image AUROC, then pixel AUROC (macro F1, then accuracy); the id decides ties, so that the
        order is fixed.
        """
        first, second = (self.metrics.get(name) for name in HEADLINES[self.task])
        return (-1.0 if first is None else first, -1.0 if second is None else second, self.run_id)
