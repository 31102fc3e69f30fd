"""A trial on a node: the runs of a point made, and looked at in between."""

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
from harness.execution.launchers.node import making, work_folder
from harness.results.record import RunRecord
from harness.search.history import EPOCH, FAILED, REACHED, VALUE, value_of
from harness.search.points import Space


def attempt(
    config: Mapping[str, Any],
    sweep: SweepConfig,
    splits: Mapping[str, AnySplit],
    queue: Any,
    home: str,
    directory: str,
    contents: Mapping[str, Any],
) -> None:
    """Make a trial, and tell Ray Tune what came of it.

    Args:
        config: see `harness.search.session.SearchSession.handed`.
        sweep: the sweep's config.
        splits: the data, by category.
        queue, home, directory: see `harness.execution.launchers.node.making`.
        contents: where Ray has the images that are sent along, by the split's fingerprint; else None.
    """
    import ray
    from ray import tune

    # The next trial in this process waits until this one is out of it, however long that takes.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    # Run ids are made here again, and are the same.
    remember(sweep.references)
    space = Space(with_cache(sweep, home), splits)
    records = [RunRecord.from_dict(values) for values in json.loads(config["made"])]
    rivals = {data: RunRecord.from_dict(values) for data, values in json.loads(config["rivals"]).items()}
    there = {record.run_id for record in records}
    runs = [run for run in space.runs(json.loads(config["point"])) if run.run_id not in there]

    def tell(epoch: int, metrics: Mapping[str, float | None]) -> None:
        reached = metrics.get(space.metric)
        if reached is not None:
            # Where Ray Tune stops the trial, this does not return.
            tune.report({EPOCH: epoch, REACHED: reached})

    looked = Rungs(rungs(space.search), tell) if space.search.stop_early and not records else None
    try:
        for key, group in grouped(runs).items():
            job = Job(space.config, tuple(group), key, rivals)
            reference = contents[group[0].split.fingerprint]
            given = None if reference is None else ray.get(reference)
            records += making(config["number"], job, queue, home, directory, given, looked)
            looked = None
            if any(record.status != "ok" for record in records):
                break
    except HarnessError as error:
        queue.put(("refused", config["number"], error))
        records = []
    # A fault of this node's, say: the search says it, and goes on.
    except Exception as error:  # noqa: BLE001
        queue.put(("broken", config["number"], f"node {gethostname()}: {type(error).__name__}: {error}"))
        records = []
    failed = any(record.status != "ok" for record in records)
    value = None if failed else value_of(records, space.metric)
    tune.report({FAILED: True} if value is None else {VALUE: value})


def rungs(search: Search) -> set[int]:
    """Epochs after which Asynchronous Successive ASHA (Li et al., 2018) decides."""
    found, epoch = set(), search.grace_epochs
    while epoch < LONGEST:
        found.add(epoch)
        epoch *= search.reduction_factor
    return found


def with_cache(sweep: SweepConfig, home: str) -> SweepConfig:
    """Trials are made one by one: what they share, they find in the cache; without one of its own, in the node's."""
    return sweep if sweep.cache is not None else sweep.model_copy(update={"cache": str(own_cache(home))})


def own_home(home: str) -> Path:
    """What a node keeps for a search."""
    return work_folder() / home


def own_cache(home: str) -> Path:
    """The cache of a search on a node, removed when the search is over."""
    return own_home(home) / "cache"
