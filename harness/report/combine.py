"""Results of several sweeps in one folder, so that one workbook and one report show them together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD
from harness.results.store import ResultFolder

# Marks a folder that `combine` wrote, which it may therefore replace.
MARKER = "combined.json"


def combine(sources: Sequence[ResultFolder], target: ResultFolder) -> list[str]:
    """Copy the runs of several result folders, without their models, into one folder.

    Args:
        sources: result folders of one task.
        target: a new or empty folder, or one that an earlier call wrote.

    Returns:
        A sentence for each run that several sources have, for each damaged run, and for each link.

    Raises:
        StoreError: the target holds other files or can't be written, or the sources have several tasks.
    """
    _check_target(sources, target)
    contents = [(source, source.read_records()) for source in sources]
    tasks = {record.task: source.root for source, records in contents for record in records.good}
    if len(tasks) > 1:
        listed = ", ".join(f"{task} ({root})" for task, root in sorted(tasks.items()))
        raise StoreError(f"runs of several tasks found: {listed}; expected one task. Make a report for each task.")
    copied: dict[str, tuple[ResultFolder, RunRecord]] = {}
    repeated: dict[str, None] = {}
    for source, records in contents:
        for record in records.good:
            earlier = copied.get(record.run_id)
            if earlier is not None:
                repeated[record.run_id] = None
            if earlier is None or _preference(record) > _preference(earlier[1]):
                copied[record.run_id] = (source, record)
    links: list[Path] = []
    try:
        shutil.rmtree(target.runs, ignore_errors=True)
        target.create()
        for source, record in copied.values():
            folder = target.run_folder(record.run_id)
            shutil.copytree(source.run_folder(record.run_id), folder, ignore=_not_copied)
            links += [path for path in source.run_folder(record.run_id).rglob("*") if path.is_symlink()]
    except OSError as error:
        raise StoreError(f"{target.root}: can't be written ({error.strerror or error}).") from error
    names = [str(source.root) for source in sources]
    write_atomic(target.root / MARKER, json.dumps({"from": names}, indent=2) + "\n")
    write_atomic(target.config, "\n".join(f"# {source.root.name}\n---\n{source.read_config()}" for source in sources))
    sentences = [f"{run_id} is in several folders: the report shows the last one that finished." for run_id in repeated]
    sentences += [f"left out: {path}: a link found; expected a file or folder of the run itself." for path in links]
    return [*sentences, *(f"left out: {sentence}" for _, records in contents for sentence in records.damaged.values())]


def _not_copied(folder: str, names: list[str]) -> list[str]:
    """Names of models, which are large, and of links and devices: a link may lead out of the folder."""
    paths = {name: Path(folder) / name for name in names}
    return [
        name
        for name, path in paths.items()
        if name.startswith("model.") or path.is_symlink() or not (path.is_file() or path.is_dir())
    ]


def _preference(record: RunRecord) -> tuple[bool, str]:
    """Sort key: a finished run is preferred to a failed one, then the later run."""
    return record.status == "ok", str(record.provenance.get("ended", ""))


def _check_target(sources: Sequence[ResultFolder], target: ResultFolder) -> None:
    target.refuse_links()
    if target.root.resolve() in {source.root.resolve() for source in sources}:
        raise StoreError(f"--output: {target.root} is one of the sweeps; expected a separate folder. Name another one.")
    if target.root.exists() and not (target.root / MARKER).is_file() and any(target.root.iterdir()):
        raise StoreError(
            f"--output: {target.root} is not empty and was not made by `report`; expected a new folder for the "
            "combined sweeps. Name another one."
        )


def result_folder(path: Path) -> ResultFolder:
    """The result folder at a path.

    Raises:
        StoreError: the path holds no finished runs.
    """
    folder = ResultFolder(path)
    if not folder.runs.is_dir() or not any(folder.runs.glob(f"*/{RECORD}")):
        content = "a file" if path.is_file() else "no finished runs" if path.is_dir() else "nothing"
        raise StoreError(f"{path}: {content} found; expected a sweep's result folder, such as results/patchcore.")
    return folder
