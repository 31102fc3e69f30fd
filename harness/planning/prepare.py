"""Config -> runs with their identities: the data is read, the grid expanded, the result folder looked at.

Nothing is written but toy data. timm, and so Torch, is imported only to know what a network was trained with, and
anomalib only where the data is one of its own datamodules.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import registry
from harness.backbones.local import local_hash
from harness.backends.base import AnySplit, Backend, Signature
from harness.common.errors import ConfigError, HarnessError, UnknownNameError
from harness.config.spec import RunSpec, run_id
from harness.config.sweep import SweepConfig, other_file_of
from harness.data.index import FileIndex, Progress
from harness.planning.plan import Plan, make_plan
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tasks.base import Task


@dataclass(frozen=True)
class PlannedRun:
    """A spec with its identity and the data it runs on."""

    run_id: str
    spec: RunSpec
    split: AnySplit


@dataclass(frozen=True)
class Prepared:
    """A sweep, ready to be checked and executed.

    Attributes:
        config: as read.
        folder: where its results are.
        plan: the expanded grid.
        runs: the plan's specs with their identities.
        splits: the data, by category.
        records: what the result folder held at the start, by run id.
        index: what is known of the data's files; to be saved once the result folder exists.
        made: folders of toy data that were written just now.
        damaged: one sentence for each record that can't be read, by the name of its folder. Such a run is left alone.
    """

    config: SweepConfig
    folder: ResultFolder
    plan: Plan
    runs: tuple[PlannedRun, ...]
    splits: Mapping[str, AnySplit]
    records: Mapping[str, RunRecord]
    index: FileIndex
    made: tuple[Path, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def discard_made_data(self) -> None:
        """Leave nothing behind of a sweep that was refused: toy data made for it goes, with folders left empty."""
        _discard(self.made, self.config.work_dir)

    def is_done(self, run: PlannedRun) -> bool:
        """Whether the run has a result; a failure is none, and so is one of random weights that nobody asked for."""
        record = self.records.get(run.run_id)
        return record is not None and record.status == "ok" and not record.weights.get("fallback")

    def is_damaged(self, run: PlannedRun) -> bool:
        """Whether there is a record that can't be read."""
        return run.run_id in self.damaged

    def has_failed(self, run: PlannedRun) -> bool:
        """Whether the last try failed."""
        record = self.records.get(run.run_id)
        return record is not None and record.status == "failed"


def prepare(config: SweepConfig, progress: Progress | None = None) -> Prepared:
    """Read the data, expand the grid, look at what is done.

    Args:
        config: a valid config.
        progress: called with (files read, files in all) while images are checked.

    Raises:
        HarnessError: anything wrong with models, parameters, data or earlier results, all at once.
    """
    folder = ResultFolder(config.folder)
    found = folder.read_records()
    records = found.by_id
    problems = [*_other_task(config, records.values()), *_other_config(config)]
    plan, index = None, FileIndex(folder.index)
    splits: list[AnySplit] = []
    kind = task(config.task)
    try:
        categories = config.data.categories(config.work_dir)
        plan = make_plan(config, categories, partial(signature, kind), kind.backend)
    except HarnessError as error:
        problems += error.problems
    missing = [] if plan is None else [p for p in config.data.made_by_harness(config.work_dir) if not p.exists()]
    # Real data is looked at too, so that all problems are told at once; toy data is not made in vain.
    if not (problems and config.data.synthetic):
        try:
            splits = kind.load(config, index, progress)
        except HarnessError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    problems += kind.problems(config, splits)
    if plan is None or problems:
        _discard([path for path in missing if path.exists()], config.work_dir)
        raise ConfigError(problems)
    by_category = {split.category: split for split in splits}
    runs = identified(plan.specs, by_category)
    made = tuple(path for path in missing if path.exists())
    return Prepared(config, folder, plan, runs, by_category, records, index, made, found.damaged)


