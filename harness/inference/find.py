"""RUN on the command line -> the saved model: of a run's folder, or of a sweep's recommended configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import StoreError
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD, model_in, read_record
from harness.results.store import ResultFolder

KEEP = "Set save_models: all (best keeps one model for each category) and make the runs again with --fresh."


@dataclass(frozen=True)
class SavedRun:
    """A run with a saved model.

    Attributes:
        folder: the run's folder.
        record: the run's record.
        file: the saved model.
        note: which run of the sweep this is, and why; empty if the user named a run.
        damaged: one sentence for each run of the sweep that can't be read.
    """

    folder: Path
    record: RunRecord
    file: Path
    note: str = ""
    damaged: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to rely on the predictions of this run, one sentence each."""
        warnings = [f"left out: {sentence}" for sentence in self.damaged]
        if self.record.weights.get("source") == "random":
            warnings.append("the weights of this run are random: its predictions for real parts mean nothing")
        defective, missed = self.record.data.get("test_anomalous"), self.record.metrics.get("image_FalseNegatives")
        if defective and missed is not None and missed >= defective:
            warnings.append(f"at its threshold this model detects none of the {defective} defective test images")
        return tuple(warnings)


def find_run(path: Path, category: str | None = None) -> SavedRun:
    """Find a run with a saved model.

    Args:
        path: a run's folder, or a sweep's folder for its recommended configuration.
        category: category of the run; needed for a sweep with several categories.

    Returns:
        The run of that folder, or the recommended one of that sweep.

    Raises:
        StoreError: there is no such run, or its model was not saved.
    """
    if (path / RECORD).is_file():
        return _of_run(path, category)
    folder = ResultFolder(path)
    if not folder.runs.is_dir():
        kind = "a file" if path.is_file() else "a folder without runs" if path.is_dir() else "nothing"
        raise StoreError(
            f"{path}: {kind} found; expected a run's folder (results/<name>/runs/<run>), a sweep's (results/<name>), "
            "or an exported model."
        )
    return _best(folder, category)


def finished_run(path: Path, category: str | None = None) -> tuple[Path, RunRecord]:
    """Find a finished run, with or without a saved model.

    Args:
        path: a run's folder, or a sweep's folder for its recommended configuration.
        category: category of the run; needed for a sweep with several categories.

    Returns:
        The run's folder and its record.

    Raises:
        StoreError: there is no such run. For a sweep: no model was saved.
    """
    if (path / RECORD).is_file():
        return path, _finished(path, category)
    run = find_run(path, category)
    return run.folder, run.record


def _finished(path: Path, category: str | None) -> RunRecord:
    record = read_record(path)
    assert record is not None
    if category is not None and category != _category(record):
        raise StoreError(
            f"--category: {category!r} found; the run {path} is of {_category(record) or 'no category'!r}."
        )
    if record.status != "ok":
        status = "was skipped" if record.status == "skipped" else "failed"
        raise StoreError(f"{path}: this run {status} ({(record.error or {}).get('message', '')}). Name a finished run.")
    return record


def _of_run(path: Path, category: str | None) -> SavedRun:
    record = _finished(path, category)
    file = model_in(path)
    if file is None:
        raise StoreError(f"{path}: the model of this run was not kept. {KEEP}")
    return SavedRun(path, record, file)


def _best(folder: ResultFolder, category: str | None) -> SavedRun:
    # A report imports pandas and openpyxl, which a named run does not need.
    from harness.report.recommended import recommended_runs
    from harness.report.results import Results

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
    with_model = [record for record in records if folder.model_file(record.run_id)]
    if not with_model:
        raise StoreError(f"{folder.root}: the models of its {len(records)} runs were not kept. {KEEP}")
    recommended = {run.run_id for run in recommended_runs(Results.of(folder))}
    if len({_category(record) for record in with_model}) > 1:
        raise StoreError(_several_categories(folder, with_model, recommended))
    # A recommended run first, then a better one.
    record = max(with_model, key=lambda one: (one.run_id in recommended, *one.rank()))
    file = folder.model_file(record.run_id)
    assert file is not None
    recommended_id = next((one.run_id for one in records if one.run_id in recommended), None)
    note = f"the run of the recommended configuration of {folder.root}: {record.run_id}"
    if recommended_id is None:
        note = f"{record.run_id}: the best run of {folder.root} whose model was kept; the report recommends none"
    elif record.run_id not in recommended:
        note = (
            f"{record.run_id}: the best run of {folder.root} whose model was kept. The model of the recommended "
            f"configuration ({recommended_id}) was not: make it with `python -m harness sweep {folder.config}`"
        )
    return SavedRun(folder.run_folder(record.run_id), record, file, note, tuple(read.damaged.values()))


def _several_categories(folder: ResultFolder, records: Sequence[RunRecord], recommended: Collection[str]) -> str:
    chosen: dict[str, RunRecord] = {}
    for record in sorted(records, key=lambda one: (one.run_id in recommended, *one.rank())):
        chosen[_category(record)] = record
    listed = ", ".join(f"{name} ({folder.run_folder(record.run_id)})" for name, record in sorted(chosen.items()))
    return (
        f"{folder.root}: saved models of {len(chosen)} categories found; name one with --category, or name the folder "
        f"of a run: {listed}."
    )


def _category(record: RunRecord) -> str:
    return str(record.spec.get("category") or record.data.get("category") or "")
