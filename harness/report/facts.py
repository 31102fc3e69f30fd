"""Values of a record for a cell: names, lists, sources, costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from harness import registry
from harness.backbones.normalization import BACKBONE, IMAGENET, Normalization
from harness.backends.latency import BUSY
from harness.common.reading import MB
from harness.config.axes import COLUMNS, NORMALIZATION
from harness.config.axes import parameter as value_of
from harness.results.record import RunRecord

# These four come first in every table, because published comparisons use them.
HEADLINE = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
# The metric whose interval is shown.
INTERVAL = "image_AUROC"
LOW, HIGH = f"{INTERVAL}_low", f"{INTERVAL}_high"
ENDS = f"{INTERVAL} 95%"
# Times of single images; a column with the name BUSY says whether they were taken on a busy machine.
LATENCIES = ("ms_per_image_p50", "ms_per_image_p95")


def metric_columns(records: Sequence[RunRecord]) -> list[str]:
    """Names of metrics: the headline, the other registered ones, then those that only a backend has.

    An optional metric has a column only where some record has a value.
    """
    shared = [*HEADLINE, *(metric.key for metric in registry.METRICS if metric.key not in HEADLINE)]
    others = sorted({name for record in records for name in record.metrics} - set(shared))
    absent = {
        metric.key
        for metric in registry.METRICS
        if metric.optional and all(record.metrics.get(metric.key) is None for record in records)
    }
    return [name for name in (*shared, *others) if name not in absent]


def axis_columns(records: Sequence[RunRecord]) -> list[str]:
    """Parameters that the grid of a finished run sets, in the order of their first appearance."""
    axes = dict.fromkeys(axis for record in records if record.status == "ok" for axis in record.axes)
    return [axis for axis in axes if axis not in COLUMNS]


def category(record: RunRecord) -> str:
    """The category of a run; for data without categories the name of the folder."""
    return str(record.spec["category"] or PurePath(record.data["root"]).name or record.data["kind"])


def dataset(record: RunRecord) -> str:
    """The name of a run's data set: all categories of one root, without the images that do not count in the metrics.

    The same images with groups in the folds are another data set, because their metrics are of another question. So are
    the same images with another protocol of the pixel metrics.
    """
    name = f"{record.data['kind']} {_common_root(record.data['root'], record.spec['category'])}"
    if group := record.data.get("group"):
        name += f", groups by {group}"
    policy = record.spec["threshold"]
    if policy.get("method") == "f1_on_val":
        name += f", without the {policy['share']:.0%} that fixed the threshold (seed {policy['seed']})"
    if holdout := record.spec.get("holdout"):
        name += f", without the {holdout['share']:.0%} that the search held out (seed {holdout['seed']})"
    if words := protocol(record):
        name += f", protocol {words}"
    return name


@lru_cache(maxsize=1024)
def _common_root(root: str, its_category: str) -> str:
    """The folder of all categories. Every table of a report groups its rows by it."""
    path = PurePath(root)
    return str(path.parent if path.name == its_category else path)


def short_names(datasets: Sequence[str]) -> list[str]:
    """Names of data sets without parent folders, unless two short names would be equal."""
    names = [" ".join(word.rsplit("/", 1)[-1] for word in dataset.split(" ")) for dataset in datasets]
    return names if len(set(names)) == len(names) else list(datasets)


def normalization(record: RunRecord) -> str | None:
    """Normalisation of the network's input; None for a model without a backbone."""
    values = record.spec.get(NORMALIZATION)
    if values is not None:
        return Normalization.from_dict(values).text
    if record.spec["backbone"] is None:
        return None
    return BACKBONE if record.task == "classification" else IMAGENET


def parameter(record: RunRecord, axis: str) -> Any:
    """The value of a parameter, for a cell.

    Args:
        record: the run.
        axis: name of the parameter.
    """
    return normalization(record) if axis == NORMALIZATION else cell(value_of(record.spec, axis))


def protocol(record: RunRecord) -> str | None:
    """The protocol of a run's pixel metrics in words; None for the default."""
    return ", ".join(f"{key} {value}" for key, value in (record.spec.get("protocol") or {}).items()) or None


def weights_source(record: RunRecord) -> str | None:
    """Source of the backbone's weights."""
    source = record.weights.get("source")
    if record.weights.get("fallback"):
        return "random (fallback)"
    return str(source) if source else None


def alone_seconds(record: RunRecord) -> float | None:
    """Seconds that a run would take alone, without work shared with other runs; None if unknown."""
    seconds = record.seconds
    if "alone" in seconds:
        return seconds["alone"]
    return seconds["fit"] + seconds["test"] if "fit" in seconds and "test" in seconds else None


def costs(record: RunRecord) -> dict[str, float | None]:
    """Costs of a run by column of the workbook, in the units of the column names."""
    cost, seconds = record.cost, record.seconds
    return {
        "ms_per_image_p50": _scaled(cost.get("seconds_p50"), 1000),
        "ms_per_image_p95": _scaled(cost.get("seconds_p95"), 1000),
        "timed_images": cost.get("timed_images"),
        "images_per_second": cost.get("images_per_second"),
        "fit_seconds": seconds.get("fit"),
        "test_seconds": seconds.get("test"),
        "alone_seconds": alone_seconds(record),
        # Without shared work both times are equal.
        "spent_seconds": seconds.get("spent", alone_seconds(record)),
        "total_seconds": seconds.get("total"),
        "peak_memory_MB": _scaled(cost.get("peak_memory"), 1 / MB),
        "peak_gpu_memory_MB": _scaled(cost.get("peak_gpu_memory"), 1 / MB),
        "model_MB": _scaled(cost.get("model_size"), 1 / MB),
    }


def busy(record: RunRecord) -> str | None:
    """For the column `BUSY`: yes if single images were timed on a busy machine, else None."""
    return "yes" if record.cost.get(BUSY) else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def cell(value: Any) -> Any:
    """A parameter's value for a cell; a list or a mapping becomes one text."""
    if isinstance(value, dict):
        return json.dumps(value)
    return join(value) if isinstance(value, list) else value


def join(values: Sequence[Any] | None, by: str = "+") -> str | None:
    """Values joined to one text, such as layer2+layer3; None stays None.

    Args:
        values: to join.
        by: the separator.
    """
    return None if values is None else by.join(str(value) for value in values)


def interval_text(ends: Sequence[float] | None) -> str | None:
    """The ends of an interval for a cell, such as 0.912 to 0.984; None without an interval."""
    return None if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