def identified(specs: Iterable[RunSpec], splits: Mapping[str, AnySplit]) -> tuple[PlannedRun, ...]:
    """Specs with their identities.

    Args:
        specs: of any categories.
        splits: the data, by category.
    """
    found = []
    for spec in specs:
        split = splits[spec.category]
        identity = run_id(spec, split.fingerprint, local_hash(spec.weights, spec.backbone))
        found.append(PlannedRun(identity, spec, split))
    return tuple(found)


def _discard(made: Iterable[Path], work_dir: Path) -> None:
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
        # The toy data's own folder, `_toy`, and the output folder.
        for parent in (*list(folder.parents)[:2], work_dir):
            # Not empty: something else is in it.
            with suppress(OSError):
                parent.rmdir()


def _other_task(config: SweepConfig, records: Iterable[RunRecord]) -> list[str]:
    """A sentence where the result folder holds runs of another task."""
    other = sorted({record.task for record in records} - {config.task})
    if not other:
        return []
    return [f"name: {config.folder} holds runs of task {other[0]}, found task {config.task}; expected another name."]


def _other_config(config: SweepConfig) -> list[str]:
    """A sentence where two files of the same name would share a result folder, though nobody said so."""
    other = other_file_of(config.folder, config)
    if other is None:
        return []
    return [
        f"name: {config.folder} has the results of {other}, whose file has the same name; expected a `name:` in one of "
        f"them, or name={config.name} to share the folder."
    ]


def check(runs: Sequence[PlannedRun], device: str, entries: Mapping[RunSpec, str] | None = None) -> None:
    """Ask the backends for everything that would make these runs fail: names, layers, weights, values.

    Args:
        runs: to be made.
        device: as the config has it.
        entries: see `harness.planning.plan.Plan`; problems of some entries only are told with them.

    Raises:
        ConfigError: all problems, one sentence each.
    """
    problems = dict.fromkeys(_problems(runs, device))
    if problems:
        raise ConfigError(_with_entries(problems, runs, device, entries or {}))


def _with_entries(
    problems: Iterable[str], runs: Sequence[PlannedRun], device: str, entries: Mapping[RunSpec, str]
) -> list[str]:
    """Each problem with the entry of the grid and the model that it is about, unless it is about all of them."""
    parts: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        parts.setdefault((entries.get(run.spec, "grid"), run.spec.model), []).append(run)
    if len(parts) < 2:
        return list(problems)
    of = {part: set(_problems(own, device)) for part, own in parts.items()}
    found = []
    for problem in problems:
        about = [f"{entry}: {model}" for (entry, model), own in of.items() if problem in own]
        found.append(f"{', '.join(about)}: {problem}" if 0 < len(about) < len(parts) else problem)
    return found


def _problems(runs: Sequence[PlannedRun], device: str) -> list[str]:
    problems: list[str] = []
    for name in dict.fromkeys(run.spec.backend for run in runs):
        chosen = [run for run in runs if run.spec.backend == name]
        splits = {run.spec.category: run.split for run in chosen}
        problems += backend(name).check([run.spec for run in chosen], splits, device)
    return problems


def remarks(runs: Sequence[PlannedRun], device: str) -> list[str]:
    """What a user must know before these runs are made, one sentence each."""
    found: list[str] = []
    for name in dict.fromkeys(run.spec.backend for run in runs):
        found += backend(name).remarks([run.spec for run in runs if run.spec.backend == name], device)
    return found


def backend(name: str) -> Backend:
    """The backend registered as `name`."""
    found: Backend = registry.lookup(registry.BACKENDS, "backend", name)()
    return found


def task(name: str) -> Task:
    """The task registered as `name`."""
    found: Task = registry.lookup(registry.TASKS, "task", name)()
    return found


def signature(of: Task, backend_name: str, model: str) -> Signature:
    """What a model takes.

    Raises:
        ConfigError: there is no such backend or model, or it is of another task.
    """
    try:
        found = backend(backend_name)
    except UnknownNameError as error:
        raise ConfigError(f"backend: {error.problems[0]}") from error
    if found.task != of.name:
        known = ", ".join(name for name in registry.BACKENDS if backend(name).task == of.name)
        raise ConfigError(f"backend: {backend_name} found, which is for task {found.task}; expected one of: {known}.")
    return found.parameters(model)
