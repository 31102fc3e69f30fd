"""The checks of runs by their backends before the first run starts, and the backends' notes for the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.backends.base import AnySplit, Backend
from harness.common.errors import ConfigError
from harness.config.spec import RunSpec
from harness.planning.prepare import PlannedRun, backend


def check(runs: Sequence[PlannedRun], device: str, entries: Mapping[RunSpec, str] | None = None) -> None:
    """Let the backends check the names, layers, weights and values of runs before the first run starts.

    Args:
        runs: the planned runs.
        device: value of `device:` in the config.
        entries: see `harness.planning.plan.Plan`. A problem of some entries only gets the names of these entries.

    Raises:
        ConfigError: a run would fail; one sentence for each problem.
    """
    problems = dict.fromkeys(_problems(runs, device))
    if problems:
        raise ConfigError(_with_entries(problems, runs, device, entries or {}))


def _with_entries(
    problems: Iterable[str], runs: Sequence[PlannedRun], device: str, entries: Mapping[RunSpec, str]
) -> list[str]:
    """Add the entry of the grid and the model to each problem that does not concern all entries and models."""
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault((entries.get(run.spec, "grid"), run.spec.model), []).append(run)
    if len(groups) < 2:
        return list(problems)
    by_group = {group: set(_problems(members, device)) for group, members in groups.items()}
    sentences = []
    for problem in problems:
        places = [f"{entry}: {model}" for (entry, model), of_group in by_group.items() if problem in of_group]
        sentences.append(f"{', '.join(places)}: {problem}" if 0 < len(places) < len(groups) else problem)
    return sentences


def _problems(runs: Sequence[PlannedRun], device: str) -> list[str]:
    problems: list[str] = []
    for of_backend, specs, splits in _by_backend(runs):
        problems += of_backend.check(specs, splits, device)
    return problems


def _by_backend(runs: Sequence[PlannedRun]) -> Iterator[tuple[Backend, list[RunSpec], dict[str, AnySplit]]]:
    """Each backend with the specs of its runs and their data, by category."""
    for name, unify in dict.fromkeys((run.spec.backend, run.spec.unify) for run in runs):
        members = [run for run in runs if (run.spec.backend, run.spec.unify) == (name, unify)]
        yield backend(name), [run.spec for run in members], {run.spec.category: run.split for run in members}


def remarks(runs: Sequence[PlannedRun], device: str, memory_limit: int | None) -> list[str]:
    """Collect the backends' notes for the user about runs.

    Args:
        runs: the planned runs.
        device: value of `device:` in the config.
        memory_limit: value of `memory_limit:` in the config.

    Returns:
        One sentence for each note.
    """
    notes: list[str] = []
    for of_backend, specs, splits in _by_backend(runs):
        notes += of_backend.remarks(specs, splits, device, memory_limit)
    return notes
