"""RUN on the command line -> the saved model of a run: of its folder, or of the best one of a sweep's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import StoreError
from harness.results.record import RunRecord
from harness.results.store import RECORD, ResultFolder, model_in, read_record

KEEP = "Set save_models: all (best keeps one for each category) and make the runs again with --fresh."


@dataclass(frozen=True)
class SavedRun:
    """A run whose model was kept.

    Attributes:
        folder: the run's.
        record: its record.
        file: its model.
        note: what to say of the choice; empty where there was none to make.
        damaged: one sentence for each run of the sweep that can't be read, and so can't be chosen.
    """

    folder: Path
    record: RunRecord
    file: Path
    note: str = ""
    damaged: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against relying on its answers, one sentence each; mostly none."""
        found = [f"left out: {sentence}" for sentence in self.damaged]
        if self.record.weights.get("source") == "random":
            found.append("its weights are random: what it says of real parts means nothing")
        bad, missed = self.record.data.get("test_anomalous"), self.record.metrics.get("image_FalseNegatives")
        if bad and missed is not None and missed >= bad:
            found.append(f"at its threshold it found none of the {bad} defective test images")
        return tuple(found)


def find_run(path: Path, category: str | None = None) -> SavedRun:
    """The run to use.

    Args:
        path: a run's folder, or a sweep's: its best run.
        category: of a sweep with several; each has a best run of its own.

    Raises:
        StoreError: there is none, or its model was not kept; says what to do.
    """
    if (path / RECORD).is_file():
        return _of_run(path, category)
    folder = ResultFolder(path)
    if not folder.runs.is_dir():
        found = "a file" if path.is_file() else "a folder without runs" if path.is_dir() else "nothing"
        raise StoreError(
            f"{path}: {found} found; expected a run's folder (results/<name>/runs/<run>), a sweep's (results/<name>), "
            "or an exported model."
        )
    return _best(folder, category)


def _of_run(path: Path, category: str | None) -> SavedRun:
    record = read_record(path)
    assert record is not None
    if category is not None and category != _category(record):
        raise StoreError(
            f"--category: {category!r} found; the run {path} is of {_category(record) or 'no category'!r}."
        )
    if record.status != "ok":
        ended = "was skipped" if record.status == "skipped" else "failed"
        raise StoreError(f"{path}: this run {ended} ({(record.error or {}).get('message', '')}); it has no model.")
    file = model_in(path)
    if file is None:
        raise StoreError(f"{path}: the model of this run was not kept. {KEEP}")
    return SavedRun(path, record, file)


def _best(folder: ResultFolder, category: str | None) -> SavedRun:
    read = folder.read_records()
    records = [record for record in read.good if record.status == "ok"]
    categories = sorted({_category(record) for record in records})
    if category is not None:
        records = [record for record in records if _category(record) == category]
        if not records:
            raise StoreError(
                f"--category: {category!r} found; {folder.root} has {', '.join(categories) or 'no finished runs'}."
            )
    if not records:
        raise StoreError([f"{folder.root}: no finished runs found; run the sweep first.", *read.damaged.values()])
    kept = [record for record in records if folder.model_file(record.run_id)]
    if not kept:
        raise StoreError(f"{folder.root}: the models of its {len(records)} runs were not kept. {KEEP}")
    if len({_category(record) for record in kept}) > 1:
        raise StoreError(_which(folder, kept))
    chosen = max(kept, key=RunRecord.rank)
    file = folder.model_file(chosen.run_id)
    assert file is not None
    best = max(records, key=RunRecord.rank)
    note = f"the best run of {folder.root}: {chosen.run_id}"
    if best.run_id != chosen.run_id:
        note = f"{chosen.run_id}: the best of {folder.root} whose model was kept; that of {best.run_id} was not"
    return SavedRun(folder.run_folder(chosen.run_id), chosen, file, note, tuple(read.damaged.values()))


def _which(folder: ResultFolder, kept: Sequence[RunRecord]) -> str:
    best: dict[str, RunRecord] = {}
    for record in sorted(kept, key=RunRecord.rank):
        best[_category(record)] = record
    listed = ", ".join(f"{name} ({folder.run_folder(record.run_id)})" for name, record in sorted(best.items()))
    return (
        f"{folder.root}: a best run for each of {len(best)} categories found; name one with --category, or give its "
        f"folder: {listed}."
    )


def _category(record: RunRecord) -> str:
    return str(record.spec.get("category") or record.data.get("category") or "")
