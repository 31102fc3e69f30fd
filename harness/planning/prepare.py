"""Config -> runs with their identities. This module reads the data and earlier results, and expands the grid.

The module writes toy data and synthetic defects only. The module imports timm, and so Torch, for the default layers of
other networks than a model's own, and anomalib for data of anomalib's datamodules.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from harness import registry
from harness.backbones.local import local_hash
from harness.backends.base import AnySplit, Backend, Signature
from harness.common.errors import ConfigError, HarnessError, UnknownNameError
from harness.config.axes import UNIFY
from harness.config.load import at_place
from harness.config.spec import RunSpec, run_id
from harness.config.stored import other_file_of
from harness.config.sweep import SweepConfig
from harness.data.index import FileIndex, Progress
from harness.data.samples import Split
from harness.data.subset import part_of
from harness.data.unify import unified
from harness.planning.plan import Plan, make_plan
from harness.planning.threshold import with_method, with_notes
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tasks.base import Task
from harness.tracking.session import missing_trackers


@dataclass(frozen=True)
class PlannedRun:
    """A spec with its identity and its data.

    Attributes:
        run_id: the identity.
        spec: of the run.
        split: the data of the category, or of all categories where one model learns from all; equal for all runs, which
            share work on it.
    """

    run_id: str
    spec: RunSpec
    split: AnySplit

    @property
    def own_split(self) -> AnySplit:
        """The data with the images that the run uses."""
        if not isinstance(self.split, Split):
            return self.split
        return part_of(self.split, self.spec.n_train, self.spec.seed, self.spec.category)

    def record(self, status: Literal["ok", "failed", "skipped"], **fields: Any) -> RunRecord:
        """The record of this run.

        Args:
            status: of the run.
            fields: the other fields of `RunRecord`.
        """
        return RunRecord(self.run_id, status, self.spec.as_dict(), list(self.spec.axes), **fields)


@dataclass(frozen=True)
class Prepared:
    """A sweep before checks and execution.

    Attributes:
        config: of the sweep.
        folder: the result folder.
        plan: the expanded grid.
        runs: specs of the plan with their identities.
        splits: the data, by category.
        records: records in the result folder at the start, by run id.
        index: hashes and sizes of the data's files; the sweep saves the index in the result folder.
        toy_folders: new folders of toy data.
        damaged: one sentence for each unreadable record, by the name of its folder. The sweep skips such a run.
    """

    config: SweepConfig
    folder: ResultFolder
    plan: Plan
    runs: tuple[PlannedRun, ...]
    splits: Mapping[str, AnySplit]
    records: Mapping[str, RunRecord]
    index: FileIndex
    toy_folders: tuple[Path, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def discard_toy_data(self) -> None:
        """Delete the new toy data of a refused sweep, and parent folders without other files."""
        _discard(self.toy_folders, self.config.work_dir)

    def is_done(self, run: PlannedRun) -> bool:
        """Whether the run has a valid result. A failed run has none, and neither has a fallback to random weights."""
        record = self.records.get(run.run_id)
        return record is not None and record.status == "ok" and not record.weights.get("fallback")

    def is_damaged(self, run: PlannedRun) -> bool:
        """Whether the run has an unreadable record."""
        return run.run_id in self.damaged

    def has_failed(self, run: PlannedRun) -> bool:
        """Whether the last attempt failed."""
        record = self.records.get(run.run_id)
        return record is not None and record.status == "failed"


def prepare_all(configs: Sequence[SweepConfig], progress: Progress | None = None) -> list[Prepared]:
    """Prepare the sweeps of one config file over its data sets.

    Args:
        configs: valid configs of one result folder, one for each data set.
        progress: see `prepare`.

    Raises:
        HarnessError: data sets have errors, or two have the same images; one sentence for each.
    """
    # All sweeps save the same file.
    index = FileIndex(ResultFolder(configs[0].folder).index)
    sweeps: list[Prepared] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for position, config in enumerate(configs):
        place = f"data[{position}]" if config.datasets else "data"
        try:
            prepared = prepare(config, progress, index)
        except HarnessError as error:
            problems += [at_place(problem, place) for problem in error.problems]
            continue
        sweeps.append(prepared)
        first = next((places[run.run_id] for run in prepared.runs if run.run_id in places), None)
        if first:
            problems.append(f"{place}: the same images as in {first} found; expected each data set once. Remove one.")
        places |= {run.run_id: place for run in prepared.runs}
    if problems:
        for prepared in sweeps:
            prepared.discard_toy_data()
        raise ConfigError(list(dict.fromkeys(problems)))
    return sweeps


def prepare(config: SweepConfig, progress: Progress | None = None, index: FileIndex | None = None) -> Prepared:
    """Read the data and the earlier results, and expand the grid.

    Args:
        config: a valid config.
        progress: called with (files read, number of files) during the check of the images.
        index: hashes and sizes of the data's files; by default those in the result folder.

    Raises:
        HarnessError: models, parameters, data or earlier results have errors; one sentence for each.
    """
    folder = ResultFolder(config.folder)
    results = folder.read_records()
    records = results.by_id
    problems = [*_other_task(config, records.values()), *_other_config(config), *missing_trackers(config.tracking)]
    plan, index = None, index or FileIndex(folder.index)
    splits: list[AnySplit] = []
    config_task = task(config.task)
    signatures, notes = partial(signature, config_task), list[str]()
    try:
        config, notes = with_method(config, signatures, config_task.backend)
        categories = config.data.categories(config.work_dir)
        plan = make_plan(config, categories, signatures, config_task.backend)
    except HarnessError as error:
        problems += error.problems
    missing = [] if plan is None else [p for p in config.data.made_by_harness(config.work_dir) if not p.exists()]
    # One error lists the problems of the config and of real data. Generating toy data can't reveal another problem.
    if not (problems and config.data.synthetic):
        try:
            splits = [with_notes(split, notes) for split in config_task.load(config, index, progress)]
        except HarnessError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    problems += config_task.problems(config, splits)
    toy_folders = tuple(path for path in missing if path.exists())
    problems += _one_category(plan, splits)
    if plan is None or problems:
        _discard(toy_folders, config.work_dir)
        raise ConfigError(problems)
    by_category = {split.category: split for split in splits}
    runs = identified(plan.specs, by_category)
    return Prepared(config, folder, plan, runs, by_category, records, index, toy_folders, results.damaged)


def identified(specs: Iterable[RunSpec], splits: Mapping[str, AnySplit]) -> tuple[PlannedRun, ...]:
    """Compute the identities of runs.

    Args:
        specs: of the runs, of any categories.
        splits: the data, by category.
    """
    runs = []
    hash_of = cache(local_hash)
    of_all = cache(lambda: unified([split for split in splits.values() if isinstance(split, Split)]))
    for spec in specs:
        split = of_all() if spec.unify else splits[spec.category]
        identity = run_id(spec, split.fingerprint, hash_of(spec.weights, spec.backbone))
        runs.append(PlannedRun(identity, spec, split))
    return tuple(runs)


def _one_category(plan: Plan | None, splits: Sequence[AnySplit]) -> list[str]:
    """The problem of one model for all categories, where there is one category."""
    if plan is None or len(splits) != 1 or not any(spec.unify for spec in plan.specs):
        return []
    return [f"{UNIFY}: true found, but the data has one category; expected two or more. Remove {UNIFY}."]


def _discard(toy_folders: Iterable[Path], work_dir: Path) -> None:
    for folder in toy_folders:
        shutil.rmtree(folder, ignore_errors=True)
        # The folder of this toy data, `_toy`, and the output folder.
        for parent in (*list(folder.parents)[:2], work_dir):
            # A folder with other files stays.
            with suppress(OSError):
                parent.rmdir()


def _other_task(config: SweepConfig, records: Iterable[RunRecord]) -> list[str]:
    """The problem of a result folder with runs of another task."""
    tasks = sorted({record.task for record in records} - {config.task})
    return [
        f"name: {config.folder} has runs of task {name}; expected task {config.task}. Set another name."
        for name in tasks[:1]
    ]


def _other_config(config: SweepConfig) -> list[str]:
    """The problem of two config files with the same name and the same result folder."""
    file = other_file_of(config.folder, config)
    if file is None:
        return []
    return [
        f"name: {config.folder} has the results of {file}, a config of the same name; expected another name. Set "
        f"`name:` in one of these configs, or name={config.name} to share the folder."
    ]


def backend(name: str) -> Backend:
    """The backend registered as `name`."""
    registered: Backend = registry.lookup(registry.BACKENDS, "backend", name)()
    return registered


def task(name: str) -> Task:
    """The task registered as `name`."""
    registered: Task = registry.lookup(registry.TASKS, "task", name)()
    return registered


def signature(config_task: Task, backend_name: str, model: str) -> Signature:
    """The parameters of a model.

    Args:
        config_task: task of the config.
        backend_name: name of the model's backend.
        model: name of the model.

    Raises:
        ConfigError: the backend or the model is unknown, or the backend is for another task.
    """
    try:
        named = backend(backend_name)
    except UnknownNameError as error:
        raise ConfigError(f"backend: {error.problems[0]}") from error
    if named.task != config_task.name:
        names = ", ".join(name for name in registry.BACKENDS if backend(name).task == config_task.name)
        raise ConfigError(f"backend: {backend_name} found, which is for task {named.task}; expected one of: {names}.")
    return named.parameters(model)
