"""A trial on a node: the runs of a point made, and looked at in between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.backends.base import AnySplit
from harness.config import SweepConfig
from harness.errors import HarnessError
from harness.launch.node import making, work_folder
from harness.record import RunRecord
from harness.search.history import value_of
from harness.search.points import Space
from harness.search.proposer import EPOCH, FAILED, REACHED, VALUE
from harness.search.space import Search
from harness.work import Job, Rungs, grouped

LONGEST = 10_000  # epochs


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
        config: what the proposer handed over: number and point.
        sweep: the sweep's config.
        splits: the data, by category.
        queue, home, directory: see `harness.launch.node.making`.
        contents: of the images that are sent along, by the split's fingerprint.
    """
    from ray import tune

    space = Space(with_cache(sweep, home), splits)
    records: list[RunRecord] = []

    def tell(epoch: int, metrics: Mapping[str, float | None]) -> None:
        reached = metrics.get(space.metric)
        if reached is not None:
            # Where Ray Tune stops the trial, this does not return.
            tune.report({EPOCH: epoch, REACHED: reached})

    looked = Rungs(rungs(space.search), tell) if space.search.stop_early else None
    try:
        for key, group in grouped(space.runs(json.loads(config["point"]))).items():
            job = Job(space.config, tuple(group), key)
            given = contents.get(group[0].split.fingerprint)
            watched = None if records else looked
            records += making(config["number"], job, queue, home, directory, given, watched)
            if any(record.status != "ok" for record in records):
                break
    except HarnessError as error:
        queue.put(("refused", config["number"], error))
        tune.report({FAILED: True})
        return
    failed = any(record.status != "ok" for record in records)
    value = None if failed else value_of(records, space.metric)
    tune.report({FAILED: True} if value is None else {VALUE: value})


def rungs(search: Search) -> set[int]:
    """Epochs after which Asynchronous Successive Halving (Li et al., 2018) decides."""
    found, epoch = set(), search.grace_epochs
    while epoch < LONGEST:
        found.add(epoch)
        epoch *= search.reduction_factor
    return found


def with_cache(sweep: SweepConfig, home: str) -> SweepConfig:
    """Trials are made one by one: what they share, they find in the cache; without one of its own, in the node's."""
    return sweep if sweep.cache is not None else sweep.model_copy(update={"cache": str(own_cache(home))})


def own_cache(home: str) -> Path:
    """The cache of a search on a node, removed when the search is over."""
    return work_folder() / home / "cache"
