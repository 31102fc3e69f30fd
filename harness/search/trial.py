"""A trial on a node: the runs of a point, with intermediate evaluations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from socket import gethostname
from typing import Any

from harness.backends.base import AnySplit
from harness.common.errors import HarnessError
from harness.common.secrets import remember
from harness.config.search import LONGEST, Search
from harness.config.sweep import SweepConfig
from harness.execution.jobs import Job, Rungs, grouped
from harness.execution.launchers.node import records_of_job, take_share, work_folder
from harness.results.record import RunRecord
from harness.search.history import EPOCH, FAILED, REACHED, VALUE, value_of
from harness.search.points import Space


def run_trial(
    config: Mapping[str, Any],
    sweep: SweepConfig,
    splits: Mapping[str, AnySplit],
    queue: Any,
    home: str,
    directory: str,
    contents: Mapping[str, Any],
) -> None:
    """Execute the runs of a trial, and report the value of the metric to Ray Tune.

    Args:
        config: see `SearchSession.config` in `harness.search.session`.
        sweep: config of the sweep.
        splits: the data, by category.
        queue, home, directory: see `harness.execution.launchers.node.records_of_job`.
        contents: reference to the images in Ray's object store, by fingerprint of the split. None for images that the
            node reads at their paths.
    """
    import ray
    from ray import tune

    # A process starts its next trial only after the end of this one, which may take minutes.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    take_share()
    # Messages of this process show the references of the config, and not their secret values.
    remember(sweep.references)
    space = Space(with_cache(sweep, home), splits)
    records = [RunRecord.from_dict(values) for values in json.loads(config["finished"])]
    rivals = {data: RunRecord.from_dict(values) for data, values in json.loads(config["rivals"]).items()}
    finished = {record.run_id for record in records}
    runs = [run for run in space.runs(json.loads(config["point"])) if run.run_id not in finished]

    def report(epoch: int, metrics: Mapping[str, float | None]) -> None:
        value = metrics.get(space.metric)
        if value is not None:
            # Ray Tune stops a trial with SystemExit in this call.
            tune.report({EPOCH: epoch, REACHED: value})

    evaluations = Rungs(rungs(space.search), report) if space.search.stop_early and not records else None
    try:
        for key, group in grouped(runs).items():
            job = Job(space.config, tuple(group), key, rivals)
            reference = contents[group[0].split.fingerprint]
            images = None if reference is None else ray.get(reference)
            records += records_of_job(config["number"], job, queue, home, directory, images, evaluations)
            evaluations = None
            if any(record.status != "ok" for record in records):
                break
    except HarnessError as error:
        queue.put(("refused", config["number"], error))
        records = []
    # The fault may be of this node only. The search shows the message and goes on.
    except Exception as error:  # noqa: BLE001
        queue.put(("broken", config["number"], f"node {gethostname()}: {type(error).__name__}: {error}"))
        records = []
    failed = any(record.status != "ok" for record in records)
    value = None if failed else value_of(records, space.metric)
    tune.report({FAILED: True} if value is None else {VALUE: value})


def rungs(search: Search) -> set[int]:
    """The epochs of ASHA's rungs (Li et al., 2018)."""
    epochs, epoch = set(), search.grace_epochs
    while epoch < LONGEST:
        epochs.add(epoch)
        epoch *= search.reduction_factor
    return epochs


def with_cache(sweep: SweepConfig, home: str) -> SweepConfig:
    """The config with a cache, through which trials share work; without `cache:`, the cache is in the node's folder.

    Args:
        sweep: config of the sweep.
        home: name of the search on the nodes.
    """
    return sweep if sweep.cache is not None else sweep.model_copy(update={"cache": str(node_cache(home))})


def node_folder(home: str) -> Path:
    """The folder of a search on a node."""
    return work_folder() / home


def node_cache(home: str) -> Path:
    """The cache of a search on a node. The end of the search deletes this cache."""
    return node_folder(home) / "cache"
