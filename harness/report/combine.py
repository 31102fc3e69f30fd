"""Several sweeps' results in one folder, so that one sheet and one report show them together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.results.record import RunRecord
from harness.results.store import RECORD, ResultFolder

# Says that a folder was made here, and may be made anew.
MARKER = "combined.json"


def combine(sources: Sequence[ResultFolder], target: ResultFolder) -> list[str]:
    """Copy the runs of several result folders, without their models, into another that is made for it.

    Returns:
        A sentence for each run that several of them have (the last that went well is taken), for each that can't be
        read, and for each file that is a link.

    Raises:
        StoreError: the target is in use for something else.
    """
    _refuse_others(sources, target)
    read = [(source, source.read_records()) for source in sources]
    tasks = {record.task: source.root for source, records in read for record in records.good}
    if len(tasks) > 1:
        listed = ", ".join(f"{task} ({root})" for task, root in sorted(tasks.items()))
        raise StoreError(f"runs of several tasks found: {listed}; expected one task in a report.")
    chosen: dict[str, tuple[ResultFolder, RunRecord]] = {}
    twice: dict[str, None] = {}
    for source, records in read:
        for record in records.good:
            other = chosen.get(record.run_id)
            if other is not None:
                twice[record.run_id] = None
            if other is None or _order(record) > _order(other[1]):
                chosen[record.run_id] = (source, record)
    linked: list[Path] = []
    try:
        shutil.rmtree(target.runs, ignore_errors=True)
        target.create()
        for source, record in chosen.values():
            folder = target.run_folder(record.run_id)
            shutil.copytree(source.run_folder(record.run_id), folder, ignore=_left_behind)
            linked += [path for path in source.run_folder(record.run_id).rglob("*") if path.is_symlink()]
    except OSError as error:
        raise StoreError(f"{target.root}: can't be written ({error.strerror or error}).") from error
    names = [str(source.root) for source in sources]
    write_atomic(target.root / MARKER, json.dumps({"from": names}, indent=2) + "\n")
    write_atomic(target.config, "\n".join(f"# {source.root.name}\n---\n{source.read_config()}" for source in sources))
    said = [f"{run_id} is in several of them: the last that went well is shown." for run_id in twice]
    said += [f"left out: {path}: a link found, a file or folder of the run itself expected." for path in linked]
    return [*said, *(f"left out: {sentence}" for _, records in read for sentence in records.damaged.values())]


def _left_behind(folder: str, names: list[str]) -> list[str]:
    """Models, which are large, and whatever is no plain file: a link may lead out of the folder."""
    paths = {name: Path(folder) / name for name in names}
    return [
        name
        for name, path in paths.items()
        if name.startswith("model.") or path.is_symlink() or not (path.is_file() or path.is_dir())
    ]


def _order(record: RunRecord) -> tuple[bool, str]:
    """A result before a failure, then the later one."""
    return record.status == "ok", str(record.provenance.get("ended", ""))


def _refuse_others(sources: Sequence[ResultFolder], target: ResultFolder) -> None:
    target.refuse_links()
    if target.root.resolve() in {source.root.resolve() for source in sources}:
        raise StoreError(
            f"--output: {target.root} is one of the sweeps; expected a folder of its own for them together."
        )
    if target.root.exists() and not (target.root / MARKER).is_file() and any(target.root.iterdir()):
        raise StoreError(
            f"--output: {target.root} is not empty and was not made by `report`; expected a new folder for the sweeps "
            "together. Name another one."
        )


def result_folder(path: Path) -> ResultFolder:
    """The result folder at a path.

    Raises:
        StoreError: there is none.
    """
    folder = ResultFolder(path)
    if not folder.runs.is_dir() or not any(folder.runs.glob(f"*/{RECORD}")):
        found = "a file" if path.is_file() else "no finished runs" if path.is_dir() else "nothing"
        raise StoreError(f"{path}: {found} found; expected a sweep's result folder, such as results/patchcore.")
    return folder
