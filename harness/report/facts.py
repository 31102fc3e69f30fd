"""What is said of a record in a cell: names, lists, sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from harness import registry
from harness.backbones.normalization import BACKBONE, IMAGENET, Normalization
from harness.config.axes import COLUMNS, NORMALIZATION
from harness.results.record import RunRecord

# The four that people look for, in front everywhere.
HEADLINE = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
# Their lower and upper ends are shown beside the figure.
INTERVAL = "image_AUROC"
LOW, HIGH = f"{INTERVAL}_low", f"{INTERVAL}_high"
MB = 2**20


def metric_columns(records: Sequence[RunRecord]) -> list[str]:
    """The headline, then the other registered metrics, then the backends' own."""
    registered = [metric.key for metric in registry.METRICS]
    ours = [*HEADLINE, *(name for name in registered if name not in HEADLINE)]
    own = sorted({name for record in records for name in record.metrics} - set(ours))
    return [*ours, *own]


def axis_columns(records: Sequence[RunRecord]) -> list[str]:
    """Parameters that the grid of some finished run sets, in the order of their first appearance."""
    named = dict.fromkeys(axis for record in records if record.status == "ok" for axis in record.axes)
    return [axis for axis in named if axis not in COLUMNS]


def category(record: RunRecord) -> str:
    """Data without categories goes by the name of its folder."""
    return str(record.spec["category"] or PurePath(record.data["root"]).name or record.data["kind"])


def dataset(record: RunRecord) -> str:
    """Categories of one root are one data set; without the images that f1_on_val takes it is another."""
    root = PurePath(record.data["root"])
    name = f"{record.data['kind']} {root.parent if root.name == record.spec['category'] else root}"
    policy = record.spec["threshold"]
    if policy.get("method") == "f1_on_val":
        name += f", less the {policy['share']:.0%} that fixed the threshold (seed {policy['seed']})"
    return name


def short_names(datasets: Sequence[str]) -> list[str]:
    """Without the folders above, unless two would be called the same."""
    short = [" ".join(part.rsplit("/", 1)[-1] for part in name.split(" ")) for name in datasets]
    return short if len(set(short)) == len(short) else list(datasets)


def normalization(record: RunRecord) -> str | None:
    """What the network's input was normalised by; None for a model that keeps its own input."""
    given = record.spec.get(NORMALIZATION)
    if given is not None:
        return Normalization.from_dict(given).text
    if record.spec["backbone"] is None:
        return None
    return BACKBONE if record.task == "classification" else IMAGENET


def parameter(record: RunRecord, axis: str) -> Any:
    """The value of an axis, for a cell."""
    return normalization(record) if axis == NORMALIZATION else cell(record.spec["params"].get(axis))


def weights_source(record: RunRecord) -> str | None:
    """Where the backbone's weights came from."""
    source = record.weights.get("source")
    if record.weights.get("fallback"):
        return "random (fallback)"
    return str(source) if source else None


def alone_seconds(record: RunRecord) -> float | None:
    """What a run takes by itself, whatever it shared with others."""
    seconds = record.seconds
    if "alone" in seconds:
        return seconds["alone"]
    return seconds["fit"] + seconds["test"] if "fit" in seconds and "test" in seconds else None


def costs(record: RunRecord) -> dict[str, float | None]:
    """What a run costs, in the units of the sheet."""
    cost, seconds = record.cost, record.seconds
    return {
        "ms_per_image_p50": _times(cost.get("seconds_p50"), 1000),
        "ms_per_image_p95": _times(cost.get("seconds_p95"), 1000),
        "timed_images": cost.get("timed_images"),
        "images_per_second": cost.get("images_per_second"),
        "fit_seconds": seconds.get("fit"),
        "test_seconds": seconds.get("test"),
        "alone_seconds": alone_seconds(record),
        # Where nothing is shared, what a run takes is what was spent on it.
        "spent_seconds": seconds.get("spent", alone_seconds(record)),
        "total_seconds": seconds.get("total"),
        "peak_memory_MB": _times(cost.get("peak_memory"), 1 / MB),
        "peak_gpu_memory_MB": _times(cost.get("peak_gpu_memory"), 1 / MB),
        "model_MB": _times(cost.get("model_size"), 1 / MB),
    }


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def cell(value: Any) -> Any:
    """A parameter's value; a list or a mapping as one text."""
    if isinstance(value, dict):
        return json.dumps(value)
    return join(value) if isinstance(value, list) else value


def join(values: Sequence[Any] | None, by: str = "+") -> str | None:
    """layer2+layer3."""
    return None if values is None else by.join(str(value) for value in values)
